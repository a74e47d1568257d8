//! One backend with its connection: made by whoever keeps it, shared by all calls, known to have ended as soon as it has.
//!
//! The channel of a connection never connects anew. It would do so with the calls that wait for it in a queue, and while
//! nobody is at the other end each would wait a whole connect timeout after the one before.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use node_api::{
    client::{Client, ClientError, ClientOptions},
    tls::{Ending, Expected, OnceDialer, TcpDialer, TlsDialer, TlsStore},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::{ConnectError, Status};

use crate::gateway::rules::probes::TIMEOUT_MS;

/// Pause before a quiet connection is asked for a sign of life, and longest wait for it: what is in flight to a node whose
/// machine is gone can be sent again within half of the time that a caller has.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Longest wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// A connection to a node.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The calls over it.
    pub client: Client,
    ending: Ending,
    blamed: Arc<AtomicBool>,
}

impl Connection {
    /// Whether calls can still be sent.
    pub fn is_open(&self) -> bool {
        !self.ending.has_come()
    }

    /// True the first time: what several calls lose with one connection is one fault.
    pub fn blame(&self) -> bool {
        !self.blamed.swap(true, Ordering::Relaxed)
    }
}

/// What there is to call.
#[derive(Clone, Debug)]
enum Link {
    /// Nothing yet.
    Unmade,
    /// A connection, which may have ended.
    Made(Connection),
    /// Nothing, as the last try has shown.
    Failed(Arc<str>),
}

impl Link {
    fn open(&self) -> Option<Connection> {
        match self {
            Self::Made(connection) => Some(connection).filter(|connection| connection.is_open()).cloned(),
            Self::Unmade | Self::Failed(_) => None,
        }
    }
}

/// A node, as one tier knows it.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub address: SocketAddr,
    tls: Arc<TlsStore>,
    expected: Expected,
    link: watch::Sender<Link>,
    wanted: Notify,
    gone: CancellationToken,
}

impl Node {
    /// A node without connection.
    pub fn new(address: SocketAddr, tls: Arc<TlsStore>, expected: Expected) -> Self {
        let link = watch::Sender::new(Link::Unmade);
        Self { address, tls, expected, link, wanted: Notify::new(), gone: CancellationToken::new() }
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        matches!(&*self.link.borrow(), Link::Made(connection) if connection.is_open())
    }

    /// The connection, or why there is none: for a call, which waits for the try that is under way or begins now. All that
    /// wait have its result at one time.
    pub async fn connection(&self) -> Result<Connection, Status> {
        let mut link = self.link.subscribe();
        if let Some(connection) = link.borrow_and_update().open() {
            return Ok(connection);
        }
        self.wanted.notify_one();
        loop {
            tokio::select! {
                () = self.gone.cancelled() => return Err(unsent("the backend is gone")),
                // The sender is this node's own.
                _ = link.changed() => {}
            }
            match &*link.borrow_and_update() {
                Link::Unmade => {}
                Link::Made(connection) => return Ok(connection.clone()),
                Link::Failed(reason) => return Err(unsent(reason)),
            }
        }
    }

    /// The connection, made if there is none: for the one who keeps it.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let open = self.link.borrow().open();
        if let Some(connection) = open {
            return Ok(connection);
        }
        let (dialer, ending) = OnceDialer::new(TcpDialer::new(self.address.to_string()));
        let dialer = TlsDialer::new(dialer, Arc::clone(&self.tls), self.expected.clone());
        let options = ClientOptions {
            connect_timeout: CONNECT_TIME_MAX,
            deadline: Duration::from_millis(TIMEOUT_MS),
            keep_alive: KEEP_ALIVE,
            trace: None,
        };
        let result = Client::connect(dialer, options).await;
        let result = result.map(|client| Connection { client, ending, blamed: Arc::default() });
        self.link.send_replace(match &result {
            Ok(connection) => Link::Made(connection.clone()),
            Err(error) => Link::Failed(error.to_string().into()),
        });
        result
    }

    /// Waits until its connection has ended; for ever while there is none.
    pub async fn ended(&self) {
        let ending = match &*self.link.borrow() {
            Link::Made(connection) => Some(connection.ending.clone()),
            Link::Unmade | Link::Failed(_) => None,
        };
        match ending {
            Some(mut ending) => ending.come().await,
            None => std::future::pending().await,
        }
    }

    /// Lets go of a connection that has ended.
    pub fn forget(&self) {
        if !self.is_connected() {
            self.link.send_replace(Link::Unmade);
        }
    }

    /// Waits until a call wants a connection.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Nobody keeps it any more: its name does not name it.
    pub fn leave(&self) {
        self.gone.cancel();
        self.link.send_replace(Link::Unmade);
    }

    /// Waits until nobody keeps it any more.
    pub async fn left(&self) {
        self.gone.cancelled().await;
    }
}

/// A call that never left.
fn unsent(reason: &str) -> Status {
    Status::from_error(Box::new(ConnectError(reason.into())))
}
