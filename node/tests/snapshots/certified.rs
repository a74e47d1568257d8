//! A chain whose headers and certificates are as they are on a running network, so that its states can be proved.

use std::sync::Arc;

use althing_node::adapters::storage::{BlockLog, Milestones, Prover, QmdbStore, keep_milestone};
use node_core::{
    crypto::{KeyPair, RotationTerms, SigningBytes},
    ledger::{apply_block, apply_genesis, snapshot},
    types::{
        AccountId, Amount, Batch, Block, CeremonyNonce, CertifiedBlock, ChainId, CommitCertificate, CommitSignature,
        Epoch, Genesis, GenesisDraft, GenesisVoter, Governance, GovernanceKey, Hash, Header, Height, Identity,
        Incarnation, Nonce, Parameters, ParametersDraft, Payload, Power, RotateSession, Round, SessionKey, TimeMs,
        Transaction, TransactionBody, TransactionSignature, Transfer, UnsignedVote, VoteKind, VoterEntry, VoterSet,
        voters_hash,
    },
};

fn pair(name: &str) -> KeyPair {
    KeyPair::from_seed(*Hash::tagged("storage test key", name.as_bytes()).as_bytes())
}

fn identity(n: u64) -> Identity {
    Identity::new(pair(&format!("identity {n}")).public())
}

fn session(n: u64, epoch: u64) -> KeyPair {
    pair(&format!("session {n} {epoch}"))
}

/// Four voters, and many accounts, so that a state has more than one piece.
pub fn genesis(name: &str) -> Genesis {
    let (chain_id, ceremony) = (ChainId::new(name).unwrap(), CeremonyNonce::new([7; 32]));
    let voter = |n: u64| {
        let (identity, session_key) = (identity(n), SessionKey::new(session(n, 1).public()));
        let bytes = SigningBytes::genesis_possession(&chain_id, &ceremony, &identity, &session_key);
        let entry = VoterEntry { identity, power: Power::new(1), session_key, epoch: Epoch::FIRST };
        GenesisVoter { entry, possession: session(n, 1).sign(&bytes) }
    };
    let mut accounts: Vec<_> = (0..600u64).map(|n| (account(n), Amount::new(n + 1))).collect();
    accounts.push((AccountId::new(pair("rich").public()), Amount::new(1_000_000)));
    Genesis::new(GenesisDraft {
        chain_id: chain_id.clone(),
        time: TimeMs::new(1_790_000_000_000),
        protocol_version: 1,
        state_version: 1,
        ceremony,
        voters: (0..4).map(voter).collect(),
        accounts,
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(pair("governance").public())] },
        parameters: Parameters::new(ParametersDraft::default()).unwrap(),
    })
    .unwrap()
}

fn account(n: u64) -> AccountId {
    AccountId::new(*Hash::tagged("storage test account", &n.to_be_bytes()).as_bytes())
}

fn signed(body: TransactionBody, key: &KeyPair) -> Transaction {
    let signature = key.sign(&SigningBytes::transaction(&body));
    Transaction::new(body, vec![TransactionSignature { key: key.public(), signature }]).unwrap()
}

fn transfer(incarnation: Incarnation, nonce: u64) -> Transaction {
    let payload = Payload::Transfer(Transfer { to: account(nonce % 600), amount: Amount::new(1) });
    let (sender, nonce) = (AccountId::new(pair("rich").public()), Nonce::new(nonce));
    let body = TransactionBody { incarnation, sender, nonce, valid_until: Height::new(10_000), payload };
    signed(body, &pair("rich"))
}

