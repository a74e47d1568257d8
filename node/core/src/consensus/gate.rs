//! The gate before the protocol: verifies what comes from peers, and keeps within bounds what is early.

use std::collections::{BTreeMap, VecDeque};

use super::{
    chain::{ChainView, KEPT_HEIGHTS},
    effect::DropReason,
    proposer::proposer_at,
};
use crate::{
    crypto::{InvalidSignature, verify_proposal, verify_vote},
    types::{
        CommitCertificate, Height, Identity, PeerMessage, ProposedHeader, Round, SessionKey, Vote, VoteKind, VoterSet,
    },
};

/// How many rounds ahead of the current one a message may be. The protocol has the same bound.
pub const ROUNDS_AHEAD_MAX: u32 = 10;
/// How many messages of one peer wait for voters that are not known yet.
const WAITING_PER_PEER_MAX: usize = 64;
/// How many of these may carry a block.
const WAITING_BLOCKS_PER_PEER_MAX: usize = 2;
/// From how many peers messages wait.
const WAITING_PEERS_MAX: usize = 512;
/// How many heights past the newest known voters a message may be to wait.
const HEIGHTS_AHEAD_MAX: u64 = 16;
/// How many different votes of one voter are remembered for one height.
const VOTES_PER_VOTER_MAX: usize = 64;
/// How many proposals are kept for a height that has not started.
const EARLY_PROPOSALS_MAX: usize = 4;

/// A place for votes: nobody may fill it twice with different ones.
type VotePlace = (Identity, Round, VoteKind);

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// Verified votes by height.
    seen: BTreeMap<Height, BTreeMap<VotePlace, Vec<Vote>>>,
    /// Verified proposals of heights that have not started.
    early: BTreeMap<Height, Vec<ProposedHeader>>,
    /// Messages of heights whose voters are not known, by peer.
    waiting: BTreeMap<Identity, VecDeque<PeerMessage>>,
    /// The newest verified vote of every session key.
    newest: BTreeMap<SessionKey, Vote>,
}

/// Where a height stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Final already, voters still known.
    Final,
    /// The one being decided.
    Current,
    /// Later, voters known.
    Early,
    /// Later, voters not known yet.
    Unknown,
}

/// What a verified vote is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Seen for the first time.
    New,
    /// Seen before.
    Known,
    /// Contradicts this earlier one.
    Contradicts(Vote),
}

impl Gate {
    /// Where a message of this height belongs.
    pub fn place(chain: &ChainView, height: Height) -> Result<Place, DropReason> {
        let known = chain.voters(height).is_some();
        if height <= chain.tip() {
            let kept = height.saturating_add(KEPT_HEIGHTS) > chain.tip();
            return if known && kept { Ok(Place::Final) } else { Err(DropReason::OldHeight) };
        }
        if known {
            return Ok(if height == chain.next() { Place::Current } else { Place::Early });
        }
        let last = chain.executed().saturating_add(3 + HEIGHTS_AHEAD_MAX);
        if height <= last { Ok(Place::Unknown) } else { Err(DropReason::TooFarAhead) }
    }

