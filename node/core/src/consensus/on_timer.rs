//! Timers that rang.

use arc_malachitebft_core_consensus::Input as CoreInput;

use super::{
    Effect, Engine,
    engine::TICK_MS,
    timers::{TimeoutKind, TimerId},
};

impl Engine {
    pub(super) fn on_timer(&mut self, id: TimerId) {
        match id {
            TimerId::Consensus { height, round, kind } => {
                let Some(core) = self.core.as_mut().filter(|core| core.height() == height) else { return };
                if !core.timers.remove(&id) {
                    return;
                }
                if kind == TimeoutKind::Rebroadcast && core.round() == round {
                    self.repeat_proposals();
                }
                self.drive(CoreInput::TimeoutElapsed(kind.for_core(round)), None);
            }
            TimerId::NextHeight(height) => self.due |= height == self.chain.next(),
            TimerId::NextContent(height) => self.paced |= height == self.chain.next(),
            TimerId::SealBatch => self.on_seal_timer(),
            TimerId::Tick => {
                self.out.push(Effect::SetTimer { id: TimerId::Tick, after_ms: TICK_MS });
                self.tell_status();
                self.sync.on_tick(self.chain.tip());
                self.ask_blocks();
                self.look_after_session();
                self.repeat_batches();
            }
            TimerId::SyncRequest { request } => {
                self.sync.on_timeout(request, self.chain.tip());
                self.ask_blocks();
            }
        }
    }
}
