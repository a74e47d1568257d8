//! The way into a node's network: a unix socket on which each connection names an address, and listeners that use it.
//!
//! A caller connects to the socket, writes `host:port\n` and from then on talks to that address, dialed from inside
//! the node. Pod addresses and Service addresses work; names are not resolved. A connection that cannot be made is
//! closed without a word.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cgroups::{self, Part};
use crate::checkout::{Checkout, Node};
use crate::command::run;
use crate::error::{Doing, Error, Result};
use crate::interrupt::{Wait, wait_for};
use crate::{command, network};

/// Most connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 1024;
const ADDRESS_BYTES_MAX: u64 = 64;
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the relay of a node, as a process of its own that outlives this one.
///
/// # Errors
/// When it does not come up.
pub fn start(checkout: &Checkout, node: Node) -> Result<()> {
    let socket = checkout.relay(node);
    if UnixStream::connect(&socket).is_ok() {
        return Ok(());
    }
    let _ = std::fs::remove_file(&socket);
    let arguments = ["serve-relay".to_string(), socket.display().to_string()];
    launch(checkout, &format!("relay-{node}"), Some(node), &arguments)?;
    let hint = format!("see {}", checkout.log().join(format!("relay-{node}.log")).display());
    let wait = Wait { what: "the start of the relay", seconds_max: 5, every_ms: 10, hint: &hint };
    wait_for(wait, || Ok(UnixStream::connect(&socket).is_ok().then_some(())))
}

/// Starts the listener for the API server on 127.0.0.1 and returns its port: the checkout's own, or the next free one.
///
/// # Errors
/// When no port is free.
pub fn start_api_listener(checkout: &Checkout) -> Result<u16> {
    let first = checkout.api_port();
    let free = (first..first.saturating_add(50)).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let port = free.ok_or_else(|| Error::Refused(format!("no port of 127.0.0.1 from {first} on is free")))?;
    let listen = format!("127.0.0.1:{port}");
    let target = format!("{}:{}", network::address(Node::FIRST), network::API_PORT);
    let relay = checkout.relay(Node::FIRST).display().to_string();
    launch(checkout, "api-listener", None, &["serve-listener".to_string(), listen.clone(), relay, target])?;
    let wait = Wait {
        what: "the start of the listener for the API server",
        seconds_max: 5,
        every_ms: 10,
        hint: "see .cluster/log/api-listener.log",
    };
    wait_for(wait, || Ok(TcpStream::connect(&listen).is_ok().then_some(())))?;
    Ok(port)
}

/// Runs a relay in this process, for ever. It must have been started inside the node's network namespace.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket).doing("listen on", socket)?;
    let limit = Limit::default();
    for stream in listener.incoming().flatten() {
        let Some(place) = limit.enter() else { continue };
        std::thread::spawn(move || {
            let _place = place;
            answer(stream)
        });
    }
    Ok(())
}

/// Runs a listener in this process, for ever: each connection goes to `target` through the relay.
///
/// # Errors
/// When the address is taken.
pub fn serve_listener(listener: &TcpListener, relay: &Path, target: &str) -> Result<()> {
    let limit = Limit::default();
    for stream in listener.incoming().flatten() {
        let Some(place) = limit.enter() else { continue };
        let (relay, target) = (relay.to_path_buf(), target.to_string());
        std::thread::spawn(move || {
            let _place = place;
            let inside = dial(&relay, &target)?;
            pump(Stream::Tcp(stream), Stream::Unix(inside))
        });
    }
    Ok(())
}

/// Connects to an address inside the cluster.
///
/// # Errors
/// When the relay does not run. Whether the address answers shows only when one talks to it.
pub fn dial(relay: &Path, target: &str) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(relay)?;
    stream.write_all(format!("{target}\n").as_bytes())?;
    Ok(stream)
}

/// Starts this very program again as a daemon: on the host, or in the network namespace of a node.
fn launch(checkout: &Checkout, name: &str, node: Option<Node>, arguments: &[String]) -> Result<()> {
    let part = node.filter(|node| *node != Node::FIRST).map_or(Part::Host, Part::Node);
    let joins: Vec<String> = cgroups::make(checkout, part)?.iter().map(|file| file.display().to_string()).collect();
    let program = std::env::current_exe().doing("find", "this program")?;
    let script = r#"exec </dev/null >>"$LOG" 2>&1; for file in $CGROUPS; do echo 0 >"$file"; done; cd /; exec "$@""#;
    let mut start = node.map_or_else(|| command::command("env"), |node| network::inside(checkout, node));
    start.args(["setsid", "--fork", "sh", "-c", script, name]).arg(program).args(arguments);
    start.env("CGROUPS", joins.join(" ")).env("LOG", checkout.log().join(format!("{name}.log")));
    run(&mut start).map(drop)
}

