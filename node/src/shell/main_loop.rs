//! The main loop: one task that owns everything that changes, from the ceremony to the clean stop.

use std::{path::PathBuf, sync::Arc, time::Duration};

use node_api::proto;
use node_core::crypto::KeyPair;
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    batch_storage::Stored,
    ceremony::{Ceremony, Part},
    handle::{Handle, LifecycleRequest, Request},
    health::{Health, Turn},
    lifecycle::LifecycleError,
    perform::PerformError,
    recovering::{RecoveryBook, RecoveryCall},
    replies::{answer, unknown_transaction},
    report::{self, Facts},
    running::Running,
    sessions::{Sessions, SessionsError, grant_from_proto},
    startup::{self, Keeping, StartupError, Volume},
    submission::{Answer, Submission, SubmitError},
    waits::{ExecutedResult, next_executed, next_stored, sleep_until, timed},
};
use crate::{
    adapters::{
        p2p::{Event, Links, Roster},
        storage::StateWish,
    },
    metrics::Metrics,
};

/// How often gauges and the session key are looked after.
const TICK: Duration = Duration::from_millis(250);
/// Inputs of one kind that are taken before the others get their turn.
const BATCH_MAX: usize = 256;

/// Why the main loop ended before it was asked to.
#[derive(Debug, Error)]
pub enum MainLoopError {
    /// An effect could not be performed.
    #[error(transparent)]
    Perform(#[from] PerformError),
    /// The stores could not be opened.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// The session keys could not be kept.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The volume failed during a call of the operator.
    #[error("{0}")]
    Volume(String),
    /// The storage of batches ended.
    #[error("the storage of batches has ended")]
    StorageEnded,
    /// The execution of blocks ended.
    #[error("the execution of blocks has ended")]
    ExecutionEnded,
}

/// What the main loop is made of.
#[derive(Debug)]
pub struct Parts {
    /// What does not change.
    pub facts: Facts,
    /// The genesis, as far as there is one.
    pub ceremony: Ceremony,
    /// The recoveries.
    pub recovery: RecoveryBook,
    /// Session keys and the signing log.
    pub volume: Volume,
    /// Where the other stores are.
    pub data_directory: PathBuf,
    /// Signs rotations.
    pub identity_key: KeyPair,
    /// Peers.
    pub links: Links,
    /// The services' end.
    pub handle: Handle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// For the kubelet.
    pub health: Health,
    /// What connections report.
    pub events: mpsc::Receiver<Event>,
    /// What services ask.
    pub requests: mpsc::Receiver<Request>,
    /// What the chain says about peers.
    pub roster: watch::Sender<Option<Arc<Roster>>>,
    /// What is done with old blocks.
    pub keeping: Keeping,
}

/// Before the start the loop holds the keys itself; then the running chain does.
#[derive(Debug)]
pub(super) enum Phase {
    Ceremony(Box<Volume>),
    Running(Box<Running>),
    /// Only while one phase turns into the next.
    Turning,
}

pub(super) struct MainLoop {
    facts: Facts,
    pub(super) ceremony: Ceremony,
    pub(super) recovery: RecoveryBook,
    /// Why the process ends and starts again: with a complete recovery, to take a state, or with space again.
    ends: Option<&'static str>,
    pub(super) phase: Phase,
    pub(super) data_directory: PathBuf,
    identity_key: KeyPair,
    pub(super) links: Links,
    handle: Handle,
    metrics: Arc<Metrics>,
    pub(super) health: Health,
    roster: watch::Sender<Option<Arc<Roster>>>,
    pub(super) keeping: Keeping,
    /// No state was to be had: this process does with blocks.
    pub(super) gave_up: bool,
    pub(super) executed: Option<mpsc::Receiver<ExecutedResult>>,
    stored: Option<mpsc::UnboundedReceiver<Stored>>,
}

/// Runs until `stop` is cancelled, then releases the session keys as the last durable act.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<(), MainLoopError> {
    let Parts {
        facts,
        ceremony,
        recovery,
        volume,
        data_directory,
        identity_key,
        links,
        handle,
        metrics,
        health,
        roster,
        keeping,
        ..
    } = parts;
    let (mut events, mut requests) = (parts.events, parts.requests);
    let mut this = MainLoop {
        facts,
        ceremony,
        recovery,
        ends: None,
        phase: Phase::Ceremony(Box::new(volume)),
        data_directory,
        identity_key,
        links,
        handle,
        metrics,
        health,
        roster,
        keeping,
        gave_up: false,
        executed: None,
        stored: None,
    };
    if this.ceremony.accepted().is_some_and(|accepted| accepted.started) {
        this.fetch_state(&mut events, &mut requests, &stop).await?;
        this.start_chain()?;
    }
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let turns = this.metrics.turn_seconds.clone();
    let (mut heard, mut asked) = (Vec::with_capacity(BATCH_MAX), Vec::with_capacity(BATCH_MAX));
    loop {
        let deadline = this.next_deadline();
        tokio::select! {
            () = stop.cancelled() => break,
            executed = next_executed(&mut this.executed) => timed(&turns, "executed", || this.on_executed(executed))?,
            stored = next_stored(&mut this.stored) => timed(&turns, "stored", || this.on_stored(stored))?,
            () = sleep_until(deadline) => timed(&turns, "timers", || this.on_timers())?,
            _ = events.recv_many(&mut heard, BATCH_MAX) => timed(&turns, "peers", || this.on_events(&mut heard))?,
            _ = requests.recv_many(&mut asked, BATCH_MAX) => timed(&turns, "requests", || this.on_requests(&mut asked))?,
            _ = ticks.tick() => timed(&turns, "tick", || this.on_tick())?,
        }
        this.health.turned(this.turn());
        if let Some(reason) = this.ends {
            tracing::warn!("ending, to start again {reason}");
            break;
        }
    }
    this.end().await
}

