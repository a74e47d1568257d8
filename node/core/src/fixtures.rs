//! Keys, documents and dice for the tests of this crate: the same on every run.

use crate::{
    crypto::{KeyPair, RotationTerms, SigningBytes},
    types::{
        AccountId, Amount, Batch, Block, CeremonyNonce, ChainId, Epoch, Genesis, GenesisDraft, GenesisVoter,
        Governance, GovernanceChange, GovernanceKey, Hash, Header, Height, Identity, Incarnation, KeepSession,
        NewVoter, Nonce, Parameters, ParametersDraft, Payload, Power, Results, RotateSession, Round, SessionKey,
        TimeMs, Transaction, TransactionBody, TransactionSignature, Transfer, Uid, VoterEntry,
    },
};

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// A key pair for a name.
pub fn key_pair(name: &str) -> KeyPair {
    KeyPair::from_seed(*Hash::tagged("test key", name.as_bytes()).as_bytes())
}

pub fn account(name: &str) -> AccountId {
    AccountId::new(key_pair(name).public())
}

/// The identity key of voter `n` and its session key of an epoch.
pub fn identity_pair(n: u64) -> KeyPair {
    key_pair(&format!("identity {n}"))
}

pub fn identity(n: u64) -> Identity {
    Identity::new(identity_pair(n).public())
}

pub fn session_pair(n: u64, epoch: u64) -> KeyPair {
    key_pair(&format!("session {n} {epoch}"))
}

pub fn session_key(n: u64, epoch: u64) -> SessionKey {
    SessionKey::new(session_pair(n, epoch).public())
}

pub fn uid(name: &str) -> Uid {
    let hash = Hash::tagged("test uid", name.as_bytes());
    Uid::new(*hash.as_bytes().first_chunk().expect("a hash is longer than a uid"))
}

/// A chain with voters of these powers, alice with 1000 and bob with 10.
pub fn genesis(powers: &[u64]) -> Genesis {
    let chain_id = ChainId::new("demo-main").unwrap();
    let ceremony = CeremonyNonce::new([7; 32]);
    let voter = |(n, power): (u64, &u64)| {
        let entry = VoterEntry {
            identity: identity(n),
            power: Power::new(*power),
            session_key: session_key(n, 1),
            epoch: Epoch::FIRST,
        };
        let bytes = SigningBytes::genesis_possession(&chain_id, &ceremony, &entry.identity, &entry.session_key);
        GenesisVoter { entry, possession: session_pair(n, 1).sign(&bytes) }
    };
    Genesis::new(GenesisDraft {
        chain_id: chain_id.clone(),
        time: TimeMs::new(1_790_000_000_000),
        protocol_version: 1,
        state_version: 1,
        ceremony,
        voters: (0..).zip(powers).map(voter).collect(),
        accounts: vec![(account("alice"), Amount::new(1_000)), (account("bob"), Amount::new(10))],
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(key_pair("governance").public())] },
        parameters: Parameters::new(ParametersDraft::default()).unwrap(),
    })
    .unwrap()
}

pub fn signed(body: TransactionBody, signer: &KeyPair) -> Transaction {
    let signature = signer.sign(&SigningBytes::transaction(&body));
    Transaction::new(body, vec![TransactionSignature { key: signer.public(), signature }]).unwrap()
}

/// `from` pays `to`, valid until height 1000.
pub fn transfer(incarnation: Incarnation, from: &str, to: &str, nonce: u64, amount: u64) -> Transaction {
    let body = TransactionBody {
        incarnation,
        sender: account(from),
        nonce: Nonce::new(nonce),
        valid_until: Height::new(1_000),
        payload: Payload::Transfer(Transfer { to: account(to), amount: Amount::new(amount) }),
    };
    signed(body, &key_pair(from))
}

/// Voter `n` rotates to its key of `epoch`, co-signed by its key of the epoch before if asked for.
pub struct Rotation {
    pub n: u64,
    pub epoch: u64,
    pub co_signer: Option<KeyPair>,
    pub valid_until: u64,
}

