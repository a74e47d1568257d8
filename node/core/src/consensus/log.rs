//! The signing log: what one height needs to go on after a crash exactly where it stopped, and what was signed before.

use std::{collections::BTreeMap, sync::Arc};

use arc_malachitebft_core_consensus::{Input as CoreInput, ProposedValue};
use arc_malachitebft_core_types as malachite;
use malachite::{Validity, ValueOrigin};

use super::{
    certificates::polka_certificate,
    context::{self, Chain},
    timers::TimeoutKind,
};
use crate::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    session::{RecordEntry, SigningRecord},
    types::{Batch, Block, Hash, Header, Height, Identity, Proposal, Round, RoundCertificate, Vote},
};

const LOG_VERSION: u8 = 1;

/// One entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogEntry {
    /// The first entry: the height, and what was signed before it.
    Start {
        /// The height that the entries after it belong to.
        height: Height,
        /// The record of all keys of the volume.
        record: SigningRecord,
    },
    /// This node signed a vote.
    OwnVote(RecordEntry, Vote),
    /// This node signed a proposal.
    OwnProposal(RecordEntry, Proposal),
    /// The protocol took a vote into account.
    Vote(Vote),
    /// The protocol took a proposal into account.
    Proposal(Proposal),
    /// A block that entries after it name, whole.
    Block(Arc<Block>),
    /// The header of a block that entries after it name. Its batches are entries before it, or stored on their own.
    Header(Arc<Header>),
    /// A batch that a header after it names, and that is not stored on its own.
    Batch(Arc<Batch>),
    /// The protocol learned whether a block is valid.
    Value(LoggedValue),
    /// A timeout of the protocol elapsed.
    Timeout(TimeoutKind, Round),
    /// The protocol took a quorum of prevotes into account.
    Polka(RoundCertificate),
}

/// A block that was judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoggedValue {
    /// The height.
    pub height: Height,
    /// The round in which it was proposed.
    pub round: Round,
    /// The earlier round in which it had a quorum of prevotes, if any.
    pub valid_round: Option<Round>,
    /// Who proposed it.
    pub proposer: Identity,
    /// The hash of its header.
    pub value: Hash,
    /// Whether it keeps the rules.
    pub valid: bool,
}

/// The log of one height, as it is on disk and in memory: a rebuild in mid-height replays the latter.
#[derive(Debug, Default)]
pub struct HeightLog {
    height: Option<Height>,
    entries: Vec<LogEntry>,
}

/// What the log of a volume says when it is opened.
#[derive(Debug, Default)]
pub struct OpenedLog {
    /// The entries of its height.
    pub log: HeightLog,
    /// What the keys of the volume signed.
    pub record: SigningRecord,
}

impl HeightLog {
    /// Reads entries from disk.
    pub fn open(entries: &[Vec<u8>]) -> Result<OpenedLog, DecodeError> {
        let mut opened = OpenedLog { log: Self::default(), record: SigningRecord::new() };
        for (index, bytes) in entries.iter().enumerate() {
            let entry = LogEntry::decode(bytes)?;
            match &entry {
                LogEntry::Start { height, record } if index == 0 => {
                    opened.log.height = Some(*height);
                    opened.record = record.clone();
                    continue;
                }
                LogEntry::Start { .. } => return Err(DecodeError::invalid("signing log", "it starts twice")),
                _ if index == 0 => return Err(DecodeError::invalid("signing log", "its first entry is missing")),
                LogEntry::OwnVote(record, _) | LogEntry::OwnProposal(record, _) => {
                    opened.record.restore(*record).map_err(|error| DecodeError::invalid("signing log", error))?;
                }
                _ => {}
            }
            opened.log.entries.push(entry);
        }
        Ok(opened)
    }

    /// The height that the entries belong to; nothing on a fresh volume.
    pub fn height(&self) -> Option<Height> {
        self.height
    }

    /// The entries after the first.
    pub fn entries(&self) -> &[LogEntry] {
        &self.entries
    }

