//! One height of the protocol: the crate's state machine, and the answers to what it asks for.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use arc_malachitebft_core_consensus as consensus;
use arc_malachitebft_core_types as malachite;
use consensus::{Input as CoreInput, Params, State, ThresholdParams, ValuePayload, process};
use malachite::{CommitCertificate as CoreCertificate, ThresholdParam, VoteExtensionPolicy};

use super::{
    answers::Answers,
    context::{self, Chain},
    timers::{TimeoutKind, TimerId},
};
use crate::types::{Height, Identity, Power, Round, VoteKind, VoterSet};

/// How many inputs of later heights the protocol may keep. None ever reach it: the gate keeps them, verified.
const QUEUE_CAPACITY: usize = 16;

/// The protocol at one height.
pub struct Core {
    state: State<Chain>,
    height: Height,
    voters: Arc<VoterSet>,
    /// Timers that are set for this height.
    pub timers: BTreeSet<TimerId>,
    /// The round for which it waits for a block to propose.
    pub wanted: Option<Round>,
}

/// How the protocol runs a height.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CoreMode {
    /// It signs.
    pub enabled: bool,
    /// The share of power that decides; two thirds but for a test.
    pub quorum: ThresholdParam,
}

/// What came out of one input, beside effects.
#[derive(Debug, Default)]
pub struct CoreOutcome {
    /// The height is decided.
    pub decided: Option<CoreCertificate<Chain>>,
    /// Why the protocol cannot go on as it is.
    pub failed: Option<CoreFailure>,
}

/// Why the protocol must be rebuilt with signing off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CoreFailure {
    /// The signer refused.
    Refused(crate::session::SignRefusal),
    /// The protocol found itself in contradiction.
    Protocol(String),
}

impl Core {
    /// The protocol at the start of a height, before its first input.
    pub fn new(identity: Identity, height: Height, voters: &Arc<VoterSet>, mode: CoreMode) -> Self {
        let threshold_params = ThresholdParams { quorum: mode.quorum, ..ThresholdParams::default() };
        let params = Params {
            address: identity,
            threshold_params,
            value_payload: ValuePayload::ProposalAndParts,
            enabled: mode.enabled,
        };
        let set = VoterSet::clone(voters);
        Self {
            state: State::new(Chain, height, set, params, QUEUE_CAPACITY, QUEUE_CAPACITY),
            height,
            voters: voters.clone(),
            timers: BTreeSet::new(),
            wanted: None,
        }
    }

    /// The height.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The voters of the height.
    pub fn voters(&self) -> &Arc<VoterSet> {
        &self.voters
    }

    /// The round it is in.
    pub fn round(&self) -> Round {
        context::round_of(self.state.round())
    }

    /// The timer that still runs in a round which cannot decide any more: more than two thirds of the power have
    /// precommitted nothing, so nobody gains by waiting for the others.
    pub fn futile_timer(&self) -> Option<TimerId> {
        let id = TimerId::Consensus { height: self.height, round: self.round(), kind: TimeoutKind::Precommit };
        if !self.timers.contains(&id) {
            return None;
        }
        let received = self.state.driver.votes().per_round(self.state.round())?.received_votes();
        let nothing = received.iter().map(|signed| signed.message.unsigned());
        let nothing = nothing.filter(|vote| vote.kind == VoteKind::Precommit && vote.value.is_none());
        let power = nothing.filter_map(|vote| self.voters.get(&vote.voter)).map(|entry| entry.power.get()).sum();
        (Power::new(power) >= self.voters.quorum()).then_some(id)
    }

    /// Whether it signs.
    pub fn enabled(&self) -> bool {
        self.state.params.enabled
    }

    /// Enters round 0. `restart` when a log is replayed afterwards.
    pub fn start(&mut self, restart: bool, answers: &mut Answers<'_>) {
        let set = VoterSet::clone(&self.voters);
        let input = CoreInput::StartHeight(self.height, set, restart, None, VoteExtensionPolicy::Disabled);
        self.drive(input, answers);
    }

    /// Feeds what the log holds. What was signed is not signed again, what was not is.
    pub fn replay(&mut self, inputs: Vec<CoreInput<Chain>>, answers: &mut Answers<'_>) {
        self.state.index_wal_entries(&inputs);
        for input in inputs {
            self.drive(input, answers);
            if answers.outcome.failed.is_some() {
                break;
            }
        }
        self.state.reset_entries_index();
    }

    /// Feeds one input and answers everything that the protocol asks for on the way.
    pub fn drive(&mut self, input: CoreInput<Chain>, answers: &mut Answers<'_>) {
        let Self { state, timers, wanted, .. } = self;
        let result: Result<(), consensus::Error<Chain>> = process!(
            input: input,
            state: state,
            metrics: &(),
            with: effect => Ok::<_, Infallible>(answers.answer(effect, timers, wanted))
        );
        if let Err(error) = result {
            answers.outcome.failed.get_or_insert(CoreFailure::Protocol(error.to_string()));
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("height", &self.height)
            .field("round", &self.round())
            .field("enabled", &self.enabled())
            .finish_non_exhaustive()
    }
}
