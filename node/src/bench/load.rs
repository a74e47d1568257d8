//! The open-loop load: each transaction leaves when it is due, whether or not earlier ones were answered.

use std::{sync::Arc, time::Duration};

use node_api::{
    client::Client,
    proto::{self, stream_answer::Answer},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{BenchError, corpus::Corpus};

/// How often the transactions that are due leave.
const TICK: Duration = Duration::from_millis(5);
/// Most transactions in one message.
const MESSAGE_TRANSACTIONS_MAX: usize = 500;
/// Messages between the generator and the connection. A node that takes no more makes later ones leave late, and that
/// counts as their latency.
const MESSAGES_MAX: usize = 4_096;
/// How long the last answers may take.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(20);

/// When each transaction is due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The first.
    pub start: Instant,
    /// How many a second.
    pub rate: u32,
}

impl Schedule {
    /// When this transaction should leave.
    pub fn due(&self, index: usize) -> Instant {
        let nanoseconds = (index as u64).saturating_mul(1_000_000_000) / u64::from(self.rate.max(1));
        self.start + Duration::from_nanos(nanoseconds)
    }

    /// How many are due at a moment.
    fn count_due(&self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.start).as_nanos();
        let due = elapsed * u128::from(self.rate) / 1_000_000_000;
        usize::try_from(due).unwrap_or(usize::MAX).saturating_add(1)
    }
}

/// What became of the transactions that one node was given.
#[derive(Debug, Default)]
pub struct Answered {
    /// Index and time of each acknowledgement.
    pub acknowledged: Vec<(usize, Instant)>,
    /// Transactions that were refused, and why the first of them was.
    pub refused: usize,
    /// The reason of the first refusal.
    pub refusal: Option<String>,
}

/// Sends the share of node `node` of `nodes`, and gathers the answers.
pub async fn send(
    client: Client,
    corpus: Arc<Corpus>,
    schedule: Schedule,
    share: Share,
) -> Result<Answered, BenchError> {
    let (messages, queue) = mpsc::channel(MESSAGES_MAX);
    let answers = client.submit_stream(ReceiverStream::new(queue)).await?;
    let receiver: JoinHandle<Result<Answered, BenchError>> = tokio::spawn(gather(answers, share));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = share.node;
    while next < corpus.len() {
        ticks.tick().await;
        let due = schedule.count_due(Instant::now()).min(corpus.len());
        while next < due {
            let indexes = (next..due).step_by(share.nodes).take(MESSAGE_TRANSACTIONS_MAX);
            let transactions: Vec<_> = indexes.map(|index| corpus.transaction(index)).collect();
            next += transactions.len() * share.nodes;
            let message = proto::SubmitStreamRequest { transactions, wait: proto::Wait::Accepted.into() };
            if messages.send(message).await.is_err() {
                break;
            }
        }
        if messages.is_closed() {
            break;
        }
    }
    drop(messages);
    let stopped = |reason: String| BenchError::Stream { node: share.node, what: "answers", reason };
    match tokio::time::timeout(ANSWERS_TIME_MAX, receiver).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => Err(stopped(error.to_string())),
        Err(_) => Err(stopped("the last answers did not come".to_owned())),
    }
}

/// Which transactions a node is given: those whose index is `node` modulo `nodes`.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The number of the node.
    pub node: usize,
    /// How many nodes share the load.
    pub nodes: usize,
}

async fn gather(
    mut answers: tonic::Streaming<proto::SubmitStreamResponse>,
    share: Share,
) -> Result<Answered, BenchError> {
    let mut answered = Answered::default();
    loop {
        let message = answers.message().await.map_err(|status| BenchError::Stream {
            node: share.node,
            what: "answers",
            reason: status.message().to_owned(),
        })?;
        let Some(message) = message else { return Ok(answered) };
        let now = Instant::now();
        for proto::StreamAnswer { first, count, answer } in message.answers {
            let numbers = first..first.saturating_add(count.into());
            match answer {
                Some(Answer::Accepted(_) | Answer::Final(_)) => {
                    let indexes = numbers.filter_map(|number| usize::try_from(number).ok());
                    let indexes = indexes.map(|number| number * share.nodes + share.node);
                    answered.acknowledged.extend(indexes.map(|index| (index, now)));
                }
                Some(Answer::Refused(refused)) => {
                    answered.refused += count as usize;
                    answered.refusal.get_or_insert(refused.reason);
                }
                Some(Answer::Expired(_)) | None => answered.refused += count as usize,
            }
        }
    }
}
