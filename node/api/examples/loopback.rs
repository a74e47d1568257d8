//! Makes an authority, serves a node's status over mutual TLS on a loopback port, and asks for it as an operator.
//!
//! ```text
//! cargo run -p node-api --example loopback
//! ```

use std::error::Error;

use futures::StreamExt;
use node_api::{
    authorize::AuthorizeLayer,
    client::{Client, ClientOptions},
    keys,
    pki::{CertificateAuthority, Validity},
    proto::{self, node_server::NodeServer},
    roles::{NodeRole, Role, SpiffeId},
    tls::{AcceptLimits, Expected, PeerInfo, TlsPem, TlsStore, incoming},
};
use node_core::types::{ChainId, Identity};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::Server};

/// 2000 to 2100.
const YEARS: (u64, u64) = (946_684_800, 4_102_444_800);

struct Node;

#[tonic::async_trait]
impl proto::node_server::Node for Node {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        if let Some(peer) = request.extensions().get::<PeerInfo>() {
            println!("the node is asked by {}", peer.id);
        }
        Ok(Response::new(proto::GetStatusResponse { state_reason: "an example".to_owned(), ..Default::default() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let chain_id = ChainId::new("example")?;
    let validity = Validity::new(YEARS.0, YEARS.1)?;
    let authority = CertificateAuthority::generate("example", validity)?;
    let store = |id: &SpiffeId| -> Result<_, Box<dyn Error>> {
        let issued = authority.issue(id, validity)?;
        Ok(TlsStore::from_pem(&TlsPem::from_issued(&issued, authority.certificate_pem()))?)
    };

    let identity = Identity::new(keys::generate()?.public());
    let node = store(&SpiffeId::node(&chain_id, NodeRole::Validator, &identity))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let connections = incoming(listener, node, AcceptLimits::default()).boxed();
    let server = Server::builder().layer(AuthorizeLayer).add_service(NodeServer::new(Node));
    let serving = tokio::spawn(server.serve_with_incoming(connections));

    let operator = store(&SpiffeId::new(&chain_id, Role::Operator, "example-operator")?)?;
    let expected = Expected::node(&chain_id, &identity);
    let client = Client::connect_tcp(&address, operator.clone(), expected, ClientOptions::default()).await?;
    println!("the operator reads: {}", client.status().await?.state_reason);

    let other = Expected::node(&chain_id, &Identity::new([1; 32]));
    if let Err(error) = Client::connect_tcp(&address, operator, other, ClientOptions::default()).await {
        println!("{error}");
    }
    serving.abort();
    Ok(())
}
