//! The shell's part: performs effects in order, and may die before any of them.

use std::sync::Arc;

use node_core::{
    codec::Encode,
    consensus::{Alarm, DropReason, Effect, Input},
    ledger::{Applied, Recoveries, apply_block_with_faults},
    session::NewKey,
    types::{
        Batch, Block, CertifiedBlock, CommitCertificate, Epoch, FailureReason, Height, Identity, Payload, PeerMessage,
        ReceiptStatus,
    },
};

use super::{
    checks::{Sender, Violation},
    every_effect::durable_kind,
    people,
    volume::Volume,
    world::{Event, World},
};

impl World {
    pub fn perform(&mut self, process: usize, effects: Vec<Effect>) -> Result<(), Violation> {
        for effect in effects {
            let crash = if self.healed { 0 } else { self.plan.crash };
            if self.dice.in_a_million(crash) {
                self.counts.add("crashes between effects", 1);
                self.crash(process);
                return Ok(());
            }
            let kind = durable_kind(&effect);
            self.perform_one(process, effect)?;
            let ended = !self.processes[process].alive;
            if ended || kind.is_some_and(|kind| self.persisted(process, kind)) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn perform_one(&mut self, process: usize, effect: Effect) -> Result<(), Violation> {
        let volume = self.processes[process].volume;
        match effect {
            Effect::AppendLog(entry) => {
                self.note(process, &entry);
                self.volumes[volume].append(entry);
            }
            Effect::FlushLog => self.volumes[volume].flush(),
            Effect::ResetLog { first, .. } => self.volumes[volume].reset_log(first),
            Effect::Broadcast(message) => self.broadcast(process, &message)?,
            Effect::Send { to, message } => self.send_to(process, to, &message)?,
            Effect::SendBlocks { to, first, .. } if first < self.volumes[volume].pruned_below => {
                self.counts.add("blocks that are pruned", 1);
                let first = self.volumes[volume].pruned_below;
                self.send_to(process, to, &Arc::new(PeerMessage::BlocksPruned { first }))?;
            }
            Effect::SendBlocks { to, first, count } => {
                let skip = usize::try_from(first.get() - 1).unwrap();
                let blocks: Vec<CertifiedBlock> =
                    self.volumes[volume].blocks.iter().skip(skip).take(count as usize).cloned().collect();
                self.counts.add("blocks caught up", blocks.len() as u64);
                self.send_to(process, to, &Arc::new(PeerMessage::BlocksResponse { blocks }))?;
            }
            Effect::SetTimer { id, after_ms } => {
                self.names += 1;
                let setting = self.names;
                self.processes[process].timers.insert(id, setting);
                self.after(self.timer_lasts(process, after_ms), Event::Timer { process, id, setting });
            }
            Effect::CancelTimer(id) => drop(self.processes[process].timers.remove(&id)),
            Effect::StoreBatch(batch) => {
                let after = self.dice.between(1, 8);
                self.after(after, Event::Stored { process, batch });
            }
            Effect::DropBatches(digests) => {
                self.volumes[volume].batches.retain(|batch| !digests.contains(&batch.digest()));
            }
            Effect::Durable(ids) => {
                self.counts.add("transactions durable", ids.len() as u64);
                // Of those who were cut off nobody knows that the chain went on with a recovery.
                if !self.processes[process].byzantine && !self.processes[process].former {
                    self.checks.promised.extend(ids);
                }
            }
            Effect::Commit { block, certificate } => self.commit(process, &block, certificate)?,
            Effect::Execute { height } => {
                let starts = self.processes[process].executing_until.max(self.now);
                let ends = starts + self.dice.between(self.execution_ms_min(process), self.plan.execution_ms);
                self.processes[process].executing_until = ends;
                self.after(ends - self.now, Event::Execute { process, height });
            }
            Effect::VoteSeen(vote) => {
                if vote.vote.height <= self.tip(process) {
                    self.counts.add("late votes seen", 1);
                }
                if vote.vote.round.get() > 0 {
                    self.counts.add("rounds after the first", 1);
                }
            }
            Effect::MakeKey { epoch } => self.make_key(process, epoch),
            Effect::KeyEffective(key) => {
                let entry = self.volumes[volume].keys.get(&key);
                let rotated = entry.is_some_and(|entry| entry.epoch() > Epoch::FIRST);
                self.counts.add("rotations that count", u64::from(rotated));
                let _ = self.volumes[volume].keys.mark_effective(&key);
            }
            Effect::RetireKey(key) => {
                self.counts.add("keys retired", 1);
                self.processes[process].cleared.remove(&key);
                let _ = self.volumes[volume].keys.retire(&key);
                self.volumes[volume].keys.erase_retired();
            }
            Effect::Evidence(_) => self.counts.add("evidence found", 1),
            Effect::Dropped { reason, .. } => self.dropped(reason),
            Effect::Accepted(_) | Effect::Expired(_) | Effect::Refused { .. } => {}
            Effect::Alarm(alarm) => self.alarm(process, &alarm)?,
            Effect::Halt(reason) => self.halted(process, &reason)?,
        }
        Ok(())
    }

    fn dropped(&mut self, reason: DropReason) {
        if reason == DropReason::InvalidBlock {
            self.counts.add("blocks judged invalid", 1);
        }
    }

    fn alarm(&mut self, process: usize, alarm: &Alarm) -> Result<(), Violation> {
        match alarm {
            Alarm::IdentityContested { .. } => self.contested(process),
            Alarm::LogAhead { .. } => Ok(()),
            _ if self.processes[process].byzantine => Ok(()),
            alarm => Err(Violation::Failed(format!("process {process}: {alarm}"))),
        }
    }

    fn broadcast(&mut self, process: usize, message: &Arc<PeerMessage>) -> Result<(), Violation> {
        self.check_sent(process, message)?;
        if self.processes[process].silent && matches!(message.as_ref(), PeerMessage::ProposedHeader(_)) {
            self.counts.add("silent proposals", 1);
            return Ok(());
        }
        let mut others: Vec<usize> = self.alive.iter().copied().filter(|other| *other != process).collect();
        if matches!(message.as_ref(), PeerMessage::Batch(_))
            && !self.healed
            && self.dice.in_a_million(self.plan.withhold)
        {
            self.counts.add("batches withheld", 1);
            others.truncate(self.dice.below(others.len() as u64 + 1) as usize);
        }
        if self.processes[process].byzantine {
            return self.contradict(process, &others, message);
        }
        for other in others {
            self.send(process, other, message);
        }
        Ok(())
    }

    /// To every process of the identity: nobody can tell them apart.
    fn send_to(&mut self, process: usize, to: Identity, message: &Arc<PeerMessage>) -> Result<(), Violation> {
        self.check_sent(process, message)?;
        if matches!(message.as_ref(), PeerMessage::BatchesRequest(_)) {
            self.counts.add("batches asked for", 1);
        }
        let of_identity = |other: &usize| *other != process && people::identity(self.processes[*other].node) == to;
        let receivers: Vec<usize> = self.alive.iter().copied().filter(of_identity).collect();
        for other in receivers {
            self.send(process, other, message);
        }
        Ok(())
    }

    fn check_sent(&mut self, process: usize, message: &PeerMessage) -> Result<(), Violation> {
        if self.is_traced() {
            self.note(process, &message.encode());
        }
        self.check_differing_sent(process, message)?;
        let Self { processes, volumes, checks, alive, .. } = self;
        let identity = people::identity(processes[process].node);
        let Volume { durable, stored, .. } = &volumes[processes[process].volume];
        let accepted = processes[process].accepted;
        checks.on_sent(&Sender { process, identity, durable, stored, alive, accepted }, message)
    }

    fn commit(&mut self, process: usize, block: &Arc<Block>, certificate: CommitCertificate) -> Result<(), Violation> {
        let volume = &mut self.volumes[self.processes[process].volume];
        let tip = Height::new(volume.blocks.len() as u64);
        let height = block.header().height;
        let first = !self.checks.is_final(height);
        let checked = self.checks.on_commit(tip, block.header(), &certificate);
        let certified = CertifiedBlock { block: block.as_ref().clone(), certificate };
        volume.blocks.push(certified.clone());
        checked?;
        if first {
            self.check_time(block.header())?;
        }
        self.check_differing_commit(process, height)?;
        // A recovery begins another incarnation, from which a light client starts anew.
        match self.checks.voters_around(height).filter(|_| first && !self.checks.is_recovered()) {
            Some(sets) => self.light.on_final(&certified, sets, &mut self.counts),
            None => Ok(()),
        }
    }

    /// A batch has reached the disk.
    pub fn stored(&mut self, process: usize, batch: Arc<Batch>) -> Result<(), Violation> {
        if !self.processes[process].alive {
            return Ok(());
        }
        let digest = batch.digest();
        let volume = self.processes[process].volume;
        self.volumes[volume].store(batch);
        if self.persisted(process, "StoreBatch") {
            return Ok(());
        }
        self.feed(process, Input::BatchesStored(vec![digest]))
    }

    pub fn execute(&mut self, process: usize, height: Height) -> Result<(), Violation> {
        if !self.processes[process].alive {
            return Ok(());
        }
        let (node, index) = (self.processes[process].node, self.processes[process].volume);
        let at = usize::try_from(height.get() - 1).unwrap();
        let block = self.volumes[index].blocks.get(at).expect("only final blocks are executed").block.clone();
        let mut volume = std::mem::take(&mut self.volumes[index]);
        let applied = match self.execute_differently(node, &mut volume, &block) {
            Some(applied) => applied,
            None => {
                let recoveries = Recoveries::new(volume.recoveries.clone());
                let applied = apply_block_with_faults(&mut volume.store, &block, &recoveries, self.ledger_faults);
                applied.expect("final blocks can be executed")
            }
        };
        self.volumes[index] = volume;
        let Applied::Now { outcome, results } = applied else {
            panic!("process {process} asked for height {height}, which its state holds already")
        };
        if self.persisted(process, "Execute") {
            return Ok(());
        }
        if self.is_wrong_at(node, height) {
            return self.feed(process, Input::Executed { outcome, results });
        }
        let volume = &self.volumes[index];
        let late = self.checks.is_recovered() && volume.recoveries.is_empty();
        self.counts.add("blocks executed after a recovery that stands on them", u64::from(late));
        self.checks.on_executed(results, &outcome, volume.recoveries.len())?;
        for receipt in &outcome.receipts {
            self.checks.promised.remove(&receipt.transaction);
            self.checks.included.insert(receipt.transaction);
        }
        for (transaction, receipt) in block.transactions().zip(&outcome.receipts) {
            self.check_authorised(height, transaction, receipt.status)?;
            if receipt.status == ReceiptStatus::Executed {
                match &transaction.body().payload {
                    Payload::Transfer(_) => self.counts.add("transfers executed", 1),
                    Payload::RotateSession(_) => {
                        self.counts.add("rotations executed", 1);
                        self.note_rotation(transaction);
                    }
                    Payload::KeepSession(_) => self.counts.add("objections executed", 1),
                    Payload::Governance(change) => self.count_change(change),
                }
            } else if let ReceiptStatus::Failed(reason) = receipt.status {
                match reason {
                    FailureReason::ChangeTooLarge => self.counts.add("changes that were too large", 1),
                    FailureReason::TooFewVoters => self.counts.add("changes that left too few voters", 1),
                    FailureReason::SessionKeyUsed => self.counts.add("old keys refused", 1),
                    _ => {}
                }
            }
        }
        self.feed(process, Input::Executed { outcome, results })
    }

    fn make_key(&mut self, process: usize, epoch: Epoch) {
        let seed = self.dice.bytes();
        let Self { processes, volumes, checks, .. } = self;
        let Some(process_of) = processes.get(process) else { return };
        let new = NewKey { seed, epoch, claim: Some(process_of.claim), owner: process_of.owner };
        let key = volumes[process_of.volume].keys.make(new).expect("few keys are made");
        checks.key_made(people::identity(process_of.node), key.session_key());
        self.after(2, Event::Feed { process, input: Box::new(Input::Made { key, epoch }) });
    }
}