    /// Starts anew for a height. Returns the first entry.
    pub fn reset(&mut self, height: Height, record: &SigningRecord) -> Vec<u8> {
        self.height = Some(height);
        self.entries.clear();
        LogEntry::Start { height, record: record.clone() }.encode()
    }

    /// Adds an entry. Returns its bytes for the disk.
    pub fn add(&mut self, entry: LogEntry) -> Vec<u8> {
        let bytes = entry.encode();
        self.entries.push(entry);
        bytes
    }

    /// The last entry is this vote or proposal of the own.
    pub fn ends_with_own(&self, signature: &crate::types::Signature) -> bool {
        match self.entries.last() {
            Some(LogEntry::OwnVote(_, vote)) => vote.signature == *signature,
            Some(LogEntry::OwnProposal(_, proposal)) => proposal.signature == *signature,
            _ => false,
        }
    }

    /// A block of the log.
    pub fn has_block(&self, hash: &Hash) -> bool {
        self.entries.iter().any(|entry| match entry {
            LogEntry::Block(block) => block.hash() == *hash,
            LogEntry::Header(header) => header.hash() == *hash,
            _ => false,
        })
    }

    /// Whether a batch is in the log.
    pub fn has_batch(&self, digest: &Hash) -> bool {
        self.entries.iter().any(|entry| matches!(entry, LogEntry::Batch(batch) if batch.digest() == *digest))
    }

    /// The batches of the log.
    pub fn batches(&self) -> BTreeMap<Hash, Arc<Batch>> {
        let batch = |entry: &LogEntry| match entry {
            LogEntry::Batch(batch) => Some((batch.digest(), batch.clone())),
            _ => None,
        };
        self.entries.iter().filter_map(batch).collect()
    }

    /// The own proposal of a round.
    pub fn own_proposal(&self, round: Round) -> Option<&Proposal> {
        self.entries.iter().find_map(|entry| match entry {
            LogEntry::OwnProposal(_, proposal) if proposal.proposal.round == round => Some(proposal),
            _ => None,
        })
    }

    /// The block that this node judged valid as its own proposal of a round, maybe without having signed it yet.
    pub fn own_value(&self, round: Round, identity: &Identity) -> Option<Hash> {
        self.entries.iter().find_map(|entry| match entry {
            LogEntry::Value(value) if value.round == round && value.proposer == *identity && value.valid => {
                Some(value.value)
            }
            _ => None,
        })
    }
}

impl LogEntry {
    /// The entry as the protocol takes it. The first entry and blocks are not for the protocol.
    pub fn for_core(&self, height: Height) -> Option<CoreInput<Chain>> {
        Some(match self {
            Self::Start { .. } | Self::Block(_) | Self::Header(_) | Self::Batch(_) => return None,
            Self::OwnVote(_, vote) | Self::Vote(vote) => CoreInput::Vote(context::signed_vote(vote)),
            Self::OwnProposal(_, proposal) | Self::Proposal(proposal) => {
                CoreInput::Proposal(context::signed_proposal(proposal))
            }
            Self::Value(value) => CoreInput::ProposedValue(value.for_core(), ValueOrigin::Consensus),
            Self::Timeout(kind, round) => CoreInput::TimeoutElapsed(kind.for_core(*round)),
            Self::Polka(certificate) => CoreInput::PolkaCertificate(polka_certificate(height, certificate)?),
        })
    }
}

impl LoggedValue {
    /// As the protocol takes it.
    pub fn for_core(&self) -> ProposedValue<Chain> {
        ProposedValue {
            height: self.height,
            round: context::round_into(self.round),
            valid_round: self.valid_round.map_or(malachite::Round::Nil, context::round_into),
            proposer: self.proposer,
            value: self.value,
            validity: Validity::from_bool(self.valid),
        }
    }

    /// From what the protocol logs.
    pub fn from_core(value: &ProposedValue<Chain>) -> Self {
        Self {
            height: value.height,
            round: context::round_of(value.round),
            valid_round: value.valid_round.as_u32().map(Round::new),
            proposer: value.proposer,
            value: value.value,
            valid: value.validity.is_valid(),
        }
    }
}

