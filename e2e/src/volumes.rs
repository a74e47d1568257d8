//! What the volumes of voters hold, read on this machine beside the nodes that write them.

use std::path::Path;

use althing_node::adapters::storage::{BlockReader, ConsensusLog};
use anyhow::{Context, Result, bail};
use node_core::codec::{Decode, Encode};
use node_core::consensus::LogEntry;
use node_core::types::{Block, Step as SignedStep};

use crate::invariants::{SigningLog, Step};

/// Reads all final blocks of a volume in order.
///
/// # Errors
/// When one is missing or damaged; beside a living node, reading again may succeed.
pub fn read_blocks(volume: &Path, mut visit: impl FnMut(&Block)) -> Result<()> {
    let reader = BlockReader::open(&volume.join("blocks"))?;
    let mut next = reader.first_height();
    while let Some(height) = next.filter(|height| Some(*height) <= reader.last_height()) {
        let found = reader.read(height)?.with_context(|| format!("block {height} is missing"))?;
        visit(&found.block);
        next = Some(height.next());
    }
    Ok(())
}

/// Reads the signing log of a voter's volume; nothing if it has signed nothing yet.
///
/// # Errors
/// When it is damaged; beside a living node, reading again may succeed.
pub fn read_signing_log(volume: &Path, identity: &str) -> Result<Option<SigningLog>> {
    let entries = ConsensusLog::read(&volume.join("wal"))?;
    let mut log = None;
    for bytes in entries {
        let ((round, step), message) = match LogEntry::decode(&bytes).context("failed to decode a log entry")? {
            LogEntry::Start { height, .. } => {
                log = Some(SigningLog { identity: identity.into(), height: height.get(), ..SigningLog::default() });
                continue;
            }
            LogEntry::OwnVote(record, vote) => ((record.slot.round, record.slot.step), vote.encode()),
            LogEntry::OwnProposal(record, proposal) => ((record.slot.round, record.slot.step), proposal.encode()),
            LogEntry::Vote(_)
            | LogEntry::Proposal(_)
            | LogEntry::Block(_)
            | LogEntry::Header(_)
            | LogEntry::Batch(_)
            | LogEntry::Value(_)
            | LogEntry::Timeout(..)
            | LogEntry::Polka(_) => continue,
        };
        let step = match step {
            SignedStep::Propose => Step::Proposal,
            SignedStep::Prevote => Step::Prevote,
            SignedStep::Precommit => Step::Precommit,
        };
        let Some(log) = &mut log else { bail!("the log does not begin with its height") };
        log.messages.entry((round.get(), step)).or_default().insert(message);
    }
    Ok(log)
}
