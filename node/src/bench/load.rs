//! The open-loop load: each transaction leaves when it is due, whether or not earlier ones were answered.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use node_api::{
    client::Client,
    proto::{self, stream_answer::Answer},
};
use tokio::{
    sync::mpsc,
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

/// What became of one share of the transactions.
#[derive(Debug, Default)]
pub struct Answered {
    /// Index and time of each acknowledgement.
    pub acknowledged: Vec<(usize, Instant)>,
    /// Transactions that were refused when they were sent for the first time.
    pub refused: usize,
    /// The reason of the first refusal.
    pub refusal: Option<String>,
    /// Transactions that another node was given because the first one did not acknowledge them.
    pub resent: usize,
    /// Transactions that another node was given although the first one had acknowledged them: they come after one that it
    /// had not.
    pub resent_acknowledged: usize,
}

/// Where a share goes.
#[derive(Debug)]
pub struct Route {
    /// The node.
    pub node: Client,
    /// Who is given what the node did not acknowledge, and all that follows, once its stream breaks. Without one a broken
    /// stream ends the measurement.
    pub fallback: Option<Client>,
}

/// Sends a share, and gathers the answers.
pub async fn send(route: Route, corpus: Arc<Corpus>, schedule: Schedule, share: Share) -> Result<Answered, BenchError> {
    let mut answered = Answered::default();
    let broken = stream(&route.node, &corpus, schedule, share, &mut answered).await;
    let (Err(_), Some(fallback)) = (&broken, route.fallback) else { return broken.map(|()| answered) };
    let first = answered.first_missing(share);
    let due = schedule.count_due(Instant::now()).min(corpus.len());
    let rest = Share { first, again: due, ..share };
    (answered.resent, answered.resent_acknowledged) = answered.count_again(rest);
    stream(&fallback, &corpus, schedule, rest, &mut answered).await?;
    Ok(answered)
}

/// One stream to one node, until everything has left and was answered.
async fn stream(
    client: &Client,
    corpus: &Corpus,
    schedule: Schedule,
    share: Share,
    answered: &mut Answered,
) -> Result<(), BenchError> {
    let (messages, queue) = mpsc::channel(MESSAGES_MAX);
    let answers = client.submit_stream(ReceiverStream::new(queue)).await?;
    let receiver = tokio::spawn(gather(answers, share, std::mem::take(answered)));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = share.first;
    while next < corpus.len() {
        ticks.tick().await;
        let due = schedule.count_due(Instant::now()).min(corpus.len());
        while next < due {
            let indexes = (next..due).step_by(share.nodes).take(MESSAGE_TRANSACTIONS_MAX);
            let transactions: Vec<_> = indexes.map(|index| corpus.transaction(index)).collect();
            next += transactions.len() * share.nodes;
            let message = proto::SubmitStreamRequest { transactions, wait: proto::Wait::Durable.into() };
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
    let (gathered, ended) = match tokio::time::timeout(ANSWERS_TIME_MAX, receiver).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => return Err(stopped(error.to_string())),
        Err(_) => return Err(stopped("the last answers did not come".to_owned())),
    };
    *answered = gathered;
    ended
}

/// Which transactions a node is given: those whose index is `node` modulo `nodes`.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The number of the node.
    pub node: usize,
    /// How many nodes share the load.
    pub nodes: usize,
    /// The index that comes first; one of its own.
    pub first: usize,
    /// What has a smaller index may have been sent before, and may be refused as known.
    pub again: usize,
}

impl Share {
    /// The whole share of one node.
    pub const fn new(node: usize, nodes: usize) -> Self {
        Self { node, nodes, first: node, again: 0 }
    }
}

impl Answered {
    fn indexes(&self) -> BTreeSet<usize> {
        self.acknowledged.iter().map(|(index, _)| *index).collect()
    }

    /// Of the transactions that were due before this share was given to another node and are part of it: how many were not
    /// acknowledged, and how many were.
    fn count_again(&self, rest: Share) -> (usize, usize) {
        let acknowledged = self.indexes();
        let again = (rest.first..rest.again).step_by(rest.nodes);
        let (known, missing): (Vec<_>, Vec<_>) = again.partition(|index| acknowledged.contains(index));
        (missing.len(), known.len())
    }

    /// The first transaction of a share that was not acknowledged.
    fn first_missing(&self, share: Share) -> usize {
        let acknowledged = self.indexes();
        let mut own = (share.node..).step_by(share.nodes);
        own.find(|index| !acknowledged.contains(index)).unwrap_or(share.node)
    }

    fn take(&mut self, share: Share, answer: proto::StreamAnswer, now: Instant) {
        let proto::StreamAnswer { first, count, answer } = answer;
        let numbers = (first..first.saturating_add(count.into())).filter_map(|number| usize::try_from(number).ok());
        let indexes = numbers.map(|number| number * share.nodes + share.first);
        let refusal = match answer {
            Some(Answer::Durable(_) | Answer::Final(_)) => {
                self.acknowledged.extend(indexes.map(|index| (index, now)));
                return;
            }
            Some(Answer::Refused(refused)) => Some(refused.reason),
            Some(Answer::Accepted(_) | Answer::Expired(_)) | None => None,
        };
        let refused = indexes.filter(|index| *index >= share.again).count();
        self.refused += refused;
        self.refusal = self.refusal.take().or(refusal.filter(|_| refused > 0));
    }
}

/// The answers with what came before them, and how the stream ended.
async fn gather(
    mut answers: tonic::Streaming<proto::SubmitStreamResponse>,
    share: Share,
    mut answered: Answered,
) -> (Answered, Result<(), BenchError>) {
    loop {
        let message = match answers.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return (answered, Ok(())),
            Err(status) => {
                let reason = status.message().to_owned();
                return (answered, Err(BenchError::Stream { node: share.node, what: "answers", reason }));
            }
        };
        let now = Instant::now();
        for answer in message.answers {
            answered.take(share, answer, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{Answered, Share};

    #[test]
    fn what_goes_to_another_node_begins_with_the_first_that_was_not_acknowledged_and_is_counted_by_kind() {
        let now = Instant::now();
        // Of the second of four nodes: 1, 5, 9, 13, 17, .. of which 5 and 13 were not acknowledged.
        let acknowledged = [1, 9, 17].map(|index| (index, now)).to_vec();
        let answered = Answered { acknowledged, ..Answered::default() };
        let share = Share::new(1, 4);
        let first = answered.first_missing(share);
        assert_eq!(first, 5);
        // 20 were due when the stream broke: 5, 9, 13 and 17 leave once more.
        assert_eq!(answered.count_again(Share { first, again: 20, ..share }), (2, 2));
    }
}
