//! Whether a node can be worked on: what the API server cannot see, and whether what is made once is still there.

use althing_crds::{Reason, ValidatorNode, names};
use kube::ResourceExt;

use super::observe::{ClaimSeen, IdentityRead, Observed};
use crate::kinds::age_key;
use crate::references;
use crate::refusal::Refusal;

/// What the checks found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Public key of the identity that is there; none when it has yet to be made.
    pub identity: Option<String>,
    /// What is to be done about the volume.
    pub volume: Volume,
}

/// What the checks found about the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// It is as it shall be, or has yet to be made.
    Fits,
    /// It is smaller than the spec wants.
    Grow,
    /// The recorded one is lost, and a person agreed that another takes its place: the one that is there under its name,
    /// else a new one.
    Rebuild,
}

/// Checks everything, the most fundamental first.
pub fn validate(observed: &Observed) -> Result<Validated, Refusal> {
    belongs_to_its_group(observed)?;
    let identity = identity(observed)?;
    if let Some(identity) = &identity {
        is_nobody_elses(observed, identity)?;
    }
    let volume = claim(observed)?;
    if let Some(refusal) = references::refuse(&observed.missing) {
        return Err(refusal);
    }
    Ok(Validated { identity, volume })
}

/// A node whose spec is refused is still the one that it was: of its group, with the identity and the volume that are written down,
/// and with a certificate. What only keeps it at work goes on then.
pub fn is_itself(observed: &Observed) -> bool {
    let (Some(recorded), Some(claim)) = (observed.recorded_identity(), &observed.claim) else { return false };
    let has_volume = claim.is_ours && !claim.is_deleting && observed.recorded_claim() == Some(claim.uid.as_str());
    let has_identity = identity(observed).is_ok_and(|found| found.as_deref() == Some(recorded));
    let is_alone = belongs_to_its_group(observed).is_ok() && is_nobody_elses(observed, recorded).is_ok();
    has_volume && has_identity && is_alone && observed.tls.is_some()
}

