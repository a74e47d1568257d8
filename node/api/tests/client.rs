//! The client: traces, deadlines, errors and the relay.

mod loopback;

use std::time::Duration;

use loopback::{TestServer, authority, chain, id, identity, pem, store, validator};
use node_api::{
    client::{Client, ClientError, ClientOptions},
    roles::Role,
    tls::{Expected, OnceDialer, RelayDialer, TcpDialer, TlsDialer},
    trace::TraceParent,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener},
};
use tonic::Code;

#[tokio::test]
async fn calls_carry_the_trace_with_a_parent_of_their_own() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let client = server.client(store(&pem(&issuer, &id("demo", Role::Client, "user")))).await.expect("connects");
    let trace = TraceParent::start();
    let traced = client.with_trace(trace);
    let first: TraceParent = traced.status().await.expect("answers").commit.parse().expect("a traceparent");
    let second: TraceParent = traced.status().await.expect("answers").commit.parse().expect("a traceparent");
    assert_eq!((first.trace_id(), second.trace_id()), (trace.trace_id(), trace.trace_id()));
    assert_ne!(first, second);
    let untraced: TraceParent = client.status().await.expect("answers").commit.parse().expect("a traceparent");
    assert_ne!(untraced.trace_id(), trace.trace_id());
}

#[test]
fn only_a_well_formed_traceparent_is_read() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(good.parse::<TraceParent>().expect("well formed").to_string(), good);
    for bad in [
        "",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-1",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
    ] {
        assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_timeout_and_no_more() {
    let issuer = authority("demo");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("an address").to_string();
    let options = ClientOptions { connect_timeout: Duration::from_millis(50), ..ClientOptions::default() };
    let user = store(&pem(&issuer, &id("demo", Role::Client, "user")));
    let expected = Expected::node(&chain("demo"), &identity(1));
    let error = Client::connect_tcp(&address, user, expected, options).await.expect_err("no handshake");
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    drop(silent);
}

#[tokio::test]
async fn errors_say_who_was_asked_for_what() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let client = server.client(store(&pem(&issuer, &id("demo", Role::Client, "user")))).await.expect("connects");
    let error = client.validators().await.expect_err("this server has no such service");
    assert_eq!(error.code(), Some(Code::Unimplemented));
    assert!(
        error.to_string().starts_with(&format!("{} refused Validators.GetValidators: ", server.address)),
        "{error}"
    );
    let nobody = Client::connect_tcp(
        "127.0.0.1:1",
        store(&pem(&issuer, &id("demo", Role::Client, "user"))),
        Expected::any_server(&chain("demo")),
        ClientOptions::default(),
    );
    let error = nobody.await.expect_err("nobody listens").to_string();
    assert!(error.starts_with("failed to connect to 127.0.0.1:1: ") && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_node_is_reached_through_a_relay_on_a_unix_socket() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("relay.sock");
    let relay = UnixListener::bind(&socket).expect("a socket");
    let task = tokio::spawn(async move {
        let (stream, _) = relay.accept().await.expect("a connection");
        let mut stream = BufReader::new(stream);
        let mut target = String::new();
        stream.read_line(&mut target).await.expect("a line");
        let mut tcp = TcpStream::connect(target.trim_end()).await.expect("the target");
        tcp.write_all(stream.buffer()).await.expect("written");
        let _ = copy_bidirectional(stream.get_mut(), &mut tcp).await;
    });
    let dialer = RelayDialer::new(&socket, server.address.to_string());
    let user = store(&pem(&issuer, &id("demo", Role::Client, "user")));
    let dialer = TlsDialer::new(dialer, user, Expected::node(&chain("demo"), &identity(1)));
    let client = Client::connect(dialer, ClientOptions::default()).await.expect("connects");
    assert_eq!(client.status().await.expect("answers").state_reason, "spiffe://demo/client/user");
    task.abort();
}

#[tokio::test]
async fn a_client_that_dials_once_says_when_its_connection_has_ended_and_makes_no_other() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let address = server.address;
    let relay = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (dialer, mut ending) = OnceDialer::new(TcpDialer::new(relay.local_addr().expect("an address").to_string()));
    let through = tokio::spawn(async move {
        let (mut stream, _) = relay.accept().await.expect("a connection");
        let mut tcp = TcpStream::connect(address).await.expect("the server");
        let _ = copy_bidirectional(&mut stream, &mut tcp).await;
        relay
    });
    let user = store(&pem(&issuer, &id("demo", Role::Client, "user")));
    let dialer = TlsDialer::new(dialer, user, Expected::node(&chain("demo"), &identity(1)));
    let client = Client::connect(dialer, ClientOptions::default()).await.expect("connects");
    client.status().await.expect("answers");
    assert!(!ending.has_come());
    through.abort();
    assert!(through.await.is_err_and(|error| error.is_cancelled()), "the relay ends with its connection");
    ending.come().await;
    // Those that are sent before the client has seen the end are cut; the others find no connection.
    let mut last = String::new();
    for _ in 0..20 {
        let error = client.status().await.expect_err("there is no other connection");
        assert!(matches!(&error, ClientError::Unavailable { .. }), "{error}");
        last = error.to_string();
    }
    assert!(last.contains("the connection has ended"), "{last}");
}