/// Reads the address, byte by byte until the end of the line since what follows belongs to the address's owner.
fn answer(stream: UnixStream) -> std::io::Result<()> {
    let mut line = Vec::new();
    stream.set_read_timeout(Some(DIAL_TIMEOUT))?;
    BufReader::with_capacity(1, (&stream).take(ADDRESS_BYTES_MAX)).read_until(b'\n', &mut line)?;
    stream.set_read_timeout(None)?;
    let address = parse_address(&line).ok_or(std::io::ErrorKind::InvalidInput)?;
    let target = TcpStream::connect_timeout(&address, DIAL_TIMEOUT)?;
    pump(Stream::Tcp(target), Stream::Unix(stream))
}

fn parse_address(line: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.trim_end_matches('\r').parse().ok()
}

/// Either kind of stream; `io::copy` between two real streams lets the kernel move the bytes.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn clone(&self) -> std::io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    /// Copies until this side has no more, then tells the other.
    fn copy_to(&self, other: &Self) -> std::io::Result<()> {
        let copied = match (self, other) {
            (Self::Tcp(from), Self::Tcp(to)) => std::io::copy(&mut &*from, &mut &*to),
            (Self::Tcp(from), Self::Unix(to)) => std::io::copy(&mut &*from, &mut &*to),
            (Self::Unix(from), Self::Tcp(to)) => std::io::copy(&mut &*from, &mut &*to),
            (Self::Unix(from), Self::Unix(to)) => std::io::copy(&mut &*from, &mut &*to),
        };
        // A side that broke ends both directions, an end of data only its own.
        let (own, others) = match copied {
            Ok(_) => (Shutdown::Read, Shutdown::Write),
            Err(_) => (Shutdown::Both, Shutdown::Both),
        };
        let _ = self.shutdown(own);
        let _ = other.shutdown(others);
        copied.map(drop)
    }

    fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }
}

/// Moves bytes both ways until both sides have ended.
fn pump(one: Stream, two: Stream) -> std::io::Result<()> {
    for stream in [&one, &two] {
        if let Stream::Tcp(stream) = stream {
            stream.set_nodelay(true)?;
        }
    }
    let (one_again, two_again) = (one.clone()?, two.clone()?);
    let back = std::thread::spawn(move || two_again.copy_to(&one_again));
    let there = one.copy_to(&two);
    back.join().unwrap_or(Ok(())).and(there)
}

/// Counts connections.
#[derive(Default)]
struct Limit(Arc<AtomicUsize>);

/// One counted connection, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Limit {
    fn enter(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.0));
        (self.0.fetch_add(1, Ordering::SeqCst) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers what it got, backwards, once its caller has finished.
    fn backwards() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = Vec::new();
            stream.read_to_end(&mut text).unwrap();
            text.reverse();
            stream.write_all(&text).unwrap();
        });
        address
    }

    fn relay(folder: &Path) -> std::path::PathBuf {
        let socket = folder.join("relay.sock");
        let path = socket.clone();
        std::thread::spawn(move || serve(&path));
        while UnixStream::connect(&socket).is_err() {
            std::thread::yield_now();
        }
        socket
    }

    #[test]
    fn what_follows_the_address_reaches_its_owner_and_the_answer_comes_back_after_a_half_close() {
        let folder = tempfile::tempdir().unwrap();
        let socket = relay(folder.path());
        let mut stream = dial(&socket, &backwards().to_string()).unwrap();
        stream.write_all(b"stressed").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "desserts");
    }

    #[test]
    fn a_listener_leads_to_its_target_through_the_relay() {
        let folder = tempfile::tempdir().unwrap();
        let socket = relay(folder.path());
        let target = backwards().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve_listener(&listener, &socket, &target));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"drawer").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "reward");
    }

    #[test]
    fn a_connection_without_a_valid_address_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = relay(folder.path());
        let mut stream = dial(&socket, "a-name-without-meaning:80").unwrap();
        let mut answer = Vec::new();
        // Closed with or without a reset, but closed, and without an answer.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }

    #[test]
    fn an_address_is_one_line_of_host_and_port() {
        assert_eq!(parse_address(b"10.96.0.1:443\n"), Some("10.96.0.1:443".parse().unwrap()));
        for wrong in [&b"10.96.0.1:443"[..], b"10.96.0.1\n", b"\n", b"\xff\n", b""] {
            assert_eq!(parse_address(wrong), None);
        }
    }
}
