//! Recoveries in the state: what a manifest must fit, and what the first block after it starts from.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Chain, ExecuteError, PendingRotations, Progress, Snapshot, StateKey, StateRead, WriteSet, execute::load};
use crate::{
    codec::Encode,
    crypto::{SigningBytes, verify},
    types::{
        Epoch, Genesis, Height, Identity, Incarnation, PendingSets, RecoveredVoter, Recovery, RecoveryManifest,
        VoterSetError,
    },
};

/// Why a recovery is refused.
#[derive(Debug, Error)]
pub enum RecoveryRefused {
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] ExecuteError),
    /// It is of another chain.
    #[error("the recovery is of another chain")]
    OtherChain,
    /// It is not the next one.
    #[error(
        "the recovery has number {found} and follows {parent}; the next one has number {expected} and follows {incarnation}"
    )]
    NotTheNext {
        /// Its number.
        found: u32,
        /// The number of the next one.
        expected: u32,
        /// What it follows.
        parent: Incarnation,
        /// What the next one follows.
        incarnation: Incarnation,
    },
    /// This node has another last block.
    #[error(
        "the recovery stands on block {found} of height {height}, this node is at height {own}: all nodes must hold the same last block"
    )]
    OtherBlock {
        /// The height of the manifest.
        height: Height,
        /// The block of the manifest.
        found: crate::types::Hash,
        /// The height of this node.
        own: Height,
    },
    /// A voter is missing, or one too many is named.
    #[error("the recovery does not name exactly the voters of the next three heights")]
    OtherVoters,
    /// The keys do not make a set.
    #[error("the fresh session keys do not make a voter set: {0}")]
    Set(#[from] VoterSetError),
    /// A key or epoch was there before.
    #[error("the session key or epoch of voter {identity} was used before")]
    Used {
        /// The voter.
        identity: Identity,
    },
    /// A voter does not prove that it holds its key.
    #[error("voter {identity} does not prove that it holds its fresh session key")]
    Possession {
        /// The voter.
        identity: Identity,
    },
    /// Too few of the right keys have approved.
    #[error("{signed} governance keys have approved the recovery, {needed} are needed and no others may")]
    Approvals {
        /// How many have signed.
        signed: usize,
        /// How many must.
        needed: u32,
    },
    /// Too little power has accepted.
    #[error("identities of {accepted} power have accepted the recovery, {needed} is needed")]
    Acceptances {
        /// The power whose identities have signed.
        accepted: u64,
        /// The power that must.
        needed: u64,
    },
}

/// The recoveries of a chain, by the last height that stands before each.
#[derive(Clone, Debug, Default)]
pub struct Recoveries(BTreeMap<Height, RecoveryManifest>);

impl Recoveries {
    /// Those of a node, each accepted by it.
    #[must_use]
    pub fn new(recoveries: impl IntoIterator<Item = RecoveryManifest>) -> Self {
        Self(recoveries.into_iter().map(|manifest| (manifest.height, manifest)).collect())
    }

    /// The manifest after whose last height this one is the first.
    #[must_use]
    pub fn before(&self, height: Height) -> Option<&RecoveryManifest> {
        self.0.get(&height.checked_sub(1)?)
    }

    /// All, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &RecoveryManifest> {
        self.0.values()
    }

    /// The newest.
    #[must_use]
    pub fn newest(&self) -> Option<&RecoveryManifest> {
        self.0.values().next_back()
    }

    /// What signatures at a height are bound to.
    #[must_use]
    pub fn incarnation_at(&self, genesis: &Genesis, height: Height) -> Incarnation {
        let before = self.0.range(..height).next_back();
        before.map_or_else(|| genesis.incarnation(), |(_, manifest)| manifest.incarnation())
    }

    /// What a node that starts finds: the state as it is, or as the manifest on its last block changes it.
    pub fn recovered(&self, mut snapshot: Snapshot) -> Result<Snapshot, RecoveryRefused> {
        let Some(manifest) = self.before(snapshot.progress.height.next()) else { return Ok(snapshot) };
        check_block(manifest, &snapshot.progress)?;
        snapshot.sets = manifest.recovered(&snapshot.sets)?.ok_or(RecoveryRefused::OtherVoters)?;
        snapshot.chain.incarnation = manifest.incarnation();
        snapshot.rotations = PendingRotations::default();
        Ok(snapshot)
    }
}

/// What a recovery is checked against: the node's own chain.
#[derive(Clone, Copy)]
pub struct RecoveryCheck<'a> {
    /// The state after the node's last block.
    pub state: &'a dyn StateRead,
    /// What was read from it, with former recoveries.
    pub snapshot: &'a Snapshot,
    /// The chain's genesis.
    pub genesis: &'a Genesis,
    /// The number of the recovery before; 0 if there is none.
    pub number_before: u32,
}

