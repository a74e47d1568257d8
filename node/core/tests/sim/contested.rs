//! Who may lose its key to a rotation that only its identity signed: nobody who could have objected all the time.

use node_core::{
    ledger::snapshot,
    types::{Height, Payload, SessionKey, Transaction},
};

use super::{checks::Violation, people, process::Process, world::World};

/// A voter that was cut off is behind for a moment when it is heard again: it fetches blocks first.
const CATCH_UP_MS: u64 = 1_000;

impl World {
    /// A rotation was executed: from now on the voter may object.
    pub fn note_rotation(&mut self, transaction: &Transaction) {
        if let Payload::RotateSession(rotation) = &transaction.body().payload
            && rotation.co_signature.is_none()
        {
            let now = self.now;
            self.rotations.entry(rotation.new_key).or_insert(now);
        }
    }

    /// Cannot speak with a quorum, itself included, in both directions.
    fn is_cut_off(&self, process: usize) -> bool {
        let voters = self.checks.newest_voters();
        let together = |other: &usize| {
            let apart = self.processes[*other].exiled != self.processes[process].exiled;
            let (there, back) = ((process, *other), (*other, process));
            !apart && !self.blocked.contains(&there) && !self.blocked.contains(&back)
        };
        let mut nodes: Vec<u64> =
            self.alive.iter().filter(|other| together(other)).map(|other| self.processes[*other].node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let power = nodes.iter().filter_map(|node| voters.get(&people::identity(*node)));
        power.map(|entry| entry.power.get()).sum::<u64>() < voters.quorum().get()
    }

    /// Remembers who is cut off now. Called before and after anything that changes who hears whom.
    pub fn note_cut_off(&mut self) {
        let cut_off: Vec<usize> = self.alive.iter().copied().filter(|process| self.is_cut_off(*process)).collect();
        for process in cut_off {
            self.processes[process].cut_off_until = self.now;
        }
    }

    /// A process says that somebody else's key has the place of its own. That is allowed only if it could not object: it
    /// did not run, was cut off, or had no key to object with, at some time since the rotation was executed.
    pub fn contested(&mut self, process: usize) -> Result<(), Violation> {
        self.counts.add("identities contested", 1);
        let Some((height, key)) = self.named_key(process) else { return Ok(()) };
        // No rotation but governance or a recovery has given the place to another key.
        let Some(executed_at) = self.rotations.get(&key).copied() else { return Ok(()) };
        let victim = &self.processes[process];
        let able = victim.able_since.is_some_and(|since| since < executed_at);
        let heard = victim.cut_off_until + CATCH_UP_MS < executed_at && !self.is_cut_off(process);
        if able && heard {
            return Err(Violation::Displaced(height));
        }
        self.counts.add("keys lost while unable to object", 1);
        Ok(())
    }

    /// The newest key that the state of a process names for its identity.
    fn named_key(&self, process: usize) -> Option<(Height, SessionKey)> {
        let Process { node, volume, .. } = &self.processes[process];
        let state = snapshot(&self.volumes[*volume].store).expect("the state is whole")?;
        let entry = state.sets.third.get(&people::identity(*node))?;
        Some((state.progress.height, entry.session_key))
    }
}
