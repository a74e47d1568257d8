//! Before the chain starts: the voter's part in making a genesis.

use node_api::proto;
use node_core::{
    codec::Decode,
    crypto::verify_genesis,
    session::{NotCleared, SessionStatement},
    types::{CeremonyNonce, ChainId, Epoch, Genesis, Hash, Identity, SessionKey},
};

use super::{lifecycle::LifecycleError, sessions::Sessions};
use crate::adapters::storage::{AcceptedGenesis, GenesisStore, StorageError};

/// Largest genesis that is taken.
const GENESIS_BYTES_MAX: usize = 8 << 20;

/// Whether this node votes and thus signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It holds a session key.
    Voter,
    /// It holds none.
    Observer,
}

/// What the ceremony needs to know.
#[derive(Debug)]
pub struct Ceremony {
    /// The chain of the configuration.
    pub chain_id: ChainId,
    /// This node.
    pub identity: Identity,
    /// Its part.
    pub part: Part,
    store: GenesisStore,
    accepted: Option<AcceptedGenesis>,
}

impl Ceremony {
    /// The ceremony as far as it came before this process.
    pub fn open(chain_id: ChainId, identity: Identity, part: Part, store: GenesisStore) -> Result<Self, StorageError> {
        let accepted = store.accepted()?;
        Ok(Self { chain_id, identity, part, store, accepted })
    }

    /// The genesis that this node stands by.
    pub fn accepted(&self) -> Option<&AcceptedGenesis> {
        self.accepted.as_ref()
    }

    /// Makes the session key of this volume if there is none, and proves that the node holds it.
    pub fn report(&self, sessions: &mut Sessions, nonce: [u8; 32]) -> Result<proto::GenesisReport, LifecycleError> {
        if self.part == Part::Observer {
            return Err(LifecycleError::not_now("an observer has no session key"));
        }
        let session_key = self.genesis_key(sessions)?;
        let nonce = CeremonyNonce::new(nonce);
        let statement = SessionStatement::genesis_possession(&self.chain_id, &nonce, &self.identity, &session_key);
        let accepted = self.accepted.as_ref();
        Ok(proto::GenesisReport {
            identity: self.identity.as_bytes().to_vec(),
            session_key: session_key.as_bytes().to_vec(),
            epoch: sessions.entry(&session_key).map_or(0, |entry| entry.epoch().get()),
            possession: sign(sessions, &session_key, &statement)?,
            accepted_genesis_hash: accepted.map(|accepted| accepted.hash.as_bytes().to_vec()).unwrap_or_default(),
            started: accepted.is_some_and(|accepted| accepted.started),
            accepted_genesis: accepted
                .map(|accepted| node_core::codec::Encode::encode(&accepted.genesis))
                .unwrap_or_default(),
        })
    }

    /// Makes one genesis durable and signs that this node stands by it.
    pub fn accept(
        &mut self,
        sessions: &mut Sessions,
        request: &proto::AcceptGenesisRequest,
    ) -> Result<proto::AcceptGenesisResponse, LifecycleError> {
        if request.genesis.len() > GENESIS_BYTES_MAX {
            return Err(LifecycleError::invalid(format!("genesis has {} bytes", request.genesis.len())));
        }
        let genesis = Genesis::decode(&request.genesis).map_err(LifecycleError::invalid)?;
        let hash = genesis.hash();
        if hash.as_bytes().as_slice() != request.genesis_hash {
            return Err(LifecycleError::invalid(format!("the genesis has the hash {hash}, not the one given")));
        }
        if let Some(accepted) = self.accepted.as_ref().filter(|accepted| accepted.hash != hash) {
            return Err(LifecycleError::not_now(format!("genesis {} is accepted already", accepted.hash)));
        }
        self.check(&genesis)?;
        let signature = match (self.part, request.join) {
            (Part::Observer, _) | (Part::Voter, true) => Vec::new(),
            (Part::Voter, false) => {
                let key = self.key_in(sessions, &genesis)?;
                let statement = SessionStatement::genesis_acceptance(&hash, &self.identity, &key);
                sign(sessions, &key, &statement)?
            }
        };
        self.store.accept(&genesis)?;
        let started = self.accepted.as_ref().is_some_and(|accepted| accepted.started);
        self.accepted = Some(AcceptedGenesis { genesis, hash, started });
        tracing::info!(genesis = %hash, "accepted a genesis");
        Ok(proto::AcceptGenesisResponse { genesis_hash: hash.as_bytes().to_vec(), signature })
    }

