//! What the engine asks the shell to do: performed one after the other, in exactly the order in which they come.

use std::sync::Arc;

use super::timers::TimerId;
use crate::{
    mempool::Refusal,
    types::{
        Batch, Block, CommitCertificate, Epoch, Hash, Height, Identity, PeerMessage, Proposal, SessionKey,
        TransactionId, Vote,
    },
};

/// One thing for the shell to do. The order is part of the meaning: a message never comes before the effect that makes
/// durable what the message promises. A write that fails ends the process; it is never skipped.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Append one entry to the signing log. It need not be durable before the next [`Effect::FlushLog`].
    AppendLog(Vec<u8>),
    /// Make every entry appended so far durable.
    FlushLog,
    /// Replace the whole signing log, durably and in one step, by one that has only this first entry.
    ResetLog {
        /// The height whose messages the new log will hold.
        height: Height,
        /// The first entry. It carries what was signed last, so that replacing the log forgets nothing.
        first: Vec<u8>,
    },
    /// Send to every connected peer, voting or not.
    Broadcast(Arc<PeerMessage>),
    /// Send to one peer, if it is connected.
    Send {
        /// The peer.
        to: Identity,
        /// The message.
        message: Arc<PeerMessage>,
    },
    /// Answer a peer that is behind: read `count` certified blocks from `first` on (fewer if the log ends or the message
    /// would exceed its bounds) and send them as [`PeerMessage::Blocks`].
    SendBlocks {
        /// The peer that asked.
        to: Identity,
        /// The first height.
        first: Height,
        /// How many at most; already bounded by the engine.
        count: u32,
    },
    /// Feed [`super::Input::Timer`] with this id after so many milliseconds. A timer of the same id is replaced.
    SetTimer {
        /// Which timer.
        id: TimerId,
        /// From now, in milliseconds.
        after_ms: u64,
    },
    /// Forget a timer, if it is set.
    CancelTimer(TimerId),
    /// Make a batch durable; answered by [`super::Input::BatchesStored`]. Others may be made durable together with it.
    StoreBatch(Arc<Batch>),
    /// These batches are not needed on the disk any more. It need not be durable.
    DropBatches(Vec<Hash>),
    /// These transactions of clients of this node are durable at a quorum: with at most `f` faults each gets a receipt.
    Durable(Vec<TransactionId>),
    /// Append a final block to the block log, durably. The heights come without gaps.
    Commit {
        /// The block.
        block: Arc<Block>,
        /// The proof that it is final.
        certificate: CommitCertificate,
    },
    /// Execute the committed block of this height on the state store, in order of height, beside the engine; answered by
    /// [`super::Input::Executed`].
    Execute {
        /// The height.
        height: Height,
    },
    /// A vote whose signature is right, of whatever height: also one that consensus no longer needs.
    VoteSeen(Vote),
    /// Draw a new session key for this epoch, write it to the volume's list with this process as its owner, durably;
    /// answered by [`super::Input::Made`].
    MakeKey {
        /// The epoch that the chain will give it.
        epoch: Epoch,
    },
    /// Mark a session key as effective in the volume's list: the voters of a height that is final name it.
    KeyEffective(SessionKey),
    /// Erase a session key from the volume: the first height of its successor is final, or it can never count any more.
    RetireKey(SessionKey),
    /// A voter signed two different messages where it may sign one.
    Evidence(Box<Equivocation>),
    /// Something from a peer was not used.
    Dropped {
        /// The peer.
        from: Identity,
        /// Why.
        reason: DropReason,
    },
    /// Transactions that were taken into the mempool, for whoever submitted them.
    Accepted(Vec<TransactionId>),
    /// A transaction that was not taken into the mempool, for whoever submitted it.
    Refused {
        /// The transaction.
        id: TransactionId,
        /// Why.
        reason: Refusal,
    },
    /// Transactions that waited until no block could include them any more.
    Expired(Vec<TransactionId>),
    /// Something that an operator must know; the node goes on.
    Alarm(Alarm),
    /// A rule that cannot be broken was broken: stop the process.
    Halt(HaltReason),
}

