//! A short chain to store: genesis with four voters, blocks with transfers, certificates that nobody verifies.

use node_core::{
    crypto::KeyPair,
    ledger::{apply_block, apply_genesis, snapshot},
    types::{
        AccountId, Amount, Batch, Block, CeremonyNonce, CertifiedBlock, ChainId, CommitCertificate, CommitSignature,
        Epoch, Genesis, GenesisDraft, GenesisVoter, Governance, GovernanceKey, Hash, Header, Height, Identity,
        Incarnation, Nonce, Parameters, ParametersDraft, Payload, Power, Results, Round, SessionKey, Signature, TimeMs,
        Transaction, TransactionBody, TransactionSignature, Transfer, VoterEntry, voters_hash,
    },
};

use crate::adapters::storage::QmdbStore;

/// A genesis of four voters with equal power and one rich account.
pub fn genesis() -> Genesis {
    let voters = (1..=4)
        .map(|seed| GenesisVoter {
            entry: VoterEntry {
                identity: Identity::new(key(seed)),
                power: Power::new(1),
                session_key: SessionKey::new(key(seed + 100)),
                epoch: Epoch::FIRST,
            },
            possession: Signature::new([seed; 64]),
        })
        .collect();
    Genesis::new(GenesisDraft {
        chain_id: ChainId::new("storage-test").unwrap(),
        time: TimeMs::new(1_700_000_000_000),
        protocol_version: 1,
        state_version: 1,
        ceremony: CeremonyNonce::new([7; 32]),
        voters,
        accounts: vec![(rich(), Amount::new(1_000_000))],
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(key(200))] },
        parameters: Parameters::new(ParametersDraft::default()).unwrap(),
    })
    .unwrap()
}

/// The blocks 1 to `count` of a chain; block h moves h coins to the account of its number. They name no results.
pub fn blocks(genesis: &Genesis, count: u64) -> Vec<CertifiedBlock> {
    let mut parent = genesis.hash();
    (1..=count)
        .map(|height| {
            let block = certified(block(genesis, height, parent, Results::NONE));
            parent = block.block.hash();
            block
        })
        .collect()
}

/// The same blocks as they are when a node runs: executed one by one, each naming the results of two heights before.
pub fn run(store: &mut QmdbStore, genesis: &Genesis, count: u64) -> Vec<CertifiedBlock> {
    apply_genesis(store, genesis).unwrap();
    let mut parent = genesis.hash();
    (1..=count)
        .map(|height| {
            let two_before = snapshot(store).unwrap().unwrap().progress.results_before;
            let block = certified(block(genesis, height, parent, two_before));
            parent = block.block.hash();
            apply_block(store, &block.block).unwrap();
            block
        })
        .collect()
}

/// The account that pays.
pub fn rich() -> AccountId {
    AccountId::new(key(50))
}

/// The account that block `height` pays.
pub fn paid(height: u64) -> AccountId {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&height.to_be_bytes());
    AccountId::new(bytes)
}

/// A transaction that belongs to no chain.
pub fn transaction(height: u64) -> Transaction {
    transfer(Hash::ZERO.into(), height + 1)
}

fn transfer(incarnation: Incarnation, height: u64) -> Transaction {
    let body = TransactionBody {
        incarnation,
        sender: rich(),
        nonce: Nonce::new(height - 1),
        valid_until: Height::new(height + 10),
        payload: Payload::Transfer(Transfer { to: paid(height), amount: Amount::new(height) }),
    };
    let signature = TransactionSignature { key: key(50), signature: Signature::new([height as u8; 64]) };
    Transaction::new(body, vec![signature]).unwrap()
}

fn block(genesis: &Genesis, height: u64, parent: Hash, results: Results) -> Block {
    let batch = Batch::new(vec![transfer(genesis.incarnation(), height)]).unwrap();
    let header = Header {
        height: Height::new(height),
        round: Round::new(0),
        parent,
        proposer: Identity::new(key(1)),
        time: TimeMs::new(1_700_000_000_000 + height * 1_000),
        batches: vec![batch.digest()],
        voters_hash: voters_hash(genesis.voter_set(), genesis.voter_set()),
        results,
        parameters_hash: genesis.parameters.hash(),
    };
    Block::new(header, vec![batch]).unwrap()
}

pub fn certified(block: Block) -> CertifiedBlock {
    let signatures = (1..=3)
        .map(|seed| CommitSignature {
            voter: Identity::new(key(seed)),
            epoch: Epoch::FIRST,
            signature: Signature::new([seed; 64]),
        })
        .collect();
    let certificate = CommitCertificate::new(block.header().height, Round::new(0), block.hash(), signatures).unwrap();
    CertifiedBlock { block, certificate }
}

fn key(seed: u8) -> [u8; 32] {
    KeyPair::from_seed([seed; 32]).public()
}