impl MainLoop {
    fn start_chain(&mut self) -> Result<(), MainLoopError> {
        let Some(accepted) = self.ceremony.accepted().cloned() else { return Ok(()) };
        let volume = match std::mem::replace(&mut self.phase, Phase::Turning) {
            Phase::Ceremony(volume) => volume,
            other => {
                self.phase = other;
                return Ok(());
            }
        };
        let request = startup::Request {
            genesis: Arc::new(accepted.genesis),
            recoveries: self.recovery.recoveries(),
            identity: self.ceremony.identity,
            identity_key: self.identity_key.clone(),
            data_directory: &self.data_directory,
            volume: *volume,
            links: self.links.clone(),
            handle: self.handle.clone(),
            metrics: Arc::clone(&self.metrics),
            health: self.health.clone(),
            roster: self.roster.clone(),
            keeping: self.keeping.clone(),
        };
        // Opening reads disks; the other tasks of this thread go on elsewhere.
        let startup::Opened { mut running, executed, stored } = tokio::task::block_in_place(|| startup::open(request))?;
        let after_ms = self.facts.start.elapsed().as_millis();
        tracing::info!(genesis = %accepted.hash, height = running.view.height().get(), after_ms, "the chain starts here");
        let started = running.start(self.recovery.is_superseded());
        self.executed = Some(executed);
        self.stored = Some(stored);
        self.phase = Phase::Running(Box::new(running));
        self.settle(started)
    }

