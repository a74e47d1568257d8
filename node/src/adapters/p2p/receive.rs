//! Reads the frames of one connection, from either side, until it ends.

use std::{sync::Arc, time::Duration};

use node_api::proto::Frame;
use node_core::{
    codec::Decode,
    crypto::{InvalidSignature, VerifiedBatch, VerifiedTransaction, verify_transactions},
    types::{Identity, PeerMessage, Transaction},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    lag::Lag,
    links::{Link, Links},
    records::{RecordEvent, RecordInbox},
    rules::{MessageRate, Offence},
};
use crate::{
    metrics::Metrics,
    shell::verifier::{Queued, Verifier},
};

/// What the connections report to the main loop.
#[derive(Debug)]
pub enum Event {
    /// A connection of this peer opened or ended; the table of links says how it is now.
    Changed(Identity),
    /// Transactions of this peer whose signatures are right.
    Transactions {
        /// Who sent them.
        from: Identity,
        /// The transactions, in the order in which they came.
        transactions: Vec<VerifiedTransaction>,
    },
    /// A batch of this peer in which every signature is right.
    Batch {
        /// Who sent it.
        from: Identity,
        /// The batch.
        batch: VerifiedBatch,
    },
    /// A message of this peer.
    Message {
        /// Who sent it, proved by its certificate.
        from: Identity,
        /// The message, well formed and not verified.
        message: Box<PeerMessage>,
    },
}

/// Where the connections of a process deliver to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    events: mpsc::Sender<Event>,
    verifier: Verifier,
    batches: mpsc::Sender<Verifying>,
    records: RecordInbox,
    lag: Lag,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// Who takes what connections bring.
#[derive(Debug)]
pub struct Receivers {
    /// The main loop.
    pub events: mpsc::Sender<Event>,
    /// Signatures.
    pub verifier: Verifier,
    /// Peer records.
    pub records: RecordInbox,
}

/// A batch whose signatures are being verified.
#[derive(Debug)]
struct Verifying {
    from: Identity,
    found: Queued<Result<VerifiedBatch, InvalidSignature>>,
}

/// Batches whose verification may be under way.
const BATCHES_MAX: usize = 256;

/// Whether the other end of a connection said that it reads peer records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadsRecords {
    /// It did.
    Yes,
    /// It is of a release that knows none.
    No,
}

/// Why reading ended.
#[derive(Debug)]
pub enum End {
    /// The peer closed the connection, or it broke.
    Closed(Option<Status>),
    /// The peer sent bytes that are no message.
    Malformed(String),
    /// A newer connection of the same peer took its place, the peer was sent away, or this side closed it.
    Replaced,
    /// The node is going down.
    Stopping,
}

impl Inbox {
    /// Delivers to `events` until `stop` is cancelled.
    pub fn new(receivers: Receivers, links: &Links, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        let Receivers { events, verifier, records } = receivers;
        let (batches, verifying) = mpsc::channel(BATCHES_MAX);
        tokio::spawn(deliver(verifying, events.clone(), links.clone(), Arc::clone(&metrics)));
        Self { events, verifier, batches, records, lag: links.lag().clone(), metrics, stop }
    }

    /// Reads until the connection ends. A full queue slows this peer down and nobody else.
    pub async fn receive(&self, link: Link, reads: ReadsRecords, frames: Streaming<Frame>) -> End {
        let peer = link.peer();
        // The main loop may have gone: then nobody has to know.
        let _ = self.events.send(Event::Changed(peer)).await;
        if reads == ReadsRecords::Yes {
            link.reads_records();
            self.records.tell(RecordEvent::Opened(peer)).await;
        }
        let end = self.read(&link, frames).await;
        drop(link);
        let _ = self.events.send(Event::Changed(peer)).await;
        end
    }

    async fn read(&self, link: &Link, mut frames: Streaming<Frame>) -> End {
        let from = link.peer();
        let mut rate = MessageRate::new(link.now_ms());
        loop {
            let frame = tokio::select! {
                () = self.stop.cancelled() => return End::Stopping,
                () = link.replaced() => return End::Replaced,
                frame = frames.message() => frame,
            };
            let frame = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return End::Closed(None),
                Err(status) => return End::Closed(Some(status)),
            };
            while let Some(wait) = rate.take(link.now_ms()) {
                if wait.counts {
                    self.count("slowed_down");
                    link.report(Offence::Flood);
                }
                tokio::select! {
                    () = self.stop.cancelled() => return End::Stopping,
                    () = link.replaced() => return End::Replaced,
                    () = tokio::time::sleep(Duration::from_millis(wait.wait_ms)) => {}
                }
            }
            let message = match PeerMessage::decode(&frame.body) {
                Ok(message) => message,
                Err(error) => {
                    self.count("malformed");
                    link.report(Offence::Malformed);
                    return End::Malformed(error.to_string());
                }
            };
            if !self.lag.wants(&message) {
                self.count("behind");
                continue;
            }
            self.count("received");
            let event = match message {
                PeerMessage::Transactions(transactions) => {
                    let (transactions, bad) = self.verify(transactions).await;
                    if bad > 0 {
                        link.report(Offence::BadSignature);
                    }
                    Event::Transactions { from, transactions }
                }
                // What comes after it, a vote for example, does not wait for its signatures.
                PeerMessage::Batch(batch) => {
                    let Some(found) = self.verifier.queue_batch(batch).await else { return End::Stopping };
                    if self.batches.send(Verifying { from, found }).await.is_err() {
                        return End::Stopping;
                    }
                    continue;
                }
                PeerMessage::PeerRecords(records) => {
                    self.records.tell(RecordEvent::Heard { from, records }).await;
                    continue;
                }
                message => Event::Message { from, message: Box::new(message) },
            };
            if self.events.send(event).await.is_err() {
                return End::Stopping;
            }
        }
    }

    /// Off the tasks that serve connections: a full message takes some milliseconds.
    async fn verify(&self, transactions: Vec<Transaction>) -> (Vec<VerifiedTransaction>, u64) {
        let results = tokio::task::spawn_blocking(move || verify_transactions(transactions)).await.unwrap_or_default();
        let (mut good, mut bad) = (Vec::with_capacity(results.len()), 0);
        for result in results {
            match result {
                Ok(transaction) => good.push(transaction),
                Err(_) => bad += 1,
            }
        }
        if bad > 0 {
            self.metrics.messages_received_total.with_label_values(&["bad_transaction"]).inc_by(bad);
        }
        (good, bad)
    }

    fn count(&self, outcome: &str) {
        self.metrics.messages_received_total.with_label_values(&[outcome]).inc();
    }
}