impl RecoveryCheck<'_> {
    /// Whether a node may accept the manifest: it fits the chain, governance has approved it, and every voter holds its
    /// fresh key.
    pub fn acceptable(&self, recovery: &Recovery) -> Result<(), RecoveryRefused> {
        let Self { state, snapshot, genesis, number_before } = self;
        let manifest = recovery.manifest();
        if manifest.chain_id != genesis.chain_id || manifest.genesis != genesis.hash() {
            return Err(RecoveryRefused::OtherChain);
        }
        let (expected, incarnation) = (number_before.saturating_add(1), snapshot.chain.incarnation);
        let (found, parent) = (manifest.number, manifest.parent);
        if found != expected || parent != incarnation {
            return Err(RecoveryRefused::NotTheNext { found, expected, parent, incarnation });
        }
        check_block(manifest, &snapshot.progress)?;
        if snapshot.results.roots.state_root != manifest.state_root {
            let own = snapshot.progress.height;
            return Err(RecoveryRefused::OtherBlock { height: manifest.height, found: manifest.block, own });
        }
        check_voters(*state, &snapshot.sets, manifest)?;
        self.check_approvals(recovery)
    }

    /// Whether the chain goes on with the manifest: identities of a quorum have accepted it, too.
    pub fn complete(&self, recovery: &Recovery) -> Result<(), RecoveryRefused> {
        self.acceptable(recovery)?;
        let voters = &self.snapshot.sets.first;
        let bytes = |identity| SigningBytes::recovery_acceptance(&recovery.manifest().hash(), &identity);
        let power = |signature: &crate::types::ManifestSignature| {
            let identity = Identity::new(signature.key);
            let entry = voters.get(&identity)?;
            verify(&signature.key, &bytes(identity), &signature.signature).ok()?;
            Some(entry.power.get())
        };
        let accepted = recovery.acceptances().iter().filter_map(power).sum::<u64>();
        let needed = voters.quorum().get();
        if accepted >= needed { Ok(()) } else { Err(RecoveryRefused::Acceptances { accepted, needed }) }
    }

    fn check_approvals(&self, recovery: &Recovery) -> Result<(), RecoveryRefused> {
        let governance = &self.snapshot.chain.governance;
        let bytes = SigningBytes::recovery_approval(&recovery.manifest().hash());
        let valid = recovery.approvals().iter().all(|signature| {
            let known = governance.keys.contains(&crate::types::GovernanceKey::new(signature.key));
            known && verify(&signature.key, &bytes, &signature.signature).is_ok()
        });
        let (signed, needed) = (recovery.approvals().len(), governance.threshold);
        let enough = u32::try_from(signed).is_ok_and(|signed| signed >= needed);
        if valid && enough { Ok(()) } else { Err(RecoveryRefused::Approvals { signed, needed }) }
    }
}

fn check_block(manifest: &RecoveryManifest, progress: &Progress) -> Result<(), RecoveryRefused> {
    if manifest.height == progress.height && manifest.block == progress.block {
        return Ok(());
    }
    Err(RecoveryRefused::OtherBlock { height: manifest.height, found: manifest.block, own: progress.height })
}

fn check_voters(state: &dyn StateRead, sets: &PendingSets, manifest: &RecoveryManifest) -> Result<(), RecoveryRefused> {
    manifest.recovered(sets)?.ok_or(RecoveryRefused::OtherVoters)?;
    for RecoveredVoter { identity, epoch, session_key, possession } in &manifest.voters {
        let (identity, epoch) = (*identity, *epoch);
        let entries = [&sets.first, &sets.second, &sets.third].map(|set| set.get(&identity).map(|entry| entry.epoch));
        let Some(newest) = entries.into_iter().flatten().max() else { return Err(RecoveryRefused::OtherVoters) };
        let ever: Option<Epoch> = load(state, &StateKey::epoch(&identity))?;
        let is_identity = manifest.voter(&Identity::new(*session_key.as_bytes())).is_some();
        let key = StateKey::used_session_key(session_key);
        let used = state.read(&key).map_err(ExecuteError::from)?.is_some();
        if epoch <= newest || ever.is_some_and(|ever| epoch <= ever) || used || is_identity {
            return Err(RecoveryRefused::Used { identity });
        }
        let bytes = SigningBytes::recovery_possession(&manifest.parent, manifest.number, &identity, epoch, session_key);
        verify(session_key.as_bytes(), &bytes, possession).map_err(|_| RecoveryRefused::Possession { identity })?;
    }
    Ok(())
}

/// What the first block after a manifest is executed on.
pub(super) struct Recovered {
    pub(super) chain: Chain,
    pub(super) sets: PendingSets,
    pub(super) writes: WriteSet,
}

/// Applies a manifest to the state that it stands on. That it fits was checked when the node accepted it.
pub(super) fn recover(
    manifest: &RecoveryManifest,
    mut chain: Chain,
    sets: &PendingSets,
) -> Result<Recovered, ExecuteError> {
    let height = manifest.first_height();
    let sets = manifest.recovered(sets).map_err(|error| ExecuteError::VoterSet { height, error })?;
    let sets = sets.ok_or(ExecuteError::OtherRecovery { height })?;
    chain.incarnation = manifest.incarnation();
    let mut writes = WriteSet::new();
    writes.insert(StateKey::chain(), Some(chain.encode()));
    writes.insert(StateKey::rotations(), Some(PendingRotations::default().encode()));
    for RecoveredVoter { identity, epoch, session_key, .. } in &manifest.voters {
        writes.insert(StateKey::epoch(identity), Some(epoch.encode()));
        writes.insert(StateKey::used_session_key(session_key), Some(identity.encode()));
    }
    Ok(Recovered { chain, sets, writes })
}

/// The epoch that the fresh session key of a voter must have.
pub fn recovery_epoch(state: &dyn StateRead, sets: &PendingSets, identity: &Identity) -> Result<Epoch, ExecuteError> {
    let ever: Option<Epoch> = load(state, &StateKey::epoch(identity))?;
    let entries = [&sets.first, &sets.second, &sets.third].map(|set| set.get(identity).map(|entry| entry.epoch));
    let highest = entries.into_iter().flatten().chain(ever).max();
    Ok(highest.map_or(Epoch::FIRST, |highest| highest.saturating_add(1)))
}