impl Rotation {
    pub fn terms(&self, incarnation: Incarnation) -> RotationTerms {
        RotationTerms {
            incarnation,
            identity: identity(self.n),
            epoch: Epoch::new(self.epoch),
            new_key: session_key(self.n, self.epoch),
            valid_until: Height::new(self.valid_until),
        }
    }

    pub fn transaction(&self, incarnation: Incarnation) -> Transaction {
        let terms = self.terms(incarnation);
        let possession = session_pair(self.n, self.epoch).sign(&SigningBytes::rotation_possession(&terms));
        let co_signature = self.co_signer.as_ref().map(|key| key.sign(&SigningBytes::rotate_session(&terms)));
        let payload = Payload::RotateSession(RotateSession {
            identity: terms.identity,
            epoch: terms.epoch,
            new_key: terms.new_key,
            possession,
            co_signature,
        });
        signed(session_body(incarnation, self.n, self.valid_until, payload), &identity_pair(self.n))
    }

    /// The objection to this rotation by a key.
    pub fn objection(&self, incarnation: Incarnation, signer: &KeyPair) -> Transaction {
        let terms = self.terms(incarnation);
        let payload = Payload::KeepSession(KeepSession {
            identity: terms.identity,
            voided_epoch: terms.epoch,
            voided_key: terms.new_key,
            signature: signer.sign(&SigningBytes::keep_session(&terms)),
        });
        Transaction::new(session_body(incarnation, self.n, self.valid_until, payload), Vec::new()).unwrap()
    }
}

fn session_body(incarnation: Incarnation, n: u64, valid_until: u64, payload: Payload) -> TransactionBody {
    TransactionBody {
        incarnation,
        sender: identity(n).into(),
        nonce: Nonce::ZERO,
        valid_until: Height::new(valid_until),
        payload,
    }
}

/// Governance key `n`. Genesis has the first.
pub fn governance_pair(n: u64) -> KeyPair {
    if n == 0 { key_pair("governance") } else { key_pair(&format!("governance {n}")) }
}

/// A governance transaction that is valid until height 1000.
pub fn govern(incarnation: Incarnation, nonce: u64, change: GovernanceChange, signers: &[KeyPair]) -> Transaction {
    let body = TransactionBody {
        incarnation,
        sender: AccountId::governance(),
        nonce: Nonce::new(nonce),
        valid_until: Height::new(1_000),
        payload: Payload::Governance(change),
    };
    let bytes = SigningBytes::transaction(&body);
    let sign = |key: &KeyPair| TransactionSignature { key: key.public(), signature: key.sign(&bytes) };
    let mut signatures: Vec<_> = signers.iter().map(sign).collect();
    signatures.sort_by_key(|signature| signature.key);
    Transaction::new(body, signatures).unwrap()
}

/// Voter `n` with its session key of this epoch.
pub fn new_voter(incarnation: Incarnation, n: u64, epoch: u64, power: u64) -> NewVoter {
    new_voter_with(incarnation, n, epoch, power, &session_pair(n, epoch))
}

pub fn new_voter_with(incarnation: Incarnation, n: u64, epoch: u64, power: u64, key: &KeyPair) -> NewVoter {
    let (identity, epoch, session_key) = (identity(n), Epoch::new(epoch), SessionKey::new(key.public()));
    let possession = key.sign(&SigningBytes::voter_possession(&incarnation, &identity, epoch, &session_key));
    NewVoter { identity, power: Power::new(power), epoch, session_key, possession }
}

/// A block with one batch, or with none if there are no transactions.
pub fn block(height: u64, parent: Hash, transactions: Vec<Transaction>) -> Block {
    let batches = if transactions.is_empty() { Vec::new() } else { vec![Batch::new(transactions).unwrap()] };
    let header = Header {
        height: Height::new(height),
        round: Round::ZERO,
        parent,
        proposer: identity(0),
        time: TimeMs::new(1_790_000_000_000 + height),
        batches: batches.iter().map(Batch::digest).collect(),
        voters_hash: Hash::ZERO,
        results: Results::NONE,
        parameters_hash: Hash::ZERO,
    };
    Block::new(header, batches).unwrap()
}