    /// Verifies a vote against the voters of its height.
    pub fn admit(&mut self, chain: &ChainView, voters: &VoterSet, vote: &Vote) -> Result<Admission, DropReason> {
        let unsigned = &vote.vote;
        let place = (unsigned.voter, unsigned.round, unsigned.kind);
        let seen = self.seen.entry(unsigned.height).or_default();
        if seen.get(&place).is_some_and(|votes| votes.contains(vote)) {
            return Ok(Admission::Known);
        }
        verify_vote(&chain.incarnation_at(unsigned.height), voters, vote).map_err(|error| drop_reason(&error))?;
        Self::note_newest(&mut self.newest, voters, vote);
        let of_voter = seen.keys().filter(|(voter, _, _)| *voter == unsigned.voter).count();
        let votes = match seen.entry(place) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if of_voter >= VOTES_PER_VOTER_MAX => {
                return Ok(Admission::New);
            }
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Vec::new()),
        };
        let contradicted = votes.iter().find(|known| known.vote.value != unsigned.value).copied();
        if votes.len() < 2 {
            votes.push(*vote);
        }
        Ok(contradicted.map_or(Admission::New, Admission::Contradicts))
    }

    /// Verifies a proposal: by whose turn it is, with its header.
    pub fn check_proposal(chain: &ChainView, voters: &VoterSet, proposed: &ProposedHeader) -> Result<(), DropReason> {
        let ProposedHeader { proposal, header, batches: _ } = proposed;
        let unsigned = &proposal.proposal;
        if proposer_at(voters, unsigned.height, unsigned.round).identity != unsigned.proposer {
            return Err(DropReason::NotTheProposer);
        }
        verify_proposal(&chain.incarnation_at(unsigned.height), voters, proposal)
            .map_err(|error| drop_reason(&error))?;
        // A block for which there was no quorum before is of the round in which it is proposed.
        let made_in = header.round;
        let in_turn = if unsigned.pol_round.is_some() { made_in < unsigned.round } else { made_in == unsigned.round };
        if header.hash() == unsigned.value && in_turn { Ok(()) } else { Err(DropReason::WrongBlock) }
    }

    /// Keeps a verified proposal of a height that has not started.
    pub fn keep_early(&mut self, proposed: ProposedHeader) {
        let early = self.early.entry(proposed.proposal.proposal.height).or_default();
        if early.len() < EARLY_PROPOSALS_MAX && !early.contains(&proposed) {
            early.push(proposed);
        }
    }

    /// Something verified is there for a height that has not started.
    pub fn has_early(&self, height: Height) -> bool {
        self.early.contains_key(&height) || self.seen.get(&height).is_some_and(|seen| !seen.is_empty())
    }

    /// Takes the proposals of a height that starts.
    pub fn take_early(&mut self, height: Height) -> Vec<ProposedHeader> {
        self.early.remove(&height).unwrap_or_default()
    }

    /// The verified votes of a height.
    pub fn votes(&self, height: Height) -> Vec<Vote> {
        self.seen.get(&height).into_iter().flat_map(BTreeMap::values).flatten().copied().collect()
    }

    /// Who voted at a height, as far as verified votes came; each as often as votes of it came.
    pub fn voted(&self, height: Height) -> impl Iterator<Item = &Identity> {
        self.seen.get(&height).into_iter().flat_map(BTreeMap::keys).map(|(voter, ..)| voter)
    }

    /// Keeps a message until the voters of its height are known.
    pub fn keep_waiting(&mut self, from: Identity, message: PeerMessage) -> Result<(), DropReason> {
        if self.waiting.len() >= WAITING_PEERS_MAX && !self.waiting.contains_key(&from) {
            return Err(DropReason::TooManyWaiting);
        }
        let waiting = self.waiting.entry(from).or_default();
        let carries_block = |message: &PeerMessage| matches!(message, PeerMessage::ProposedHeader(_));
        let blocks = waiting.iter().filter(|message| carries_block(message)).count();
        if waiting.len() >= WAITING_PER_PEER_MAX || (carries_block(&message) && blocks >= WAITING_BLOCKS_PER_PEER_MAX) {
            return Err(DropReason::TooManyWaiting);
        }
        waiting.push_back(message);
        Ok(())
    }

    /// Takes all messages that wait; those that still must come back.
    pub fn take_waiting(&mut self) -> Vec<(Identity, PeerMessage)> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .flat_map(|(from, messages)| messages.into_iter().map(move |message| (from, message)))
            .collect()
    }

    /// The newest vote of a session key that this node has verified.
    pub fn newest(&self, key: &SessionKey) -> Option<Vote> {
        self.newest.get(key).copied()
    }

    fn note_newest(newest: &mut BTreeMap<SessionKey, Vote>, voters: &VoterSet, vote: &Vote) {
        let Some(entry) = voters.get(&vote.vote.voter) else { return };
        let newest = newest.entry(entry.session_key).or_insert(*vote);
        if order(newest) < order(vote) {
            *newest = *vote;
        }
    }

    /// A block is final: its precommits count as seen, heights long past are forgotten, and so are former keys.
    pub fn on_commit(&mut self, chain: &ChainView, certificate: &CommitCertificate) {
        if let Some(voters) = chain.voters(certificate.height()) {
            for vote in certificate.votes() {
                Self::note_newest(&mut self.newest, voters, &vote);
            }
        }
        let first = chain.next().saturating_sub(KEPT_HEIGHTS);
        self.seen = self.seen.split_off(&first);
        self.early = self.early.split_off(&chain.next());
        self.newest.retain(|key, _| chain.names(key));
    }

    /// A peer is gone: what waits of it is forgotten.
    pub fn forget_peer(&mut self, peer: &Identity) {
        self.waiting.remove(peer);
    }
}

fn order(vote: &Vote) -> (Height, Round, VoteKind) {
    (vote.vote.height, vote.vote.round, vote.vote.kind)
}

pub fn drop_reason(error: &InvalidSignature) -> DropReason {
    match error {
        InvalidSignature::NotAVoter { .. } => DropReason::NotAVoter,
        InvalidSignature::WrongEpoch { .. } => DropReason::WrongEpoch,
        InvalidSignature::Vote { .. } | InvalidSignature::Transaction { .. } | InvalidSignature::Batch { .. } => {
            DropReason::BadSignature
        }
    }
}
