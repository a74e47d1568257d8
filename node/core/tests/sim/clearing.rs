//! Who may use which key: grants, the tripwire's questions and answers, and taking over, as the shell does it.

use node_core::{
    consensus::Input,
    session::{
        ClearedKey, Known, Never, NewestVote, NotCleared, Owner, OwnerStatement, Question, SigningLog, StartGrant,
        Surroundings, TripwireQuestion, TripwireResult, VolumeKind, VolumeLock, decide,
    },
    types::{CeremonyNonce, CommitCertificate, Height, Identity, Incarnation, SessionKey, Vote},
};

use super::{
    checks::Violation,
    people,
    process::Process,
    world::{Event, World},
};

/// How often the shell looks whether it may clear a key.
const CLEAR_MS: u64 = 300;
/// After this long without a block a key that signs nothing up to some height is looked at again, or longer where a block
/// may take longer.
const STANDING_MS_MIN: u64 = 5_000;

/// What a node answers.
pub struct Shown {
    pub nonce: CeremonyNonce,
    pub vote: Option<Vote>,
    pub certificate: Option<CommitCertificate>,
}

impl World {
    /// What a process knows when it asks about a key. The operator reads live what became of the key's owner.
    fn surroundings(&self, process: usize, former: &Owner) -> Surroundings {
        let process = &self.processes[process];
        let ended = !self.alive.iter().any(|other| self.processes[*other].owner == *former);
        let owner = if process.proved && ended { OwnerStatement::Terminated(*former) } else { OwnerStatement::Unknown };
        let grant = process.grant.map(|grant| StartGrant { owner, ..grant });
        Surroundings { owner: process.owner, lock: VolumeLock::Held, log: SigningLog::Whole, grant }
    }

    /// The chain stands still for so long, as far as a process sees, that it may wait for one who abstains.
    fn stands_still(&mut self, process: usize) -> bool {
        let engine = &self.processes[process].engine;
        let tip = engine.status().tip;
        let standing_ms = STANDING_MS_MIN.max(Question::settle_ms(engine.parameters()));
        let (seen, since) = self.processes[process].moved;
        if seen != tip {
            self.processes[process].moved = (tip, self.now);
        }
        seen == tip && self.now.saturating_sub(since) > standing_ms
    }

    /// The key that the chain names, if this process has it and may not use it, or abstains with it for too long.
    fn wanted_key(&mut self, process: usize) -> Option<SessionKey> {
        let status = self.processes[process].engine.status();
        let still = self.stands_still(process) && !self.plan.abstains_for_good;
        let abstains = |key: &ClearedKey| key.nothing_up_to() > status.tip;
        let Self { processes, volumes, .. } = self;
        let wanted = status.session_key.filter(|key| volumes[processes[process].volume].keys.get(key).is_some())?;
        match processes[process].cleared.get(&wanted) {
            Some(cleared) => (still && abstains(cleared)).then_some(wanted),
            None => Some(wanted),
        }
    }

    /// Takes over the key that the chain names, as soon as that is proved to be safe.
    pub fn try_clear(&mut self, process: usize) -> Result<(), Violation> {
        if !self.processes[process].alive {
            return Ok(());
        }
        self.after(CLEAR_MS, Event::Clear { process });
        let Some(key) = self.wanted_key(process) else {
            self.processes[process].question = None;
            return Ok(());
        };
        let asked = self.processes[process].question.as_ref().map(Question::session_key);
        if asked != Some(key) {
            self.processes[process].question = self.ask(process, key);
        }
        let Some(result) = self.tripwire_result(process) else { return Ok(()) };
        let cleared = match self.processes[process].cleared.get(&key) {
            Some(cleared) => cleared.asked_again(&result),
            None => self.take_over(process, &key, &result),
        };
        match cleared {
            Ok(cleared) => {
                self.counts.add("take-overs with a tripwire", 1);
                self.processes[process].question = None;
                self.feed(process, Input::Cleared(cleared))
            }
            Err(reason) => {
                let rolled_back = u64::from(reason == NotCleared::Never(Never::RolledBack));
                self.counts.add("tripwires touched", rolled_back);
                let Some(request) = self.processes[process].question.as_ref().map(Question::request) else {
                    return Ok(());
                };
                let request = request.into();
                let others: Vec<usize> = self.alive.iter().copied().filter(|other| *other != process).collect();
                for other in others {
                    self.send(process, other, &request);
                }
                Ok(())
            }
        }
    }