fn rotation(incarnation: Incarnation, n: u64, height: u64) -> Transaction {
    let valid_until = Height::new(height + 20);
    let new_key = SessionKey::new(session(n, 2).public());
    let terms = RotationTerms { incarnation, identity: identity(n), epoch: Epoch::new(2), new_key, valid_until };
    let payload = Payload::RotateSession(RotateSession {
        identity: terms.identity,
        epoch: terms.epoch,
        new_key,
        possession: session(n, 2).sign(&SigningBytes::rotation_possession(&terms)),
        co_signature: Some(session(n, 1).sign(&SigningBytes::rotate_session(&terms))),
    });
    let (sender, nonce) = (terms.identity.into(), Nonce::ZERO);
    let body = TransactionBody { incarnation, sender, nonce, valid_until, payload };
    signed(body, &pair(&format!("identity {n}")))
}

fn certificate(incarnation: &Incarnation, block: &Block, voters: &VoterSet) -> CommitCertificate {
    let (height, value) = (block.header().height, block.hash());
    let sign = |n: u64| {
        let entry = voters.get(&identity(n)).unwrap();
        let kind = VoteKind::Precommit;
        let vote = UnsignedVote { kind, height, round: Round::ZERO, value: Some(value), voter: entry.identity };
        let bytes = SigningBytes::vote(incarnation, entry.epoch, &vote);
        let signature = session(n, entry.epoch.get()).sign(&bytes);
        CommitSignature { voter: entry.identity, epoch: entry.epoch, signature }
    };
    CommitCertificate::new(height, Round::ZERO, value, (0..3).map(sign).collect()).unwrap()
}

/// One node of the chain, with everything on a volume.
pub struct Node {
    pub genesis: Arc<Genesis>,
    pub store: QmdbStore,
    pub blocks: BlockLog,
    pub milestones: Milestones,
}

impl Node {
    pub fn open(data: &std::path::Path, genesis: &Genesis) -> Self {
        let mut store = QmdbStore::open(&data.join("state")).unwrap();
        apply_genesis(&mut store, genesis).unwrap();
        let blocks = BlockLog::open(&data.join("blocks")).unwrap();
        let milestones = Milestones::open(&data.join("light")).unwrap();
        Self { genesis: Arc::new(genesis.clone()), store, blocks, milestones }
    }

    /// The next block of the chain: a transfer, and from time to time a rotation, so that all voters change their keys.
    pub fn make(&self) -> CertifiedBlock {
        let before = snapshot(&self.store).unwrap().unwrap();
        let incarnation = self.genesis.incarnation();
        let height = before.progress.height.get() + 1;
        let mut transactions = vec![transfer(incarnation, height - 1)];
        if height % 4 == 2 && height < 16 {
            transactions.push(rotation(incarnation, height / 4, height));
        }
        let batch = Batch::new(transactions).unwrap();
        let header = Header {
            height: Height::new(height),
            round: Round::ZERO,
            parent: before.progress.block,
            proposer: identity(0),
            time: TimeMs::new(1_790_000_000_000 + height),
            batches: vec![batch.digest()],
            voters_hash: voters_hash(&before.sets.first, &before.sets.second),
            results: before.progress.results_before,
            parameters_hash: self.genesis.parameters.hash(),
        };
        let block = Block::new(header, vec![batch]).unwrap();
        let certificate = certificate(&incarnation, &block, &before.sets.first);
        CertifiedBlock { block, certificate }
    }

    /// Takes a block as a running node does: first the log, then the change of voters, then the state.
    pub fn take(&mut self, block: &CertifiedBlock) {
        self.blocks.append(&block.block, &block.certificate).unwrap();
        keep_milestone(&self.store, &self.milestones, block).unwrap();
        apply_block(&mut self.store, &block.block).unwrap();
    }

    pub fn run_to(&mut self, height: u64) {
        while self.blocks.last_height().unwrap_or_default().get() < height {
            let block = self.make();
            self.take(&block);
        }
    }

    pub fn prover(&self) -> Prover {
        let (genesis, milestones) = (Arc::clone(&self.genesis), self.milestones.clone());
        Prover { genesis, blocks: self.blocks.reader(), milestones }
    }
}