/// Hands on what is verified, in the order in which it came. Ends with the last connection, or with the main loop.
async fn deliver(
    mut batches: mpsc::Receiver<Verifying>,
    events: mpsc::Sender<Event>,
    links: Links,
    metrics: Arc<Metrics>,
) {
    while let Some(Verifying { from, found }) = batches.recv().await {
        match found.wait().await {
            Some(Ok(batch)) => {
                if events.send(Event::Batch { from, batch }).await.is_err() {
                    return;
                }
            }
            Some(Err(_)) => {
                metrics.messages_received_total.with_label_values(&["bad_transaction"]).inc();
                links.report(from, Offence::BadSignature);
            }
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use http_body_util::Full;
    use node_api::{
        proto::Frame,
        transactions::{TransferTerms, transfer},
    };
    use node_core::{
        codec::Encode as _,
        types::{Amount, Batch, Hash, Height, Identity, Incarnation, Nonce, PeerMessage},
    };
    use prost::{
        Message as _,
        bytes::{BufMut as _, Bytes, BytesMut},
    };
    use tokio::sync::{mpsc, watch};
    use tokio_util::sync::CancellationToken;
    use tonic::{
        Status, Streaming,
        codec::{DecodeBuf, Decoder},
    };

    use super::{Event, Inbox, ReadsRecords, Receivers};
    use crate::{
        adapters::p2p::{Conduct, Links, RecordInbox, links::Side},
        devnet::accounts,
        metrics::Metrics,
        shell::verifier::Verifier,
    };

    struct Frames;

    impl Decoder for Frames {
        type Item = Frame;
        type Error = Status;

        fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
            Frame::decode(source).map(Some).map_err(|error| Status::internal(error.to_string()))
        }
    }

    /// A stream as a peer sends it.
    fn stream(messages: &[PeerMessage]) -> Streaming<Frame> {
        let mut bytes = BytesMut::new();
        for message in messages {
            let frame = Frame { body: message.encode().into() }.encode_to_vec();
            bytes.put_u8(0);
            bytes.put_u32(u32::try_from(frame.len()).expect("it is short"));
            bytes.put_slice(&frame);
        }
        Streaming::new_request(Frames, Full::<Bytes>::new(bytes.freeze()), None, None)
    }

    fn batch(number: u32) -> PeerMessage {
        let terms = TransferTerms {
            incarnation: Incarnation::from(Hash::ZERO),
            nonce: Nonce::new(0),
            valid_until: Height::new(100),
            to: accounts::account(0),
            amount: Amount::new(1),
        };
        let transaction = transfer(&accounts::key(number), &terms);
        PeerMessage::Batch(Arc::new(Batch::new(vec![transaction]).expect("it is one")))
    }

    #[tokio::test]
    async fn a_node_that_is_far_behind_drops_batches_before_it_verifies_them_and_takes_everything_else() {
        let metrics = Arc::new(Metrics::new().expect("the metrics register"));
        let links = Links::new(Arc::clone(&metrics), Conduct::new(BTreeSet::new(), watch::channel(None).1));
        let (events, mut heard) = mpsc::channel(64);
        let (records, _record_events) = RecordInbox::new();
        let receivers = Receivers { events, verifier: Verifier::start().expect("a thread"), records };
        let inbox = Inbox::new(receivers, &links, Arc::clone(&metrics), CancellationToken::new());
        let peer = Identity::new([1; 32]);
        let height = Height::new(30);
        for (tip, claimed, batches) in [(10, 26, 1), (10, 27, 0), (27, 27, 1)] {
            links.lag().set(Height::new(tip), Height::new(claimed));
            let (link, _frames) = links.open(peer, Side::Accepted).expect("there is room");
            inbox.receive(link, ReadsRecords::No, stream(&[batch(1), PeerMessage::Status { height }])).await;
            let (mut taken, mut statuses, mut changes) = (0, 0, 0);
            // A batch comes when it is verified; the two changes and the status are certain.
            while changes < 2 || statuses < 1 || taken < batches {
                match heard.recv().await.expect("the inbox is open") {
                    Event::Batch { .. } => taken += 1,
                    Event::Message { .. } => statuses += 1,
                    Event::Changed(_) => changes += 1,
                    Event::Transactions { .. } => {}
                }
            }
            assert_eq!(taken, batches, "at {tip} of {claimed}");
        }
        let dropped = metrics.messages_received_total.with_label_values(&["behind"]).get();
        assert_eq!(dropped, 1);
    }
}