    /// Takes the genesis of a chain that others have started, durably, and follows it: an observer, or a validator that
    /// is to be voted in or has lost its volume. Which key signs is not decided by this: a key of the volume must be
    /// cleared as ever.
    pub fn adopt(&mut self, genesis: Genesis) -> Result<(), LifecycleError> {
        let hash = genesis.hash();
        if let Some(accepted) = self.accepted.as_ref().filter(|accepted| accepted.hash != hash) {
            return Err(LifecycleError::not_now(format!("genesis {} is accepted already, not {hash}", accepted.hash)));
        }
        self.check(&genesis)?;
        let hash = self.store.accept(&genesis)?;
        self.store.start(hash)?;
        self.accepted = Some(AcceptedGenesis { genesis, hash, started: true });
        Ok(())
    }

    /// Forgets an accepted genesis that did not start.
    pub fn drop_accepted(&mut self, hash: &[u8]) -> Result<(), LifecycleError> {
        let Some(hash) = self.named(hash)? else { return Ok(()) };
        self.store.drop_accepted(hash)?;
        self.accepted = None;
        tracing::info!(genesis = %hash, "dropped the accepted genesis");
        Ok(())
    }

    /// Notes durably that the chain starts. True when it had not been noted before.
    pub fn start(&mut self, hash: &[u8]) -> Result<bool, LifecycleError> {
        let Some(hash) = self.named(hash)? else { return Err(LifecycleError::not_now("no genesis is accepted")) };
        let first = self.accepted.as_ref().is_some_and(|accepted| !accepted.started);
        self.store.start(hash)?;
        if let Some(accepted) = &mut self.accepted {
            accepted.started = true;
        }
        Ok(first)
    }

    /// The accepted genesis' hash, if the caller names it; nothing if none is accepted.
    fn named(&self, hash: &[u8]) -> Result<Option<Hash>, LifecycleError> {
        let Some(accepted) = &self.accepted else { return Ok(None) };
        if accepted.hash.as_bytes().as_slice() == hash {
            return Ok(Some(accepted.hash));
        }
        Err(LifecycleError::not_now(format!("genesis {} is accepted, not the one named", accepted.hash)))
    }

    fn check(&self, genesis: &Genesis) -> Result<(), LifecycleError> {
        if genesis.chain_id != self.chain_id {
            let problem = format!("the genesis is of chain {}, this node of {}", genesis.chain_id, self.chain_id);
            return Err(LifecycleError::invalid(problem));
        }
        verify_genesis(genesis).map_err(LifecycleError::invalid)
    }

    /// The key with which the genesis names this node, if this process may own it.
    fn key_in(&self, sessions: &mut Sessions, genesis: &Genesis) -> Result<SessionKey, LifecycleError> {
        let entry = genesis.voter_set().get(&self.identity).ok_or_else(|| {
            LifecycleError::invalid(format!("the genesis does not name the validator {}", self.identity))
        })?;
        if sessions.entry(&entry.session_key).is_none() {
            let problem = format!("the genesis names session key {}, which is not on this volume", entry.session_key);
            return Err(LifecycleError::invalid(problem));
        }
        match sessions.hold(&entry.session_key)? {
            Ok(()) => Ok(entry.session_key),
            Err(reason) => Err(LifecycleError::not_now(format!("the session key is not cleared: {reason}"))),
        }
    }

    /// The key that this volume contributes: the one it contributed before, while that can be used, else a new one. A volume
    /// that takes the place of a lost one never had the key that the genesis names.
    fn genesis_key(&self, sessions: &mut Sessions) -> Result<SessionKey, LifecycleError> {
        let named = self.accepted.as_ref().and_then(|accepted| accepted.genesis.voter_set().get(&self.identity));
        let named = named.map(|entry| entry.session_key).filter(|key| sessions.entry(key).is_some());
        let candidate = named.or_else(|| sessions.newest().map(|key| key.session_key()));
        if let Some(candidate) = candidate {
            match sessions.hold(&candidate)? {
                Ok(()) => return Ok(candidate),
                Err(NotCleared::Waiting(reason)) => return Err(LifecycleError::not_now(reason.to_string())),
                Err(NotCleared::Never(reason)) if named.is_some() => {
                    return Err(LifecycleError::not_now(format!("the key of the accepted genesis is lost: {reason}")));
                }
                Err(NotCleared::Never(reason)) => {
                    tracing::info!(%reason, "the session key of this volume cannot be used, making another");
                }
            }
        }
        Ok(sessions.make(Epoch::FIRST)?.session_key())
    }
}

/// Signs for the ceremony, with a key that was just made or held.
fn sign(sessions: &Sessions, key: &SessionKey, statement: &SessionStatement) -> Result<Vec<u8>, LifecycleError> {
    let signature = sessions.sign(key, statement);
    let signature = signature.ok_or_else(|| LifecycleError::not_now(format!("session key {key} is not held")))?;
    Ok(signature.as_bytes().to_vec())
}
