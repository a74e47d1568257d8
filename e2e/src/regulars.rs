//! Clients that stay while gateways come and go: one reads over a connection that it keeps, one follows the blocks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::entrance::{Entrance, Regular};

/// Time between two reads, and before a stream is opened again.
const PACE: Duration = Duration::from_millis(250);

/// What they have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Reads that were answered.
    pub reads: u64,
    /// Connections that they took.
    pub connections: u64,
    /// Blocks that followed each other.
    pub blocks: u64,
    /// Streams that they took.
    pub streams: u64,
    /// What went wrong, one line for each.
    pub failed: Vec<String>,
}

/// Both, in the background until they are stopped.
pub struct Regulars {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    seen: Arc<Mutex<Seen>>,
}

impl Regulars {
    /// Starts them; the one that reads reads `path`.
    pub fn start(entrance: &Entrance, path: &str) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::<Mutex<Seen>>::default());
        let mut tasks = JoinSet::new();
        let (client, path) = (Regular::new(entrance), path.to_string());
        let reading = read(client, path, seen.clone());
        let following = follow(entrance.clone(), seen.clone());
        for work in [reading.boxed(), following.boxed()] {
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! { () = stop.cancelled() => {}, () = work => {} }
            });
        }
        Self { stop, tasks, seen }
    }

    /// What they have seen so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Stops them.
    pub async fn stop(mut self) -> Seen {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.seen()
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(mut client: Regular, path: String, seen: Arc<Mutex<Seen>>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let answer = client.get(&path).await;
        let mut seen = lock(&seen);
        seen.connections = client.connections;
        match answer {
            Ok(answer) if answer.status == 200 => seen.reads += 1,
            Ok(answer) => seen.failed.push(format!("kept connection: {answer:?}")),
            Err(error) => seen.failed.push(format!("kept connection: {error:#}")),
        }
    }
}

/// A stream may end at any time; the next one goes on where it was.
async fn follow(entrance: Entrance, seen: Arc<Mutex<Seen>>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = None;
    loop {
        pace.tick().await;
        if let Err(error) = follow_once(&entrance, &mut next, &seen).await {
            lock(&seen).failed.push(format!("stream from {next:?}: {error:#}"));
        }
    }
}

async fn follow_once(entrance: &Entrance, next: &mut Option<u64>, seen: &Mutex<Seen>) -> Result<()> {
    let from = next.map(|height| format!("?from={height}")).unwrap_or_default();
    let mut events = entrance.follow(&format!("/api/v1/stream/blocks{from}")).await?;
    lock(seen).streams += 1;
    // A connection that breaks has told everything before; only what is answered to the next stream counts.
    while let Ok(Some(told)) = events.next().await {
        if told.kind == "broken" {
            return Ok(());
        }
        if told.kind != "block" {
            continue;
        }
        let height: u64 = told.id.parse().with_context(|| format!("{told:?}"))?;
        let expected = next.replace(height + 1);
        ensure!(expected.is_none_or(|expected| expected == height), "{height} came, {expected:?} is next");
        lock(seen).blocks += 1;
    }
    Ok(())
}