fn belongs_to_its_group(observed: &Observed) -> Result<(), Refusal> {
    let spec = &observed.node.spec;
    let Some(group) = &observed.group else {
        return Err(Refusal::new(Reason::GroupMissing, format!("ConsensusGroup {} does not exist", spec.group)));
    };
    let chain_id = group.spec.chain.id_or_name(&group.name_any());
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
        let is_older = observed.recorded_identity().is_none() || age_key(*other) < age_key(&observed.node);
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

fn claim(observed: &Observed) -> Result<Volume, Refusal> {
    let name = names::claim(&observed.node.name_any());
    let recorded = observed.recorded_claim();
    let lost = |message: String| {
        let way_out = recorded.map(|uid| {
            let (node, annotation) = (observed.node.name_any(), names::ANNOTATION_REBUILD);
            format!("; to go on with another volume and a new session key: kubectl annotate vnode {node} {annotation}={uid} --overwrite")
        });
        Err(Refusal::new(Reason::VolumeLost, format!("{message}{}", way_out.unwrap_or_default())))
    };
    let may_be_rebuilt = recorded.is_some()
        && observed.node.annotations().get(names::ANNOTATION_REBUILD).map(String::as_str) == recorded;
    match (&observed.claim, recorded) {
        (Some(claim), _) if !claim.is_ours => Err(Refusal::new(
            Reason::NameTaken,
            format!("PersistentVolumeClaim {name} exists and belongs to somebody else"),
        )),
        (Some(claim), _) if claim.is_deleting => {
            lost(format!("PersistentVolumeClaim {name} is being deleted; its session key goes with it"))
        }
        (Some(claim), Some(recorded)) if claim.uid != recorded && may_be_rebuilt => {
            size(&observed.node, claim).map(|_| Volume::Rebuild)
        }
        (Some(claim), Some(recorded)) if claim.uid != recorded => {
            lost(format!("PersistentVolumeClaim {name} is another one than this node had; its session key is gone"))
        }
        (Some(claim), _) => match (size(&observed.node, claim)?, &claim.fixed_by) {
            (Volume::Grow, Some(class)) => Err(Refusal::new(
                Reason::StorageFixed,
                format!(
                    "storage.size is larger than the volume, and StorageClass {class} does not let volumes grow (allowVolumeExpansion); set it there, or storage.size back to {}",
                    claim.requested.as_deref().unwrap_or("what it was")
                ),
            )),
            (volume, _) => Ok(volume),
        },
        (None, Some(_)) if may_be_rebuilt => Ok(Volume::Rebuild),
        (None, Some(_)) => lost(format!("PersistentVolumeClaim {name} is gone, and the session key with it")),
        (None, None) if observed.is_in_kept_genesis => {
            lost(format!("the kept genesis names this node, and its volume (PersistentVolumeClaim {name}) is gone"))
        }
        (None, None) => Ok(Volume::Fits),
    }
}

/// Whether the claim asks for what the spec wants.
pub fn size(node: &ValidatorNode, claim: &ClaimSeen) -> Result<Volume, Refusal> {
    let wanted = node.spec.node.storage.size.as_ref();
    let (Some(wanted), Some(requested)) = (wanted, claim.requested.as_deref()) else {
        return Ok(Volume::Fits);
    };
    let Ok(present) = althing_crds::quantity::Quantity::parse(requested) else { return Ok(Volume::Fits) };
    match wanted.milli().cmp(&present.milli()) {
        std::cmp::Ordering::Less => Err(Refusal::new(
            Reason::StorageShrunk,
            format!("storage.size is {}, the volume has {requested}: volumes never shrink", wanted.as_str()),
        )),
        std::cmp::Ordering::Equal => Ok(Volume::Fits),
        std::cmp::Ordering::Greater => Ok(Volume::Grow),
    }
}

fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{IDENTITY, node, observed};
    use super::*;
    use crate::references::Missing;

    type Change = fn(&mut Observed);

    fn unrecorded(mut observed: Observed) -> Observed {
        if let Some(status) = observed.node.status.as_mut() {
            status.identity = None;
            status.claim_uid = None;
        }
        observed
    }

    fn reason(observed: &Observed) -> Option<Reason> {
        validate(observed).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_healthy_node_is_accepted() {
        let expected = Validated { identity: Some(IDENTITY.to_string()), volume: Volume::Fits };
        assert_eq!(validate(&observed()), Ok(expected));
    }

    #[test]
    fn a_new_node_may_make_everything() {
        let mut new = unrecorded(observed());
        new.identity = IdentityRead::Missing;
        new.claim = None;
        assert_eq!(validate(&new), Ok(Validated { identity: None, volume: Volume::Fits }));
    }

    #[test]
    fn what_is_made_once_is_never_made_again() {
        let cases: [(&str, Change, Reason); 8] = [
            ("identity gone", |seen| seen.identity = IdentityRead::Missing, Reason::IdentityLost),
            (
                "identity is another",
                |seen| seen.identity = IdentityRead::Present("00".repeat(32)),
                Reason::IdentityLost,
            ),
            ("identity is no key", |seen| seen.identity = IdentityRead::Invalid("no".into()), Reason::IdentityLost),
            ("identity of somebody else", |seen| seen.identity = IdentityRead::Foreign, Reason::NameTaken),
            ("claim gone", |seen| seen.claim = None, Reason::VolumeLost),
            ("claim is another", |seen| seen.claim.as_mut().expect("there").uid = "c-2".into(), Reason::VolumeLost),
            ("claim goes", |seen| seen.claim.as_mut().expect("there").is_deleting = true, Reason::VolumeLost),
            ("claim of somebody else", |seen| seen.claim.as_mut().expect("there").is_ours = false, Reason::NameTaken),
        ];
        for (name, change, expected) in cases {
            let mut seen = observed();
            change(&mut seen);
            assert_eq!(reason(&seen), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_lost_volume_is_rebuilt_only_when_a_person_names_it() {
        let agreed = |uid: &str| {
            let mut seen = observed();
            seen.node.annotations_mut().insert(names::ANNOTATION_REBUILD.to_string(), uid.to_string());
            seen
        };
        let rebuilt = Ok(Volume::Rebuild);
        let volume = |seen: &Observed| validate(seen).map(|validated| validated.volume);
        let recorded = observed().recorded_claim().expect("it is").to_string();
        let mut gone = agreed(&recorded);
        assert_eq!(volume(&gone), Ok(Volume::Fits), "it is not lost");
        gone.claim = None;
        assert_eq!(volume(&gone), rebuilt);
        let mut another = agreed(&recorded);
        another.claim.as_mut().expect("there").uid = "c-2".into();
        assert_eq!(volume(&another), rebuilt, "made before a crash, or put there by a person");
        another.claim.as_mut().expect("there").is_deleting = true;
        assert_eq!(reason(&another), Some(Reason::VolumeLost), "first it must be gone");
        another.claim.as_mut().expect("there").is_ours = false;
        assert_eq!(reason(&another), Some(Reason::NameTaken));
        let mut earlier = agreed("c-0");
        earlier.claim = None;
        assert_eq!(reason(&earlier), Some(Reason::VolumeLost), "that was for an earlier loss");
    }

    #[test]
    fn kept_halves_of_a_node_are_no_new_node() {
        let mut volume_only = unrecorded(observed());
        volume_only.identity = IdentityRead::Missing;
        assert_eq!(reason(&volume_only), Some(Reason::IdentityLost));
        let mut identity_only = unrecorded(observed());
        identity_only.claim = None;
        assert_eq!(reason(&identity_only), None);
        identity_only.is_in_kept_genesis = true;
        assert_eq!(reason(&identity_only), Some(Reason::VolumeLost));
    }

    #[test]
    fn a_brought_identity_must_be_there_and_be_a_key() {
        let mut brought = unrecorded(observed());
        brought.node.spec.identity_secret = Some("mine".to_string());
        brought.claim = None;
        brought.identity = IdentityRead::Missing;
        assert_eq!(reason(&brought), Some(Reason::IdentitySecretMissing));
        brought.identity = IdentityRead::Invalid("no".to_string());
        assert_eq!(reason(&brought), Some(Reason::IdentityInvalid));
    }

    #[test]
    fn of_two_nodes_with_one_identity_the_older_goes_on() {
        let mut seen = observed();
        seen.others = vec![node("demo-main-1")];
        assert_eq!(reason(&seen), None);
        seen.node = node("demo-main-2");
        assert_eq!(reason(&seen), Some(Reason::IdentityReused));
        let mut new = unrecorded(observed());
        new.others = vec![node("demo-main-1")];
        assert_eq!(reason(&new), Some(Reason::IdentityReused));
    }

    #[test]
    fn a_node_belongs_to_its_group() {
        let mut seen = observed();
        seen.group.as_mut().expect("there").spec.network = "other".to_string();
        assert_eq!(reason(&seen), Some(Reason::GroupMismatch));
        let mut seen = observed();
        seen.node.spec.chain_id = "main".to_string();
        assert_eq!(reason(&seen), Some(Reason::GroupMismatch));
        let mut seen = observed();
        seen.group = None;
        assert_eq!(reason(&seen), Some(Reason::GroupMissing));
    }

    #[test]
    fn a_volume_grows_and_never_shrinks() {
        let mut seen = observed();
        let claim =
            |seen: &mut Observed, size: &str| seen.claim.as_mut().expect("there").requested = Some(size.to_string());
        claim(&mut seen, "512Mi");
        assert_eq!(validate(&seen).map(|validated| validated.volume), Ok(Volume::Grow));
        claim(&mut seen, "1024Mi");
        assert_eq!(validate(&seen).map(|validated| validated.volume), Ok(Volume::Fits));
        claim(&mut seen, "512Mi");
        seen.claim.as_mut().expect("there").fixed_by = Some("slow".to_string());
        assert_eq!(reason(&seen), Some(Reason::StorageFixed), "nothing else would be followed either");
        claim(&mut seen, "1Gi");
        assert_eq!(reason(&seen), None, "it does not have to grow");
        seen.claim.as_mut().expect("there").fixed_by = None;
        claim(&mut seen, "2Gi");
        assert_eq!(reason(&seen), Some(Reason::StorageShrunk));
    }

    #[test]
    fn a_node_whose_spec_alone_is_refused_is_kept_at_work() {
        let refused = |change: Change| {
            let mut seen = observed();
            seen.tls = Some(k8s_openapi::api::core::v1::Secret::default());
            seen.node.spec.node.storage.size = serde_yaml::from_str("512Mi").expect("a size");
            change(&mut seen);
            assert!(validate(&seen).is_err(), "its spec is refused");
            is_itself(&seen)
        };
        assert!(refused(|_| {}));
        assert!(refused(|seen| seen.missing = vec![Missing::PriorityClass("high".to_string())]));
        let others: [(&str, Change); 13] = [
            ("identity gone", |seen| seen.identity = IdentityRead::Missing),
            ("identity is another", |seen| seen.identity = IdentityRead::Present("00".repeat(32))),
            ("identity is no key", |seen| seen.identity = IdentityRead::Invalid("no".into())),
            ("identity of somebody else", |seen| seen.identity = IdentityRead::Foreign),
            ("another node has the identity", |seen| {
                seen.others = vec![node("demo-main-0")];
                seen.node = node("demo-main-2");
                seen.node.spec.node.storage.size = serde_yaml::from_str("512Mi").expect("a size");
            }),
            ("claim gone", |seen| seen.claim = None),
            ("claim is another", |seen| seen.claim.as_mut().expect("there").uid = "c-2".into()),
            ("claim goes", |seen| seen.claim.as_mut().expect("there").is_deleting = true),
            ("claim of somebody else", |seen| seen.claim.as_mut().expect("there").is_ours = false),
            ("no identity is written down", |seen| seen.node.status.as_mut().expect("there").identity = None),
            ("no claim is written down", |seen| seen.node.status.as_mut().expect("there").claim_uid = None),
            ("group gone", |seen| seen.group = None),
            ("no certificate yet", |seen| seen.tls = None),
        ];
        for (name, change) in others {
            assert!(!refused(change), "{name}");
        }
    }

    #[test]
    fn what_the_spec_names_must_be_there() {
        let mut seen = observed();
        seen.missing = vec![Missing::PriorityClass("high".to_string())];
        assert_eq!(reason(&seen), Some(Reason::PriorityClassMissing));
    }
}
