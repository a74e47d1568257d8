//! Makes batches durable beside the engine: what waits while one write is on its way shares the next one.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use node_core::types::{Batch, Hash};
use tokio::sync::mpsc as async_mpsc;

use crate::{
    adapters::storage::{BatchLog, StorageError},
    metrics::Metrics,
};

/// One write takes no more batches once it has these bytes.
const WRITE_BYTES_MAX: usize = 4 << 20;
/// How long a note that batches are dropped waits for a write that it can share.
const DROP_WAIT: Duration = Duration::from_secs(1);

enum Command {
    Store(Arc<Batch>),
    Drop(Vec<Hash>),
}

/// The digests of batches that became durable together.
pub type Stored = Result<Vec<Hash>, StorageError>;

/// The engine's end. The queue holds no more than the engine keeps batches, which is bounded; the thread ends when this is
/// dropped.
#[derive(Debug)]
pub struct BatchStorage {
    commands: mpsc::Sender<Command>,
}

impl BatchStorage {
    /// Starts the thread that writes. What it has stored comes out of the second part.
    pub fn start(
        log: BatchLog,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, async_mpsc::UnboundedReceiver<Stored>)> {
        let (commands, queue) = mpsc::channel();
        let (stored, receiver) = async_mpsc::unbounded_channel();
        thread::Builder::new().name("batches".to_owned()).spawn(move || work(log, &metrics, &queue, &stored))?;
        Ok((Self { commands }, receiver))
    }

    /// Stores a batch.
    pub fn store(&self, batch: Arc<Batch>) {
        // A thread that ended has told why.
        let _ = self.commands.send(Command::Store(batch));
    }

    /// Forgets batches.
    pub fn forget(&self, digests: Vec<Hash>) {
        let _ = self.commands.send(Command::Drop(digests));
    }
}

fn work(
    mut log: BatchLog,
    metrics: &Metrics,
    queue: &mpsc::Receiver<Command>,
    stored: &async_mpsc::UnboundedSender<Stored>,
) {
    let mut group = Group::default();
    loop {
        let first = if group.dropped.is_empty() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(DROP_WAIT)
        };
        match first {
            Ok(command) => group.add(command),
            Err(RecvTimeoutError::Timeout) => group.due = true,
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while group.bytes < WRITE_BYTES_MAX
            && let Ok(command) = queue.try_recv()
        {
            group.add(command);
        }
        if group.batches.is_empty() && !group.due {
            continue;
        }
        let Group { batches, dropped, .. } = std::mem::take(&mut group);
        let digests: Vec<Hash> = batches.iter().map(|batch| batch.digest()).collect();
        let timer = metrics.batch_write_seconds.start_timer();
        let result = log.append(&batches, &dropped).map(|()| digests);
        timer.observe_duration();
        let failed = result.is_err();
        if stored.send(result).is_err() || failed {
            return;
        }
    }
}

/// What goes into one write.
#[derive(Default)]
struct Group {
    batches: Vec<Arc<Batch>>,
    dropped: Vec<Hash>,
    bytes: usize,
    /// Nothing to share a write with came in time.
    due: bool,
}

impl Group {
    fn add(&mut self, command: Command) {
        match command {
            Command::Store(batch) => {
                self.bytes += batch.bytes();
                self.batches.push(batch);
            }
            Command::Drop(digests) => self.dropped.extend(digests),
        }
    }
}
