//! `Events`: what each final block means, from the log of events.

use std::{collections::VecDeque, pin::Pin};

use futures::{Stream, stream};
use node_api::{
    events::{EVENTS_PER_MESSAGE_MAX, id_from_proto},
    proto::{self, StreamEventsResponse, events_server::Events},
};
use node_core::{events::EventId, types::Height};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    adapters::storage::{EventReader, StorageError},
    shell::handle::{ChainAccess, Handle},
};

/// Groups in one request.
const GROUPS_MAX: usize = 16;

/// The service.
#[derive(Clone, Debug)]
pub struct EventsService {
    handle: Handle,
}

impl EventsService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<StreamEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Events for EventsService {
    type StreamEventsStream = EventStream;

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let chain = self.handle.chain()?;
        let reader = chain.events.clone().ok_or_else(|| {
            Status::failed_precondition("this node keeps no events: ask an observer, or set storage.events")
        })?;
        let proto::StreamEventsRequest { from, groups, until_newest } = request.into_inner();
        let groups = wanted_groups(&groups)?;
        let oldest = oldest(&reader, chain);
        let next = match from.map(id_from_proto) {
            None => oldest,
            Some(from) if from.height == Height::ZERO => {
                return Err(Status::invalid_argument("heights begin with 1: leave `from` out for the oldest event"));
            }
            Some(from) if from.height < oldest.height => return Err(too_old(from, oldest)),
            Some(from) => from,
        };
        let last = until_newest.then(|| chain.height());
        let follow = Follow {
            reader,
            heights: chain.heights(),
            chain: chain.clone(),
            next,
            last,
            groups,
            ready: VecDeque::new(),
        };
        // The stream ends after the first error: there must be no gap.
        let events = stream::unfold(Some(follow), |follow| async move {
            let mut follow = follow?;
            match follow.next_message().await {
                Ok(Some(message)) => Some((Ok(message), Some(follow))),
                Ok(None) => None,
                Err(status) => Some((Err(*status), None)),
            }
        });
        Ok(Response::new(Box::pin(events)))
    }
}

/// A follower: it holds the events of one height at most.
struct Follow {
    reader: EventReader,
    chain: ChainAccess,
    heights: watch::Receiver<Height>,
    next: EventId,
    /// Where it ends.
    last: Option<Height>,
    /// All if there are none.
    groups: Vec<i32>,
    ready: VecDeque<StreamEventsResponse>,
}

impl Follow {
    /// The next message; nothing at the end, or when the node stops.
    async fn next_message(&mut self) -> Result<Option<StreamEventsResponse>, Box<Status>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let EventId { height, index } = self.next;
            if self.last.is_some_and(|last| height > last) {
                return Ok(None);
            }
            // Events are durable before the block counts as executed.
            if self.heights.wait_for(|newest| *newest >= height).await.is_err() {
                return Ok(None);
            }
            let reader = self.reader.clone();
            // A read that was interrupted is a shutdown: nobody waits for the events.
            let read = tokio::task::spawn_blocking(move || reader.read(height)).await.unwrap_or(Ok(None));
            let events = read.map_err(|error| Box::new(unreadable(&error)))?;
            let events = events.ok_or_else(|| Box::new(too_old(self.next, oldest(&self.reader, &self.chain))))?;
            self.ready = messages(events, index, &self.groups);
            self.next = EventId { height: height.next(), index: 0 };
        }
    }
}

/// The wanted ones of the events of a height, in messages.
fn messages(events: Vec<proto::Event>, index: u32, groups: &[i32]) -> VecDeque<StreamEventsResponse> {
    let skipped = usize::try_from(index).unwrap_or(usize::MAX);
    let wanted = |event: &proto::Event| groups.is_empty() || groups.contains(&event.group);
    let mut wanted = events.into_iter().skip(skipped).filter(wanted).peekable();
    let mut messages = VecDeque::new();
    while wanted.peek().is_some() {
        messages.push_back(StreamEventsResponse { events: wanted.by_ref().take(EVENTS_PER_MESSAGE_MAX).collect() });
    }
    messages
}

fn wanted_groups(groups: &[i32]) -> Result<Vec<i32>, Status> {
    let known =
        |group: &i32| proto::EventGroup::try_from(*group).is_ok_and(|group| group != proto::EventGroup::Unspecified);
    if groups.len() > GROUPS_MAX {
        return Err(Status::invalid_argument(format!("{} groups, at most {GROUPS_MAX}", groups.len())));
    }
    match groups.iter().find(|group| !known(group)) {
        Some(unknown) => Err(Status::invalid_argument(format!("there is no group of events {unknown}"))),
        None => Ok(groups.to_vec()),
    }
}

/// The oldest event here; while there is none, the first of the next height.
fn oldest(reader: &EventReader, chain: &ChainAccess) -> EventId {
    EventId { height: reader.first_height().unwrap_or_else(|| chain.height().next()), index: 0 }
}

fn too_old(asked: EventId, oldest: EventId) -> Status {
    Status::out_of_range(format!("event {asked} is not kept here: the oldest is {oldest}"))
}

fn unreadable(error: &StorageError) -> Status {
    tracing::error!(%error, "the events cannot be read");
    if error.is_damage() { Status::data_loss(error.to_string()) } else { Status::internal(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use node_api::proto::{self, EventGroup};

    use super::{messages, wanted_groups};

    fn event(index: u32, group: EventGroup) -> proto::Event {
        proto::Event { id: Some(proto::EventId { height: 7, index }), group: group.into(), ..Default::default() }
    }

    fn ids(messages: impl IntoIterator<Item = proto::StreamEventsResponse>) -> Vec<Vec<u32>> {
        let index = |event: proto::Event| event.id.map_or(u32::MAX, |id| id.index);
        messages.into_iter().map(|message| message.events.into_iter().map(index).collect()).collect()
    }

    #[test]
    fn a_message_holds_a_thousand_events_at_most_and_none_is_empty() {
        let events = || (0..2_500).map(|index| event(index, EventGroup::Transaction)).collect::<Vec<_>>();
        let all = ids(messages(events(), 0, &[]));
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(all.concat(), (0..2_500).collect::<Vec<_>>());
        assert_eq!(ids(messages(events(), 0, &[EventGroup::Network.into()])), Vec::<Vec<u32>>::new());
        assert_eq!(ids(messages(events(), u32::MAX, &[])), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn a_group_and_a_place_leave_the_ids_as_they_are() {
        let groups = [EventGroup::Block, EventGroup::Transaction, EventGroup::Network, EventGroup::Block];
        let events = (0..).zip(groups).map(|(index, group)| event(index, group)).collect();
        assert_eq!(ids(messages(events, 1, &[EventGroup::Block.into(), EventGroup::Network.into()])), [[2, 3]]);
    }

    #[test]
    fn a_group_that_does_not_exist_is_refused() {
        assert_eq!(wanted_groups(&[1, 5]).expect("both exist"), [1, 5]);
        assert!(wanted_groups(&[0]).is_err() && wanted_groups(&[6]).is_err() && wanted_groups(&[1; 17]).is_err());
    }
}