    fn take_over(
        &mut self,
        process: usize,
        key: &SessionKey,
        result: &TripwireResult,
    ) -> Result<ClearedKey, NotCleared> {
        let volume = self.processes[process].volume;
        let entry = self.volumes[volume].keys.get(key).expect("it was just there").clone();
        let here = self.surroundings(process, entry.owner());
        self.count_grant(process);
        let decision = decide(&entry, &here, result)?;
        Ok(self.volumes[volume].keys.take_over(&decision).expect("nothing has changed"))
    }

    fn count_grant(&mut self, process: usize) {
        let Process { grant, owner, .. } = &self.processes[process];
        match grant {
            None => self.counts.add("decisions without a grant", 1),
            Some(grant) if grant.pod != owner.pod => self.counts.add("decisions with a stale grant", 1),
            Some(_) => {}
        }
    }

    /// What the answers to the question say by now.
    fn tripwire_result(&mut self, process: usize) -> Option<TripwireResult> {
        let now_ms = self.now;
        let ignored = self.plan.tripwire_ignored;
        let Process { question, engine, .. } = &mut self.processes[process];
        let question = question.as_mut()?;
        let status = engine.status();
        let result = question.result(&Known {
            record: engine.signing_record(),
            tip: status.tip,
            synced: status.synced,
            parameters: engine.parameters(),
            voters: &|height| engine.voters(height),
            now_ms,
        });
        Some(if ignored { TripwireResult::Passed { nothing_up_to: Height::ZERO } } else { result })
    }

    /// What a process signs for now.
    fn incarnation_of(&self, process: usize) -> Incarnation {
        let newest = self.volumes[self.processes[process].volume].recoveries.last();
        newest.map_or_else(|| self.genesis.incarnation(), |manifest| manifest.incarnation())
    }

    fn ask(&mut self, process: usize, session_key: SessionKey) -> Option<Question> {
        let nonce = CeremonyNonce::new(self.dice.bytes());
        let identity = people::identity(self.processes[process].node);
        let engine = &self.processes[process].engine;
        let voters = engine.voters(engine.status().tip.next())?.clone();
        let incarnation = self.incarnation_of(process);
        Some(Question::new(TripwireQuestion { nonce, incarnation, identity, session_key, voters }))
    }

    /// An answer to a question of the tripwire.
    pub fn on_shown(&mut self, process: usize, from: Identity, shown: Shown) {
        let Shown { nonce, vote, certificate } = shown;
        if let Some(question) = &mut self.processes[process].question {
            question.on_answer(from, NewestVote { nonce, vote, certificate });
        }
    }

    /// What the operator says to a process on another machine: at once, late, or first what it had said to the pod before.
    pub fn promise_grant(&mut self, process: usize, right: StartGrant, former: &Owner) {
        match self.dice.below(3) {
            0 => self.processes[process].grant = Some(right),
            kind => {
                let late = self.dice.between(500, 4_000);
                self.counts.add("grants that come late", 1);
                if kind == 2 {
                    // Were it for this pod, nothing else would be asked.
                    self.counts.add("stale grants", 1);
                    let stale = StartGrant { pod: former.pod, volume: VolumeKind::NodeLocal, ..right };
                    self.processes[process].grant = Some(stale);
                }
                self.after(late, Event::Granted { process, grant: right });
            }
        }
    }

    /// The operator's word comes.
    pub fn granted(&mut self, process: usize, grant: StartGrant) {
        self.processes[process].grant = Some(grant);
    }
}
