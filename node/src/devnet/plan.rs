//! The files of a development network: authority, certificates, identities and configurations.
//!
//! ```text
//! <directory>/ca.crt ca.key
//! <directory>/operator/{tls.crt,tls.key,ca.crt}     certificate of role operator, for the ceremony
//! <directory>/client/{tls.crt,tls.key,ca.crt}       certificate of role client, for `tx` and `status`
//! <directory>/gateway/{tls.crt,tls.key,ca.crt}      certificate of role gateway, for a gateway before these nodes
//! <directory>/node-<n>/{node.yaml,identity.pem,tls/,data/,log.jsonl}
//! <directory>/governance.pem                        the governance key
//! <directory>/genesis.json                          the genesis, once it is made
//! <directory>/accounts/<n>.pem                      development accounts with known keys
//! <directory>/devnet.json                           what the network offers, for programs
//! ```

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use node_api::{
    config::{
        CONFIG_VERSION, ConfigError, Instance, Listen, LogLevel, NodeConfig, NodeRole, P2p, Peer, StateSync, Storage,
    },
    keys::{KeyFileError, write_key_file},
    pki::{CertificateAuthority, IssuedCertificate, PkiError, Validity},
    roles::{Role, SpiffeId, SpiffeIdError},
};
use node_core::{
    crypto::KeyPair,
    types::{ChainId, Identity, Uid},
};
use thiserror::Error;

use super::{accounts, ports::Ports};

/// Development certificates are valid for a year.
const VALIDITY_S: u64 = 365 * 24 * 3600;
/// The machine's clock may be a little behind when the next process reads the certificate.
const CLOCK_SLACK_S: u64 = 300;
/// Account keys that are written to files.
const ACCOUNT_FILES: u32 = 4;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// Where everything goes; made if it is not there.
    pub directory: PathBuf,
    /// Name of the chain.
    pub chain_id: ChainId,
    /// One entry for each node; the validators come first.
    pub ports: Vec<Ports>,
    /// How many of the nodes are observers: the last ones.
    pub observers: usize,
    /// How many validators, those before the observers, are not in genesis: they follow until they are voted in.
    pub candidates: usize,
    /// How talkative the nodes are.
    pub log_level: LogLevel,
}

/// A development network on disk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the chain.
    pub chain_id: ChainId,
    /// Certificate directory of role operator.
    pub operator: PathBuf,
    /// Certificate directory of role client.
    pub client: PathBuf,
    /// Certificate directory of role gateway.
    pub gateway: PathBuf,
    /// Directory of account keys.
    pub accounts: PathBuf,
    /// The genesis document, once there is one.
    pub genesis: PathBuf,
    /// The key file of the governance key, which everybody knows.
    pub governance: PathBuf,
    /// The nodes, in order of their numbers.
    pub nodes: Vec<PlannedNode>,
}

impl Plan {
    /// The nodes that vote from the start.
    pub fn validators(&self) -> impl Iterator<Item = &PlannedNode> {
        self.nodes.iter().filter(|node| node.role == NodeRole::Validator && !node.joins)
    }
}

/// One node of a development network.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// Whether it votes.
    pub role: NodeRole,
    /// It is not in genesis: it gets the document when it starts.
    pub joins: bool,
    /// Its identity.
    pub identity: Identity,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its log file.
    pub log: PathBuf,
    /// Where it listens.
    pub listen: Listen,
}

/// Why the files could not be made.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The directory holds a network already.
    #[error("{} holds a network already: remove it or choose another directory", .0.display())]
    Occupied(PathBuf),
    /// A file could not be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key file could not be written.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A certificate could not be made.
    #[error("failed to make a certificate")]
    Certificate(#[from] PkiError),
    /// A name cannot stand in a certificate.
    #[error("failed to name a certificate")]
    Name(#[from] SpiffeIdError),
    /// A configuration is not valid.
    #[error("failed to make a configuration")]
    Config(#[from] ConfigError),
}

/// Writes the files of a new network.
pub fn write(request: &PlanRequest) -> Result<Plan, PlanError> {
    let PlanRequest { directory, chain_id, ports, observers, candidates, log_level } = request;
    if directory.join("devnet.json").exists() || directory.join("ca.key").exists() {
        return Err(PlanError::Occupied(directory.clone()));
    }
    let writer = Writer::new(directory, chain_id)?;
    let identities: Vec<KeyPair> = ports.iter().map(|_| KeyPair::from_seed(rand::random())).collect();
    let nodes_that_vote = ports.len().saturating_sub(*observers);
    let validators = nodes_that_vote.saturating_sub(*candidates);
    // Everybody dials the validators of genesis; nobody dials the others, which are connected to all of them so.
    let voting = identities.iter().zip(ports).take(validators);
    let peers: Vec<Peer> = voting.map(|(key, ports)| peer(key, *ports)).collect();
    let mut nodes = Vec::new();
    for (number, (key, ports)) in identities.iter().zip(ports).enumerate() {
        let role = if number < nodes_that_vote { NodeRole::Validator } else { NodeRole::Observer };
        let joins = number >= validators;
        let request = NodeRequest { number, role, joins, key, ports: *ports, peers: &peers, log_level: *log_level };
        nodes.push(writer.node(&request)?);
    }
    let operator = directory.join("operator");
    writer.certificate(&operator, Role::Operator, "devnet")?;
    let client = directory.join("client");
    writer.certificate(&client, Role::Client, "devnet")?;
    let gateway = directory.join("gateway");
    writer.certificate(&gateway, Role::Gateway, "devnet")?;
    let accounts = directory.join("accounts");
    make_directory(&accounts)?;
    for number in 0..ACCOUNT_FILES {
        write_key_file(&accounts.join(format!("{number}.pem")), &accounts::key(number))?;
    }
    let governance = directory.join("governance.pem");
    write_key_file(&governance, &accounts::governance_key())?;
    let genesis = directory.join("genesis.json");
    Ok(Plan { chain_id: chain_id.clone(), operator, client, gateway, accounts, genesis, governance, nodes })
}

struct NodeRequest<'a> {
    number: usize,
    role: NodeRole,
    joins: bool,
    key: &'a KeyPair,
    ports: Ports,
    peers: &'a [Peer],
    log_level: LogLevel,
}

struct Writer<'a> {
    directory: &'a Path,
    chain_id: &'a ChainId,
    authority: CertificateAuthority,
    validity: Validity,
}