impl Encode for LoggedValue {
    fn encode_to(&self, writer: &mut Writer) {
        self.height.encode_to(writer);
        self.round.encode_to(writer);
        writer.option(self.valid_round.as_ref());
        self.proposer.encode_to(writer);
        self.value.encode_to(writer);
        writer.u8(u8::from(self.valid));
    }
}

impl Decode for LoggedValue {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            height: Height::decode_from(reader)?,
            round: Round::decode_from(reader)?,
            valid_round: reader.option("valid round")?,
            proposer: Identity::decode_from(reader)?,
            value: Hash::decode_from(reader)?,
            valid: match reader.u8("valid")? {
                0 => false,
                1 => true,
                found => return Err(DecodeError::UnknownTag { field: "valid", found }),
            },
        })
    }
}

impl Encode for TimeoutKind {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Propose => 1,
            Self::Prevote => 2,
            Self::Precommit => 3,
            Self::Rebroadcast => 4,
        });
    }
}

impl Decode for TimeoutKind {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("timeout kind")? {
            1 => Ok(Self::Propose),
            2 => Ok(Self::Prevote),
            3 => Ok(Self::Precommit),
            4 => Ok(Self::Rebroadcast),
            found => Err(DecodeError::UnknownTag { field: "timeout kind", found }),
        }
    }
}

impl Encode for LogEntry {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(LOG_VERSION);
        match self {
            Self::Start { height, record } => {
                writer.u8(1);
                height.encode_to(writer);
                record.encode_to(writer);
            }
            Self::OwnVote(record, vote) => {
                writer.u8(2);
                record.encode_to(writer);
                vote.encode_to(writer);
            }
            Self::OwnProposal(record, proposal) => {
                writer.u8(3);
                record.encode_to(writer);
                proposal.encode_to(writer);
            }
            Self::Vote(vote) => {
                writer.u8(4);
                vote.encode_to(writer);
            }
            Self::Proposal(proposal) => {
                writer.u8(5);
                proposal.encode_to(writer);
            }
            Self::Block(block) => {
                writer.u8(6);
                block.encode_to(writer);
            }
            Self::Value(value) => {
                writer.u8(7);
                value.encode_to(writer);
            }
            Self::Timeout(kind, round) => {
                writer.u8(8);
                kind.encode_to(writer);
                round.encode_to(writer);
            }
            Self::Polka(certificate) => {
                writer.u8(9);
                certificate.encode_to(writer);
            }
            Self::Header(header) => {
                writer.u8(10);
                header.encode_to(writer);
            }
            Self::Batch(batch) => {
                writer.u8(11);
                batch.encode_to(writer);
            }
        }
    }
}

impl Decode for LogEntry {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("signing log entry", LOG_VERSION)?;
        Ok(match reader.u8("signing log entry")? {
            1 => Self::Start { height: Height::decode_from(reader)?, record: SigningRecord::decode_from(reader)? },
            2 => Self::OwnVote(RecordEntry::decode_from(reader)?, Vote::decode_from(reader)?),
            3 => Self::OwnProposal(RecordEntry::decode_from(reader)?, Proposal::decode_from(reader)?),
            4 => Self::Vote(Vote::decode_from(reader)?),
            5 => Self::Proposal(Proposal::decode_from(reader)?),
            6 => Self::Block(Arc::new(Block::decode_from(reader)?)),
            7 => Self::Value(LoggedValue::decode_from(reader)?),
            8 => Self::Timeout(TimeoutKind::decode_from(reader)?, Round::decode_from(reader)?),
            9 => Self::Polka(RoundCertificate::decode_from(reader)?),
            10 => Self::Header(Arc::decode_from(reader)?),
            11 => Self::Batch(Arc::decode_from(reader)?),
            found => return Err(DecodeError::UnknownTag { field: "signing log entry", found }),
        })
    }
}
