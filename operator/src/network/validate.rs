//! Whether a network can be worked on: what the API server cannot see, and whether its authority is still there.

use std::collections::BTreeSet;

use althing_crds::{Reason, names};
use kube::ResourceExt;
use node_api::node_core::types::ChainId;

use super::desired_tiers;
use super::observe::{AuthorityRead, Observed};
use crate::group::genesis;
use crate::group::validate::is_going;
use crate::kinds::age_key;
use crate::references;
use crate::refusal::Refusal;
use crate::rollover::Source;

/// Checks everything, the most fundamental first. Nothing is written before all of it holds.
pub fn validate(observed: &Observed) -> Result<(), Refusal> {
    chains(observed)?;
    identities(observed)?;
    tiers(observed)?;
    authority(observed)?;
    references::refuse(&observed.missing).map_or(Ok(()), Err)
}

fn chains(observed: &Observed) -> Result<(), Refusal> {
    let network = &observed.network;
    let mut seen = BTreeSet::new();
    for (group, present) in network.spec.groups.iter().zip(&observed.groups) {
        let id = group.chain.id_or_name(&names::group(&network.name_any(), &group.name));
        if ChainId::new(id.clone()).is_err() {
            return Err(Refusal::new(
                Reason::InvalidSpec,
                format!(
                    "chain id {id:?} of group {} must be at most 63 lower-case letters, digits and '-'",
                    group.name
                ),
            ));
        }
        if let Err(why) = genesis::parameters(&group.chain.parameters) {
            return Err(Refusal::new(Reason::InvalidSpec, format!("parameters of group {}: {why}", group.name)));
        }
        if !seen.insert(id.clone()) {
            return Err(Refusal::new(Reason::ChainIdTaken, format!("two groups have chain id {id}")));
        }
        let other = observed.others.iter().find(|other| {
            let theirs = other.spec.chain.id_or_name(&other.name_any());
            let is_older = present.as_ref().is_none_or(|present| age_key(*other) < age_key(present));
            // A group that goes is waited for by the one that comes, and must not keep itself from being pruned.
            theirs == id && is_older && !is_going(other, Some(network))
        });
        if let Some(other) = other {
            return Err(Refusal::new(
                Reason::ChainIdTaken,
                format!("ConsensusGroup {} of this namespace already has chain id {id}", other.name_any()),
            ));
        }
    }
    Ok(())
}

fn identities(observed: &Observed) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for group in &observed.network.spec.groups {
        let wanted = usize::try_from(group.replicas.unwrap_or(althing_crds::group::REPLICAS_DEFAULT)).unwrap_or(0);
        let brought = group.identity_secrets.len();
        if brought > 0 && brought != wanted {
            return Err(Refusal::new(
                Reason::InvalidSpec,
                format!("identitySecrets of group {} names {brought} Secrets for {wanted} voters", group.name),
            ));
        }
        for name in &group.identity_secrets {
            if !seen.insert(name.as_str()) {
                return Err(Refusal::new(
                    Reason::IdentityReused,
                    format!("identitySecrets names {name} twice: two voters cannot share it"),
                ));
            }
        }
    }
    Ok(())
}

/// The gateway itself says whether it would take its configuration.
fn tiers(observed: &Observed) -> Result<(), Refusal> {
    let refused = |error: &dyn std::fmt::Display| Refusal::new(Reason::InvalidSpec, format!("spec.gateway: {error}"));
    let tiers = desired_tiers::contexts(observed).map_err(|error| refused(&error))?;
    match (&tiers.gateway, &observed.network.spec.gateway) {
        (Some(tier), Some(spec)) => {
            desired_tiers::gateway_config(&tiers, tier, spec).map(drop).map_err(|error| refused(&error))
        }
        (None, _) | (_, None) => Ok(()),
    }
}

fn authority(observed: &Observed) -> Result<(), Refusal> {
    let source = Source::of(&observed.network);
    let name = source.secret(&observed.network.name_any());
    let recorded = observed.network.status.as_ref().and_then(|status| status.certificate_authority_hash.as_deref());
    let lost = |message: String| Err(Refusal::new(Reason::CertificateAuthorityLost, message));
    match (&observed.authority, recorded) {
        (AuthorityRead::Foreign, _) => Err(Refusal::new(
            Reason::NameTaken,
            format!("Secret {name} exists and belongs to somebody else; remove it or choose another name"),
        )),
        // Whatever is not there is asked for again, and used if it is of the authority that is recorded.
        (AuthorityRead::Missing | AuthorityRead::Invalid(_), _) if source == Source::Issuer => match &observed.bundle {
            Err(unusable) => references::refuse(&[unusable.clone().into()]).map_or(Ok(()), Err),
            Ok(_) => Ok(()),
        },
        (AuthorityRead::Present(_), _) if source == Source::Issuer => Ok(()),
        (AuthorityRead::Missing, Some(_)) => lost(format!("Secret {name} is gone; restore it from a backup")),
        (AuthorityRead::Invalid(why), _) => lost(format!("Secret {name}: {why}")),
        (AuthorityRead::Present(found), Some(recorded)) if !found.answers_to(recorded) => {
            lost(format!("Secret {name} holds another authority than this network had; restore it from a backup"))
        }
        (AuthorityRead::Present(_), _) | (AuthorityRead::Missing, None) => Ok(()),
    }
}
