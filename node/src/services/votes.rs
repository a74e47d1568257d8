//! `Votes`: every proposal and vote that this node receives or makes, for watchers.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use node_api::proto::{self, vote_event::Event, votes_server::Votes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::{Request, Response, Status};

use crate::shell::handle::Handle;

/// Watchers at a time.
const WATCHERS_MAX: usize = 16;

/// The service.
#[derive(Clone, Debug)]
pub struct VotesService {
    handle: Handle,
    places: Arc<Semaphore>,
}

impl VotesService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle, places: Arc::new(Semaphore::new(WATCHERS_MAX)) }
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<proto::VoteEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Votes for VotesService {
    type StreamVotesStream = EventStream;

    async fn stream_votes(
        &self,
        _request: Request<proto::StreamVotesRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let place: OwnedSemaphorePermit = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted(format!("{WATCHERS_MAX} watchers are connected")))?;
        let votes = BroadcastStream::new(self.handle.watch_votes());
        let height = self.handle.chain().map_or(0, |chain| chain.height().get());
        let started = proto::WatchStarted { height, reporter: self.handle.identity().as_bytes().to_vec() };
        let events = votes.map(move |vote| {
            // The place is taken for as long as the stream lives.
            let _held = &place;
            event(match vote {
                Ok(vote) => Event::Vote(proto::SeenVote::clone(&vote)),
                Err(BroadcastStreamRecvError::Lagged(events)) => Event::Missed(proto::MissedVotes { events }),
            })
        });
        Ok(Response::new(Box::pin(stream::iter([event(Event::Started(started))]).chain(events))))
    }
}

fn event(event: Event) -> Result<proto::VoteEvent, Status> {
    Ok(proto::VoteEvent { event: Some(event) })
}
