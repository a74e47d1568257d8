//! Whether a node can be worked on: what the API server cannot see, and whether what is made once is still there.

use althing_crds::{Reason, ValidatorNode, names};
use kube::ResourceExt;

use super::observe::{ClaimSeen, IdentityRead, Observed};
use crate::references;
use crate::refusal::Refusal;

/// What the checks found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Public key of the identity that is there; none when it has yet to be made.
    pub identity: Option<String>,
    /// The volume is smaller than the spec wants.
    pub shall_grow: bool,
}

/// Checks everything, the most fundamental first.
pub fn validate(observed: &Observed) -> Result<Validated, Refusal> {
    belongs_to_its_group(observed)?;
    let identity = identity(observed)?;
    if let Some(identity) = &identity {
        is_nobody_elses(observed, identity)?;
    }
    let shall_grow = claim(observed)?;
    if let Some(refusal) = references::refuse(&observed.missing) {
        return Err(refusal);
    }
    Ok(Validated { identity, shall_grow })
}

fn belongs_to_its_group(observed: &Observed) -> Result<(), Refusal> {
    let spec = &observed.node.spec;
    let Some(group) = &observed.group else {
        return Err(Refusal::new(Reason::GroupMissing, format!("ConsensusGroup {} does not exist", spec.group)));
    };
    let chain_id = group.spec.chain.id.clone().unwrap_or_else(|| group.name_any());
    if group.spec.network != spec.network || chain_id != spec.chain_id {
        return Err(Refusal::new(
            Reason::GroupMismatch,
            format!(
                "the node is of network {} and chain {}, its group of network {} and chain {chain_id}",
                spec.network, spec.chain_id, group.spec.network
            ),
        ));
    }
    if node_api::node_core::types::ChainId::new(chain_id.clone()).is_err() {
        return Err(Refusal::new(
            Reason::InvalidSpec,
            format!("chain id {chain_id:?} must be lower-case letters, digits and '-'"),
        ));
    }
    Ok(())
}

fn identity(observed: &Observed) -> Result<Option<String>, Refusal> {
    let brought = observed.node.spec.identity_secret.as_deref();
    let own = names::identity_secret(&observed.node.name_any());
    let name = brought.unwrap_or(&own);
    let lost = |message: String| Err(Refusal::new(Reason::IdentityLost, message));
    match (&observed.identity, observed.recorded_identity()) {
        (IdentityRead::Present(found), Some(recorded)) if found != recorded => {
            lost(format!("Secret {name} holds identity {}, this node is {}", short(found), short(recorded)))
        }
        (IdentityRead::Present(found), _) => Ok(Some(found.clone())),
        (IdentityRead::Missing, Some(recorded)) => {
            lost(format!("Secret {name} with identity {} is gone; restore it from a backup", short(recorded)))
        }
        (IdentityRead::Invalid(why), Some(_)) => lost(format!("{why}; restore it from a backup")),
        (IdentityRead::Missing, None) if brought.is_some() => {
            Err(Refusal::new(Reason::IdentitySecretMissing, format!("Secret {name} does not exist")))
        }
        (IdentityRead::Missing, None) if observed.claim.is_some() => {
            lost(format!("the volume of this node was kept, and its identity (Secret {name}) is gone; restore it"))
        }
        (IdentityRead::Missing, None) => Ok(None),
        (IdentityRead::Invalid(why), None) => Err(Refusal::new(Reason::IdentityInvalid, why.clone())),
        (IdentityRead::Foreign, _) => Err(Refusal::new(
            Reason::NameTaken,
            format!("Secret {name} exists and belongs to somebody else; remove it or choose another name"),
        )),
    }
}

/// Of two nodes with one identity, the one that had it first goes on.
fn is_nobody_elses(observed: &Observed, identity: &str) -> Result<(), Refusal> {
    let has_it_first = |other: &&ValidatorNode| {
        let recorded = other.status.as_ref().and_then(|status| status.identity.as_deref());
        let is_older = observed.recorded_identity().is_none() || age_key(other) < age_key(&observed.node);
        recorded == Some(identity) && is_older
    };
    match observed.others.iter().find(has_it_first) {
        Some(other) => Err(Refusal::new(
            Reason::IdentityReused,
            format!("ValidatorNode {} has the same identity {}", other.name_any(), short(identity)),
        )),
        None => Ok(()),
    }
}

fn age_key(node: &ValidatorNode) -> (Option<String>, String) {
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    (created, node.name_any())
}

fn claim(observed: &Observed) -> Result<bool, Refusal> {
    let name = names::claim(&observed.node.name_any());
    let lost = |message: String| Err(Refusal::new(Reason::VolumeLost, message));
    match (&observed.claim, observed.recorded_claim()) {
        (Some(claim), _) if !claim.is_ours => Err(Refusal::new(
            Reason::NameTaken,
            format!("PersistentVolumeClaim {name} exists and belongs to somebody else"),
        )),
        (Some(claim), Some(recorded)) if claim.uid != recorded => {
            lost(format!("PersistentVolumeClaim {name} is another one than this node had; its session key is gone"))
        }
        (Some(claim), _) if claim.is_deleting => {
            lost(format!("PersistentVolumeClaim {name} is being deleted; its session key goes with it"))
        }
        (Some(claim), _) => size(observed, claim),
        (None, Some(_)) => lost(format!("PersistentVolumeClaim {name} is gone, and the session key with it")),
        (None, None) if observed.is_in_kept_genesis => {
            lost(format!("the kept genesis names this node, and its volume (PersistentVolumeClaim {name}) is gone"))
        }
        (None, None) => Ok(false),
    }
}

fn size(observed: &Observed, claim: &ClaimSeen) -> Result<bool, Refusal> {
    let wanted = observed.node.spec.node.storage.size.as_ref();
    let (Some(wanted), Some(requested)) = (wanted, claim.requested.as_deref()) else { return Ok(false) };
    let Ok(present) = althing_crds::quantity::Quantity::parse(requested) else { return Ok(false) };
    match wanted.milli().cmp(&present.milli()) {
        std::cmp::Ordering::Less => Err(Refusal::new(
            Reason::StorageShrunk,
            format!("storage.size is {}, the volume has {requested}: volumes never shrink", wanted.as_str()),
        )),
        std::cmp::Ordering::Equal => Ok(false),
        std::cmp::Ordering::Greater => Ok(true),
    }
}

fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}
