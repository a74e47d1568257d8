//! Reads through a gateway at a fixed arrival rate: a slow answer delays no other one, and every failure is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::entrance::Entrance;

/// What became of all reads.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Reads that were sent and answered.
    pub answered: u64,
    /// What went wrong, one line for each.
    pub failed: Vec<String>,
}

/// Reads that go on in the background until they are stopped.
pub struct Arrivals {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    answered: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Arrivals {
    /// Sends so many reads of `path` each second, whatever becomes of those before. Anything but 200 is a failure.
    pub fn start(entrance: &Entrance, path: &str, per_second: u32) -> Self {
        let (stop, answered) = (CancellationToken::new(), Arc::<AtomicU64>::default());
        let failed = Arc::<Mutex<Vec<String>>>::default();
        let path = path.to_string();
        let reads = Reads { entrance: entrance.clone(), path, answered: answered.clone(), failed: failed.clone() };
        let mut pace = interval(Duration::from_secs(1) / per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    _ = pace.tick() => { open.spawn(reads.clone().one()); }
                    Some(_) = open.join_next() => {}
                    () = stopped.cancelled() => break,
                }
            }
            while open.join_next().await.is_some() {}
        });
        Self { stop, task, answered, failed }
    }

    /// What became of them so far.
    pub async fn tally(&self) -> Tally {
        Tally { answered: self.answered.load(Ordering::Relaxed), failed: self.failed.lock().await.clone() }
    }

    /// Stops, waits for those that are on their way, and says what became of all.
    pub async fn stop(self) -> Tally {
        self.stop.cancel();
        let (answered, failed) = (self.answered, self.failed);
        if let Err(error) = self.task.await {
            failed.lock().await.push(format!("the sender ended: {error}"));
        }
        let failed = failed.lock().await.clone();
        Tally { answered: answered.load(Ordering::Relaxed), failed }
    }
}

#[derive(Clone)]
struct Reads {
    entrance: Entrance,
    path: String,
    answered: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Reads {
    async fn one(self) {
        let problem = match self.entrance.get(&self.path).await {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(format!("{}: {}", answer.status, answer.body)),
            Err(error) => Some(format!("{error:#}")),
        };
        match problem {
            None => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Some(problem) => self.failed.lock().await.push(problem),
        }
    }
}