    /// A halt is a state to be shown, every other failure ends the process.
    fn settle(&mut self, result: Result<(), PerformError>) -> Result<(), MainLoopError> {
        match (result, &mut self.phase) {
            (Ok(()), _) => Ok(()),
            (Err(reason @ (PerformError::Halted(_) | PerformError::VolumeFull(_))), Phase::Running(running)) => {
                running.halt(&reason);
                Ok(())
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    fn with_running(
        &mut self,
        work: impl FnOnce(&mut Running) -> Result<(), PerformError>,
    ) -> Result<(), MainLoopError> {
        let result = match &mut self.phase {
            Phase::Running(running) if running.halted.is_none() => work(running),
            _ => Ok(()),
        };
        self.settle(result)
    }

    fn next_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running(running) => running.performer.timers.next_deadline(),
            Phase::Ceremony(_) | Phase::Turning => None,
        }
    }

    fn on_timers(&mut self) -> Result<(), MainLoopError> {
        self.with_running(|running| {
            let now = Instant::now();
            while let Some(timer) = running.performer.timers.take_due(now) {
                running.on_timer(timer)?;
            }
            Ok(())
        })
    }

    fn on_executed(&mut self, executed: Option<ExecutedResult>) -> Result<(), MainLoopError> {
        match executed {
            Some(Ok(executed)) => self.with_running(|running| running.on_executed(executed)),
            Some(Err(error)) => Err(PerformError::from(error).into()),
            None => Err(MainLoopError::ExecutionEnded),
        }
    }

    fn on_stored(&mut self, stored: Option<Stored>) -> Result<(), MainLoopError> {
        match stored {
            Some(stored) => self.with_running(|running| running.on_stored(stored)),
            None => Err(MainLoopError::StorageEnded),
        }
    }

    /// Before the start peers have nothing to say that this node could judge.
    fn on_events(&mut self, events: &mut Vec<Event>) -> Result<(), MainLoopError> {
        for event in events.drain(..) {
            self.with_running(|running| running.on_event(event))?;
        }
        Ok(())
    }

    fn on_tick(&mut self) -> Result<(), MainLoopError> {
        if let Phase::Running(running) = &mut self.phase
            && running.has_space_again()
        {
            self.ends = Some("with space on the volume");
        }
        self.with_running(Running::on_tick)?;
        if let (Phase::Running(running), None) = (&self.phase, self.ends)
            && !self.gave_up
            && let Some(reason) = running.wanted_state()
        {
            tracing::warn!(%reason, "taking a state from the peers");
            StateWish::of(&self.data_directory).make().map_err(StartupError::Storage)?;
            self.ends = Some("with a state of the peers");
        }
        Ok(())
    }

    pub(super) fn on_requests(&mut self, requests: &mut Vec<Request>) -> Result<(), MainLoopError> {
        let mut submissions = Vec::new();
        for request in requests.drain(..) {
            // In each arm: the caller may have gone.
            match request {
                Request::Submit(more) => submissions.extend(more),
                Request::Status(reply) => {
                    let _ = reply.send(self.status()?);
                }
                Request::Validators(reply) => {
                    let _ = reply.send(match &self.phase {
                        Phase::Running(running) => Some(running.validators()),
                        Phase::Ceremony(_) | Phase::Turning => None,
                    });
                }
                Request::Transaction(id, reply) => {
                    let answer = match &self.phase {
                        Phase::Running(running) => running.transaction(&id),
                        Phase::Ceremony(_) | Phase::Turning => unknown_transaction(),
                    };
                    let _ = reply.send(answer);
                }
                Request::Lifecycle(request) => self.on_lifecycle(request)?,
            }
        }
        self.on_submissions(submissions)
    }

    fn on_submissions(&mut self, submissions: Vec<Submission>) -> Result<(), MainLoopError> {
        if submissions.is_empty() {
            return Ok(());
        }
        match &mut self.phase {
            Phase::Running(running) => {
                let result = running.on_submissions(submissions);
                self.settle(result)
            }
            Phase::Ceremony(_) | Phase::Turning => {
                for submission in submissions {
                    submission.ticket.answer(Answer::Refused(SubmitError::NotRunning));
                }
                Ok(())
            }
        }
    }

    fn on_lifecycle(&mut self, request: LifecycleRequest) -> Result<(), MainLoopError> {
        match request {
            LifecycleRequest::GetStartRequest(reply) => {
                let _ = reply.send(self.start_request()?);
                Ok(())
            }
            LifecycleRequest::GrantStart(grant, reply) => {
                let result = self.grant(&grant);
                answer(reply, result)
            }
            LifecycleRequest::GetGenesisReport(nonce, reply) => {
                let result = self.with_ceremony(|ceremony, sessions| ceremony.report(sessions, nonce));
                answer(reply, result)
            }
            LifecycleRequest::AcceptGenesis(request, reply) => {
                let result = self.with_ceremony(|ceremony, sessions| ceremony.accept(sessions, &request));
                answer(reply, result)
            }
            LifecycleRequest::DropGenesis(hash, reply) => {
                let result = self.ceremony.drop_accepted(&hash);
                answer(reply, result)
            }
            LifecycleRequest::GetRecoveryReport(reply) => {
                let result = self.with_recovery(|call, running| call.report(running));
                answer(reply, result)
            }
            LifecycleRequest::AcceptRecovery(recovery, reply) => {
                let result = self.with_recovery(|call, running| call.accept(running, *recovery));
                let accepted = result.is_ok();
                answer(reply, result)?;
                if accepted { self.with_running(Running::supersede) } else { Ok(()) }
            }
            LifecycleRequest::CompleteRecovery(recovery, reply) => {
                let result = self.with_recovery(|call, _| call.complete(*recovery));
                self.ends = result.is_ok().then_some("with the recovery");
                answer(reply, result)
            }
            LifecycleRequest::GetVoterReport(epoch, reply) => {
                let result = match &mut self.phase {
                    Phase::Running(running) => running.voter_report(self.ceremony.part, epoch),
                    Phase::Ceremony(_) | Phase::Turning => {
                        Err(LifecycleError::not_now("the chain has not started here"))
                    }
                };
                answer(reply, result)
            }
            LifecycleRequest::StartChain(hash, reply) => {
                let result = self.ceremony.start(&hash);
                let started = result.is_ok();
                answer(reply, result.map(|_| ()))?;
                if started { self.start_chain() } else { Ok(()) }
            }
        }
    }

    fn grant(&mut self, grant: &proto::StartGrant) -> Result<proto::GrantStartResponse, LifecycleError> {
        let grant = grant_from_proto(grant).map_err(LifecycleError::invalid)?;
        let own = self.sessions_for_call()?.owner().pod;
        if grant.pod != own {
            let problem = format!("the grant is for pod {}, this is {}", grant.pod.hyphenated(), own.hyphenated());
            return Err(LifecycleError::not_now(problem));
        }
        self.sessions_for_call()?.grant(grant)?;
        self.on_tick().map_err(|error| LifecycleError::Volume { problem: error.to_string() })?;
        let request = self.start_request().map_err(|error| LifecycleError::Volume { problem: error.to_string() })?;
        let reason = match &self.phase {
            Phase::Running(running) => running.not_cleared.map(|reason| reason.to_string()),
            Phase::Ceremony(_) | Phase::Turning => None,
        };
        let reason = reason.or_else(|| request.asking.then(|| "the end of the former owner is not proved".to_owned()));
        Ok(proto::GrantStartResponse { cleared: reason.is_none(), reason: reason.unwrap_or_default() })
    }

    fn with_recovery<T>(
        &mut self,
        work: impl FnOnce(&mut RecoveryCall<'_>, &mut Running) -> Result<T, LifecycleError>,
    ) -> Result<T, LifecycleError> {
        let (Phase::Running(running), Ok(chain)) = (&mut self.phase, self.handle.chain()) else {
            return Err(LifecycleError::not_now("the chain has not started here"));
        };
        let genesis = Arc::clone(&running.genesis);
        let (book, identity_key) = (&mut self.recovery, &self.identity_key);
        let mut call = RecoveryCall { book, state: &chain.state, genesis: &genesis, identity_key };
        // Reads the state; the other tasks of this thread go on elsewhere.
        tokio::task::block_in_place(|| work(&mut call, running))
    }

    fn with_ceremony<T>(
        &mut self,
        work: impl FnOnce(&mut Ceremony, &mut Sessions) -> Result<T, LifecycleError>,
    ) -> Result<T, LifecycleError> {
        let sessions = match &mut self.phase {
            Phase::Ceremony(volume) => &mut volume.sessions,
            Phase::Running(running) => &mut running.performer.sessions,
            Phase::Turning => return Err(LifecycleError::not_now("the chain is starting")),
        };
        work(&mut self.ceremony, sessions)
    }

    fn sessions_for_call(&mut self) -> Result<&mut Sessions, LifecycleError> {
        self.sessions().map_err(|error| LifecycleError::Volume { problem: error.to_string() })
    }

    pub(super) fn sessions(&mut self) -> Result<&mut Sessions, MainLoopError> {
        match &mut self.phase {
            Phase::Ceremony(volume) => Ok(&mut volume.sessions),
            Phase::Running(running) => Ok(&mut running.performer.sessions),
            Phase::Turning => Err(MainLoopError::Volume("the chain did not start".to_owned())),
        }
    }

    fn start_request(&mut self) -> Result<proto::StartRequest, MainLoopError> {
        if let Phase::Running(running) = &self.phase {
            return Ok(running.start_request());
        }
        let observer = self.ceremony.part == Part::Observer;
        let sessions = self.sessions()?;
        let newest = sessions.newest().map(|key| key.session_key());
        let mut request = sessions.start_request(newest.as_ref());
        request.asking &= !observer;
        Ok(request)
    }

    fn status(&mut self) -> Result<proto::GetStatusResponse, MainLoopError> {
        let sessions = match &self.phase {
            Phase::Ceremony(volume) => &volume.sessions,
            Phase::Running(running) => &running.performer.sessions,
            Phase::Turning => return Err(MainLoopError::Volume("the chain did not start".to_owned())),
        };
        let mut status = report::status(&self.facts, &self.ceremony, sessions, &self.links);
        if let Phase::Running(running) = &self.phase {
            running.add_status(&mut status);
        }
        Ok(status)
    }

    fn turn(&self) -> Turn {
        match &self.phase {
            Phase::Running(running) => running.turn(),
            Phase::Ceremony(_) | Phase::Turning => Turn { synced: false, able_to_sign: false },
        }
    }
}