/// Two messages that contradict each other, with both signatures.
#[derive(Clone, Debug)]
pub enum Equivocation {
    /// Two votes of one kind in one round.
    Votes(Vote, Vote),
    /// Two proposals in one round.
    Proposals(Proposal, Proposal),
}

/// Why a message was not used.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum DropReason {
    /// Its height is too long ago.
    #[error("height is too old")]
    OldHeight,
    /// Its height or round is too far ahead.
    #[error("height or round is too far ahead")]
    TooFarAhead,
    /// Its sender does not vote at that height.
    #[error("signer is not a voter of that height")]
    NotAVoter,
    /// Signed with a session key of another epoch.
    #[error("signed with a session key of another epoch")]
    WrongEpoch,
    /// The signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
    /// A proposal of somebody whose turn it is not.
    #[error("signer is not the proposer of that round")]
    NotTheProposer,
    /// The block that came along is not the one that the proposal names.
    #[error("block is not the one that is proposed")]
    WrongBlock,
    /// The block breaks a rule of the chain.
    #[error("block breaks a rule")]
    InvalidBlock,
    /// A certificate that proves nothing.
    #[error("certificate does not verify")]
    BadCertificate,
    /// The peer has used up the space for messages that cannot be verified yet.
    #[error("too many messages wait for their voter set")]
    TooManyWaiting,
    /// No block could name it.
    #[error("is larger than a block")]
    TooLarge,
    /// Made for another chain, or another life of this one.
    #[error("is for another chain")]
    OtherChain,
    /// An answer to a question that was not asked.
    #[error("was not asked for")]
    Unrequested,
}

/// What an operator must know.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Alarm {
    /// A message of this node's session key is about, which this process did not sign. It has stopped signing.
    #[error("session key {key} signed at height {height} elsewhere: signing stopped")]
    SignedElsewhere {
        /// The key.
        key: SessionKey,
        /// The height of the foreign message.
        height: Height,
    },
    /// The record refused a message; the node does not sign at this height any more.
    #[error("the record refused a signature at height {height}")]
    RecordRefused {
        /// The height.
        height: Height,
    },
    /// Consensus could not go on with what it had; the node does not sign at this height any more.
    #[error("consensus stopped at height {height}: {reason}")]
    CoreFailed {
        /// The height.
        height: Height,
        /// What it said.
        reason: String,
    },
    /// A rotation that this node did not make took its place.
    #[error("the session of this identity was taken over in epoch {epoch}")]
    IdentityContested {
        /// The epoch of the other's key.
        epoch: Epoch,
    },
    /// The signing log is ahead of the blocks: nothing is signed up to its height.
    #[error("the signing log is at height {log}, the blocks end at {tip}: signing nothing up to there")]
    LogAhead {
        /// The height of the log.
        log: Height,
        /// The last block.
        tip: Height,
    },
    /// The signing log cannot be read to its end, or does not fit its record.
    #[error("the signing log is broken: {reason}")]
    LogBroken {
        /// What is wrong.
        reason: String,
    },
}

/// Why the process must stop.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HaltReason {
    /// A certified header names other results than this node computed.
    #[error("the results of height {height} differ from those that the chain certified")]
    ResultsDiffer {
        /// The height that was executed.
        height: Height,
    },
    /// A certified header names other voters than this node computed.
    #[error("the voters of height {height} differ from those that the chain certified")]
    VotersDiffer {
        /// The height.
        height: Height,
    },
    /// A certified header names other parameters than this node computed.
    #[error("the parameters of height {height} differ from those that the chain certified")]
    ParametersDiffer {
        /// The height.
        height: Height,
    },
    /// A quorum certified a block that does not follow this node's last block.
    #[error("the certified block of height {height} has another parent")]
    Forked {
        /// The height.
        height: Height,
    },
    /// A quorum certified a block that cannot be taken apart or executed.
    #[error("the certified block of height {height} cannot be executed")]
    NotExecutable {
        /// The height.
        height: Height,
    },
}
