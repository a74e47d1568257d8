//! The chain's people: voters with their keys, accounts with theirs, and the genesis they start from.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use node_core::{
    crypto::{KeyPair, SigningBytes},
    mempool::TRANSFER_VALIDITY_BLOCKS_MAX,
    types::{
        AccountId, Amount, CeremonyNonce, ChainId, Epoch, Genesis, GenesisDraft, GenesisVoter, Governance,
        GovernanceKey, Hash, Height, Identity, Incarnation, ManifestSignature, Nonce, Parameters, ParametersDraft,
        Payload, Power, Recovery, RecoveryManifest, SessionKey, TimeMs, Timeout, Transaction, TransactionBody,
        TransactionSignature, Transfer, Uid, VoterEntry,
    },
};

/// The virtual clock starts here.
pub const GENESIS_MS: u64 = 1_790_000_000_000;
/// How many accounts genesis has.
pub const ACCOUNTS: u64 = 6;

pub fn pair(name: &str) -> KeyPair {
    KeyPair::from_seed(*Hash::tagged("simulation key", name.as_bytes()).as_bytes())
}

pub fn identity_pair(node: u64) -> KeyPair {
    pair(&format!("identity {node}"))
}

/// Asked for with every message, and dear to make.
pub fn identity(node: u64) -> Identity {
    thread_local! {
        static KNOWN: RefCell<BTreeMap<u64, Identity>> = const { RefCell::new(BTreeMap::new()) };
    }
    let make = || Identity::new(identity_pair(node).public());
    KNOWN.with_borrow_mut(|known| *known.entry(node).or_insert_with(make))
}

/// The seed of a voter's session key in genesis.
pub fn first_session_seed(node: u64) -> [u8; 32] {
    pair(&format!("session {node}")).seed()
}

pub fn uid(name: &str) -> Uid {
    let hash = Hash::tagged("simulation uid", name.as_bytes());
    Uid::new(*hash.as_bytes().first_chunk().expect("a hash is longer than a uid"))
}

pub fn genesis(powers: &[u64], block_interval_ms: u64) -> Arc<Genesis> {
    let chain_id = ChainId::new("sim-main").unwrap();
    let ceremony = CeremonyNonce::new([7; 32]);
    let voter = |(node, power): (u64, &u64)| {
        let session = KeyPair::from_seed(first_session_seed(node));
        let entry = VoterEntry {
            identity: identity(node),
            power: Power::new(*power),
            session_key: SessionKey::new(session.public()),
            epoch: Epoch::FIRST,
        };
        let bytes = SigningBytes::genesis_possession(&chain_id, &ceremony, &entry.identity, &entry.session_key);
        GenesisVoter { entry, possession: session.sign(&bytes) }
    };
    let parameters = ParametersDraft {
        block_interval_ms,
        propose_timeout: Timeout { base_ms: 300, delta_ms: 100 },
        prevote_timeout: Timeout { base_ms: 150, delta_ms: 75 },
        precommit_timeout: Timeout { base_ms: 150, delta_ms: 75 },
        ..ParametersDraft::default()
    };
    let account = |n| (AccountId::new(pair(&format!("account {n}")).public()), Amount::new(1_000_000));
    let genesis = Genesis::new(GenesisDraft {
        voters: (0..).zip(powers).map(voter).collect(),
        chain_id,
        time: TimeMs::new(GENESIS_MS),
        protocol_version: 1,
        state_version: 1,
        ceremony,
        accounts: (0..ACCOUNTS).map(account).collect(),
        governance: governance(),
        parameters: Parameters::new(parameters).unwrap(),
    });
    Arc::new(genesis.unwrap())
}

/// How many governors must agree.
pub const GOVERNORS_NEEDED: u32 = 2;

/// The three governors, in the order of their keys.
pub fn governors() -> [KeyPair; 3] {
    let mut governors = ["first", "second", "third"].map(|name| pair(&format!("{name} governor")));
    governors.sort_by_key(KeyPair::public);
    governors
}

pub fn governance() -> Governance {
    let keys = governors().map(|governor| GovernanceKey::new(governor.public()));
    Governance { threshold: GOVERNORS_NEEDED, keys: keys.to_vec() }
}

/// So many governors approve a recovery.
pub fn approve(manifest: &RecoveryManifest, count: usize) -> Recovery {
    let bytes = SigningBytes::recovery_approval(&manifest.hash());
    let sign = |key: &KeyPair| ManifestSignature { key: key.public(), signature: key.sign(&bytes) };
    let approvals = governors().iter().take(count).map(sign).collect();
    Recovery::new(manifest.clone(), approvals, Vec::new()).unwrap()
}

pub fn transfer(incarnation: Incarnation, from: u64, to: u64, nonce: u64) -> Transaction {
    let signer = pair(&format!("account {from}"));
    let body = TransactionBody {
        incarnation,
        sender: AccountId::new(signer.public()),
        nonce: Nonce::new(nonce),
        valid_until: Height::new(TRANSFER_VALIDITY_BLOCKS_MAX),
        payload: Payload::Transfer(Transfer {
            to: AccountId::new(pair(&format!("account {to}")).public()),
            amount: Amount::new(1),
        }),
    };
    let signature = signer.sign(&SigningBytes::transaction(&body));
    Transaction::new(body, vec![TransactionSignature { key: signer.public(), signature }]).unwrap()
}