impl<'a> Writer<'a> {
    fn new(directory: &'a Path, chain_id: &'a ChainId) -> Result<Self, PlanError> {
        make_directory(directory)?;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let validity = Validity::new(now_s.saturating_sub(CLOCK_SLACK_S), now_s + VALIDITY_S)?;
        let authority = CertificateAuthority::generate(&format!("althing devnet {chain_id}"), validity)?;
        write_file(&directory.join("ca.crt"), authority.certificate_pem())?;
        write_secret(&directory.join("ca.key"), authority.key_pem())?;
        Ok(Self { directory, chain_id, authority, validity })
    }

    fn certificate(&self, directory: &Path, role: Role, name: &str) -> Result<(), PlanError> {
        let id = SpiffeId::new(self.chain_id, role, name)?;
        let IssuedCertificate { certificate_pem, key_pem, facts: _ } = self.authority.issue(&id, self.validity)?;
        make_directory(directory)?;
        write_file(&directory.join("tls.crt"), &certificate_pem)?;
        write_secret(&directory.join("tls.key"), &key_pem)?;
        write_file(&directory.join("ca.crt"), self.authority.certificate_pem())
    }

    fn node(&self, request: &NodeRequest<'_>) -> Result<PlannedNode, PlanError> {
        let NodeRequest { number, role, joins, key, ports, peers, log_level } = *request;
        let home = self.directory.join(format!("node-{number}"));
        make_directory(&home)?;
        let identity = Identity::new(key.public());
        let identity_file = home.join("identity.pem");
        write_key_file(&identity_file, key)?;
        let tls_directory = home.join("tls");
        self.certificate(&tls_directory, role.into(), &identity.to_string())?;
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listen = Listen { p2p: loopback(ports.p2p), grpc: loopback(ports.grpc), http: loopback(ports.http) };
        let config = NodeConfig {
            config_version: CONFIG_VERSION,
            chain_id: self.chain_id.clone(),
            role,
            identity_file,
            tls_directory,
            data_directory: home.join("data"),
            listen,
            peers: peers.iter().filter(|peer| peer.identity != identity).cloned().collect(),
            p2p: P2p::default(),
            instance: Instance::Standalone { id: Uid::new(rand::random()) },
            log_level,
            storage: Storage::default(),
            state_sync: StateSync::default(),
        };
        let path = home.join("node.yaml");
        write_file(&path, &config.to_yaml()?)?;
        Ok(PlannedNode { role, joins, identity, config: path, log: home.join("log.jsonl"), listen })
    }
}

fn peer(key: &KeyPair, ports: Ports) -> Peer {
    let address = format!("{}:{}", Ipv4Addr::LOCALHOST, ports.p2p);
    Peer {
        identity: Identity::new(key.public()),
        address: address.parse().expect("an IPv4 address and a port that is not 0 are an address"),
    }
}

fn make_directory(path: &Path) -> Result<(), PlanError> {
    fs::create_dir_all(path).map_err(|source| PlanError::Write { path: path.to_owned(), source })
}

fn write_file(path: &Path, text: &str) -> Result<(), PlanError> {
    fs::write(path, text).map_err(|source| PlanError::Write { path: path.to_owned(), source })
}

/// Readable by its owner only, from the first byte on.
fn write_secret(path: &Path, text: &str) -> Result<(), PlanError> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| PlanError::Write { path: path.to_owned(), source })
}
