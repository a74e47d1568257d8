//! A way to a node that can be lost: the connections on it stay open and carry nothing more, and nobody who comes is answered.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Whoever is on it hears nothing more, and does not learn why.
    Swallows,
    /// The same, and the connections that were on it are closed.
    Closed,
}

/// One of them. The kernel takes connections for as long as nobody listens, and their handshakes hang.
pub struct Strait {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    ferry: JoinHandle<()>,
}

impl Strait {
    /// The way to this address.
    pub async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let way = watch::Sender::new(Way::Open);
        let ferry = tokio::spawn(ferry(listener, node, way.subscribe()));
        Self { address, way, ferry }
    }

    pub fn swallow(&self) {
        self.way.send_replace(Way::Swallows);
    }

    pub fn close(&self) {
        self.way.send_replace(Way::Closed);
    }

    pub fn open(&self) {
        self.way.send_replace(Way::Open);
    }
}

impl Drop for Strait {
    fn drop(&mut self) {
        self.ferry.abort();
    }
}

async fn ferry(listener: TcpListener, node: SocketAddr, mut way: watch::Receiver<Way>) {
    let mut passages = JoinSet::new();
    loop {
        turns(&mut way, |way| way == Way::Open).await;
        let passing = way.clone();
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("a connection");
                passages.spawn(passage(stream, node, passing));
            }
            () = turns(&mut way, |way| way != Way::Open) => {}
        }
    }
}

async fn turns(way: &mut watch::Receiver<Way>, wanted: impl Fn(Way) -> bool) {
    // Whoever opens and closes it holds the sender, and ends the ferry first.
    let _ = way.wait_for(|way| wanted(*way)).await;
}

async fn passage(mut stream: TcpStream, node: SocketAddr, mut way: watch::Receiver<Way>) {
    let Ok(mut onward) = TcpStream::connect(node).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut stream, &mut onward) => return,
        () = turns(&mut way, |way| way != Way::Open) => {}
    }
    // What was lost stays lost when the way opens again.
    turns(&mut way, |way| way == Way::Closed).await;
}
