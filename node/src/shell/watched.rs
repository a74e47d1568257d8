//! Shows proposals and votes to the watchers of `Votes.StreamVotes`.

use std::time::{SystemTime, UNIX_EPOCH};

use node_api::proto::{SeenVote, VoteKind as Kind};
use node_core::{
    codec::Encode,
    types::{Identity, PeerMessage, Proposal, UnsignedProposal, UnsignedVote, Vote, VoteKind, VoterEntry},
};

use super::handle::Handle;

/// Who sent it and what was found out about it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The peer, or this node.
    pub from: Identity,
    /// Whether the signature is right for the key that counts at its height.
    pub verified: bool,
    /// The entry of its signer in the set of its height, if that is known.
    pub entry: Option<VoterEntry>,
}

/// Shows a message of a peer, if it is a proposal or a vote and somebody watches.
pub fn show(handle: &Handle, message: &PeerMessage, arrival: Arrival) {
    if !handle.votes_are_watched() {
        return;
    }
    match message {
        PeerMessage::Vote(vote) => handle.show_vote(seen_vote(vote, arrival)),
        PeerMessage::Proposal(proposed) => handle.show_vote(seen_proposal(&proposed.proposal, arrival)),
        PeerMessage::ProposedHeader(proposed) => handle.show_vote(seen_proposal(&proposed.proposal, arrival)),
        _ => {}
    }
}

fn seen_vote(vote: &Vote, arrival: Arrival) -> SeenVote {
    let UnsignedVote { kind, height, round, value, voter } = vote.vote;
    let kind = match kind {
        VoteKind::Prevote => Kind::Prevote,
        VoteKind::Precommit => Kind::Precommit,
    };
    SeenVote {
        vote: vote.encode().into(),
        kind: kind.into(),
        voter: voter.as_bytes().to_vec(),
        epoch: vote.epoch.get(),
        height: height.get(),
        round: round.get(),
        block_hash: value.map(|value| value.as_bytes().to_vec()).unwrap_or_default(),
        ..common(arrival)
    }
}

fn seen_proposal(proposal: &Proposal, arrival: Arrival) -> SeenVote {
    let UnsignedProposal { height, round, pol_round: _, value, proposer } = proposal.proposal;
    SeenVote {
        vote: proposal.encode().into(),
        kind: Kind::Proposal.into(),
        voter: proposer.as_bytes().to_vec(),
        epoch: proposal.epoch.get(),
        height: height.get(),
        round: round.get(),
        block_hash: value.as_bytes().to_vec(),
        ..common(arrival)
    }
}

fn common(arrival: Arrival) -> SeenVote {
    let Arrival { from, verified, entry } = arrival;
    SeenVote {
        verified,
        received_from: from.as_bytes().to_vec(),
        received_ms: now_ms(),
        session_key: entry.map(|entry| entry.session_key.as_bytes().to_vec()).unwrap_or_default(),
        ..SeenVote::default()
    }
}

/// The wall clock: Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
