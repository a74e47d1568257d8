//! Who may use which key: grants, the tripwire's questions and answers, and taking over.

use node_core::{
    consensus::Input,
    crypto::verify_certificate,
    session::{
        ClearedKey, NotCleared, Owner, OwnerEnded, OwnerStatement, SigningLog, StartGrant, Surroundings, Tripwire,
        TripwireAnswer, TripwireQuestion, TripwireResult, VolumeLock, Waiting, decide,
    },
    types::{CeremonyNonce, CommitCertificate, Height, Identity, Incarnation, PeerMessage, SessionKey, Vote},
};

use super::{
    checks::Violation,
    people,
    world::{Event, World},
};

/// How often the shell looks whether it may clear a key.
const CLEAR_MS: u64 = 700;
/// After this long without a block a key that signs nothing up to some height is looked at again.
const STANDING_MS: u64 = 5_000;

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

    /// The chain stands still since this long, as far as a process sees.
    fn stands_still(&mut self, process: usize) -> bool {
        let tip = self.tip(process);
        let (seen, since) = self.processes[process].moved;
        if seen != tip {
            self.processes[process].moved = (tip, self.now);
        }
        seen == tip && self.now.saturating_sub(since) > STANDING_MS
    }

    /// Keys that need no question: the former owner ran under the same kernel.
    pub fn keys_of_same_boot(&mut self, volume: usize, surroundings: &Surroundings) -> Vec<ClearedKey> {
        let passed = TripwireResult::Passed { nothing_up_to: Height::ZERO };
        let keys = self.volumes[volume].keys.entries().to_vec();
        let decisions = keys.iter().filter_map(|entry| decide(entry, surroundings, &passed).ok());
        let same_boot: Vec<_> = decisions.filter(|decision| decision.reason() == OwnerEnded::SameBoot).collect();
        let list = &mut self.volumes[volume].keys;
        same_boot.iter().filter_map(|decision| list.take_over(decision).ok()).collect()
    }

    /// Looks for a key that only the tripwire keeps from being cleared, and asks or decides.
    pub fn try_clear(&mut self, process: usize) -> Result<(), Violation> {
        if !self.processes[process].alive {
            return Ok(());
        }
        self.after(CLEAR_MS, Event::Clear { process });
        let volume = self.processes[process].volume;
        let waiting = TripwireResult::Waiting { answered: Default::default(), needed: Default::default() };
        let only_tripwire = Err(NotCleared::Waiting(Waiting::Tripwire));
        let mine = self.processes[process].owner;
        let silent = !self.processes[process].engine.status().signing;
        let still = self.stands_still(process) && silent && !self.plan.abstains_for_good;
        let entries = self.volumes[volume].keys.entries().to_vec();
        let open = entries.iter().filter(|entry| still || *entry.owner() != mine);
        let mut clearable =
            open.filter(|entry| decide(entry, &self.surroundings(process, entry.owner()), &waiting) == only_tripwire);
        let Some(key) = clearable.next().map(|entry| entry.session_key()) else { return Ok(()) };
        let result = self.tripwire_result(process, key);
        if let Some(result) = result {
            let entry = self.volumes[volume].keys.get(&key).expect("it was just there").clone();
            if let Ok(decision) = decide(&entry, &self.surroundings(process, entry.owner()), &result) {
                let cleared = self.volumes[volume].keys.take_over(&decision).expect("nothing has changed");
                self.counts.add("take-overs with a tripwire", 1);
                self.processes[process].tripwire = None;
                return self.feed(process, Input::Cleared(cleared));
            }
            if result == TripwireResult::RolledBack {
                self.counts.add("tripwires touched", 1);
                return Ok(());
            }
        }
        self.ask(process, key);
        Ok(())
    }

    /// What the answers to the last question say. That the chain moved between two questions makes it a live one.
    fn tripwire_result(&mut self, process: usize, key: SessionKey) -> Option<TripwireResult> {
        let tripwire =
            self.processes[process].tripwire.as_ref().filter(|tripwire| tripwire.question().session_key == key)?;
        match tripwire.result(self.processes[process].engine.signing_record()) {
            TripwireResult::Passed { nothing_up_to } => {
                let before = self.processes[process].shown_before.replace(nothing_up_to)?;
                let live = nothing_up_to > before;
                Some(TripwireResult::Passed { nothing_up_to: if live { nothing_up_to } else { Height::ZERO } })
            }
            result => Some(result),
        }
    }

    /// What a process signs for now.
    fn incarnation_of(&self, process: usize) -> Incarnation {
        let newest = self.volumes[self.processes[process].volume].recoveries.last();
        newest.map_or_else(|| self.genesis.incarnation(), |manifest| manifest.incarnation())
    }

    fn ask(&mut self, process: usize, session_key: SessionKey) {
        let nonce = CeremonyNonce::new(self.dice.bytes());
        let identity = people::identity(self.processes[process].node);
        let status = self.processes[process].engine.status();
        let Some(voters) = self.processes[process].engine.voters(status.tip.next()).cloned() else { return };
        let incarnation = self.incarnation_of(process);
        let question = TripwireQuestion { nonce, incarnation, identity, session_key, voters };
        self.processes[process].tripwire = Some(Tripwire::new(question));
        let message = PeerMessage::NewestVoteRequest { nonce, voter: identity, session_key }.into();
        let others: Vec<usize> = self.alive.iter().copied().filter(|other| *other != process).collect();
        for other in others {
            self.send(process, other, &message);
        }
    }

    /// An answer to a question of the tripwire.
    pub fn on_shown(&mut self, process: usize, from: Identity, shown: Shown) {
        let Shown { nonce, vote, certificate } = shown;
        let certificate = certificate.as_ref();
        let verified = certificate.filter(|certificate| {
            let voters = self.checks.voters(certificate.height());
            let incarnation = self.checks.incarnation_at(certificate.height());
            voters.is_some_and(|voters| verify_certificate(&incarnation, voters, certificate).is_ok())
        });
        let certified = verified.map_or(Height::ZERO, CommitCertificate::height);
        if let Some(tripwire) = &mut self.processes[process].tripwire {
            tripwire.on_answer(&TripwireAnswer { nonce, from, vote, certified });
        }
    }
}
