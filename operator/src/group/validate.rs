//! Whether a group can be worked on: what the API server cannot see, and whether what is made once is still there.

use std::collections::BTreeSet;

use althing_crds::{ConsensusGroup, Reason, names};
use kube::ResourceExt;
use node_api::node_core::types::{ChainId, Genesis, Identity};

use super::observe::{GenesisRead, GovernanceRead, Observed};
use crate::references;
use crate::refusal::Refusal;

/// Checks everything, the most fundamental first.
pub fn validate(observed: &Observed) -> Result<(), Refusal> {
    if observed.network.is_none() {
        let name = &observed.group.spec.network;
        return Err(Refusal::new(Reason::NetworkMissing, format!("BlockchainNetwork {name} does not exist")));
    }
    chain_id(observed)?;
    identity_secrets(&observed.group)?;
    retired(&observed.group)?;
    genesis(observed)?;
    governance(observed)?;
    match references::refuse(&observed.missing) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

fn chain_id(observed: &Observed) -> Result<(), Refusal> {
    let id = &observed.chain_id;
    if ChainId::new(id.clone()).is_err() {
        return Err(Refusal::new(
            Reason::InvalidSpec,
            format!("chain id {id:?} must be at most 63 lower-case letters, digits and '-'"),
        ));
    }
    let has_it_first = |other: &&ConsensusGroup| {
        let theirs = other.spec.chain.id.clone().unwrap_or_else(|| other.name_any());
        theirs == *id && age_key(other) < age_key(&observed.group)
    };
    match observed.others.iter().find(has_it_first) {
        Some(other) => Err(Refusal::new(
            Reason::ChainIdTaken,
            format!("ConsensusGroup {} of this namespace already has chain id {id}", other.name_any()),
        )),
        None => Ok(()),
    }
}

fn age_key(group: &ConsensusGroup) -> (Option<String>, String) {
    let created = group.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    (created, group.name_any())
}

fn identity_secrets(group: &ConsensusGroup) -> Result<(), Refusal> {
    let named = &group.spec.identity_secrets;
    let mut seen = BTreeSet::new();
    match named.iter().find(|name| !seen.insert(name.as_str())) {
        Some(name) => Err(Refusal::new(
            Reason::IdentityReused,
            format!("identitySecrets names {name} twice: two voters cannot share it"),
        )),
        None => Ok(()),
    }
}

fn retired(group: &ConsensusGroup) -> Result<(), Refusal> {
    let own = group.name_any();
    match group.spec.retired.iter().find(|name| names::node_number(&own, name).is_none()) {
        Some(name) => Err(Refusal::new(
            Reason::InvalidSpec,
            format!("retired names {name:?}, which is no node of this group: they are called {own}-0, {own}-1, ..."),
        )),
        None => Ok(()),
    }
}

fn genesis(observed: &Observed) -> Result<(), Refusal> {
    let name = names::genesis_config_map(&observed.group.name_any());
    let genesis = match &observed.genesis {
        GenesisRead::Missing => {
            let recorded = observed.status().and_then(|status| status.genesis_hash.as_ref());
            return recorded.map_or(Ok(()), |_| {
                let message =
                    format!("ConfigMap {name} with the genesis of this chain is gone; restore it from a backup");
                Err(Refusal::new(Reason::GenesisLost, message))
            });
        }
        GenesisRead::Foreign => {
            return Err(Refusal::new(
                Reason::NameTaken,
                format!("ConfigMap {name} exists and belongs to somebody else; remove it or choose another name"),
            ));
        }
        GenesisRead::Invalid(why) => {
            return Err(Refusal::new(Reason::GenesisLost, format!("ConfigMap {name} holds no genesis: {why}")));
        }
        GenesisRead::Present(genesis) => genesis,
    };
    if genesis.chain_id.as_str() != observed.chain_id {
        return Err(Refusal::new(
            Reason::RetainedDataMismatch,
            format!(
                "the kept genesis (ConfigMap {name}) is of chain {}, this is {}",
                genesis.chain_id, observed.chain_id
            ),
        ));
    }
    voters_match(observed, genesis)
}

/// Every node of the first voters that has an identity is a voter of the kept genesis. Later ones were voted in.
fn voters_match(observed: &Observed, genesis: &Genesis) -> Result<(), Refusal> {
    let is_voter = |identity: &str| {
        identity.parse::<Identity>().is_ok_and(|identity| genesis.voter_set().get(&identity).is_some())
    };
    let first = u32::try_from(genesis.voter_set().entries().len()).unwrap_or(0);
    let of_genesis = observed.numbers.iter().zip(&observed.voters).filter(|(number, _)| **number < first);
    for (_, voter) in of_genesis {
        if let Some(identity) = voter.identity()
            && !is_voter(identity)
        {
            return Err(Refusal::new(
                Reason::RetainedDataMismatch,
                format!("{} has an identity that the kept genesis does not name; restore its Secret", voter.name),
            ));
        }
    }
    Ok(())
}

fn governance(observed: &Observed) -> Result<(), Refusal> {
    let name = names::governance_secret(&observed.group.name_any());
    let lost = |message: String| Err(Refusal::new(Reason::GovernanceKeyLost, message));
    let genesis = observed.kept_genesis();
    match (&observed.governance, genesis) {
        (GovernanceRead::InSpec, _) | (GovernanceRead::Missing, None) => Ok(()),
        (GovernanceRead::Foreign, _) => Err(Refusal::new(
            Reason::NameTaken,
            format!("Secret {name} exists and belongs to somebody else; remove it or choose another name"),
        )),
        (GovernanceRead::Missing, Some(_)) => lost(format!("Secret {name} is gone; restore it from a backup")),
        (GovernanceRead::Invalid(why), _) => lost(format!("Secret {name}: {why}")),
        (GovernanceRead::Present(_), None) => Ok(()),
        (GovernanceRead::Present(key), Some(genesis)) => {
            if genesis.governance.keys.iter().any(|known| known.to_string() == *key) {
                Ok(())
            } else {
                lost(format!("Secret {name} holds another key than the genesis names"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{governance_key, group, observed};
    use super::*;

    type Change = fn(&mut Observed);

    fn reason(observed: &Observed) -> Option<Reason> {
        validate(observed).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_healthy_group_is_accepted() {
        assert_eq!(validate(&observed()), Ok(()));
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let cases: [(&str, Change, Reason); 11] = [
            ("no network", |seen| seen.network = None, Reason::NetworkMissing),
            ("chain id with a dot", |seen| seen.chain_id = "a.b".into(), Reason::InvalidSpec),
            ("genesis gone", |seen| seen.genesis = GenesisRead::Missing, Reason::GenesisLost),
            ("genesis is no genesis", |seen| seen.genesis = GenesisRead::Invalid("no".into()), Reason::GenesisLost),
            ("genesis of somebody else", |seen| seen.genesis = GenesisRead::Foreign, Reason::NameTaken),
            ("genesis of another chain", |seen| seen.chain_id = "demo-other".into(), Reason::RetainedDataMismatch),
            ("governance key gone", |seen| seen.governance = GovernanceRead::Missing, Reason::GovernanceKeyLost),
            (
                "another governance key",
                |seen| seen.governance = GovernanceRead::Present("00".repeat(32)),
                Reason::GovernanceKeyLost,
            ),
            ("governance Secret of somebody else", |seen| seen.governance = GovernanceRead::Foreign, Reason::NameTaken),
            (
                "one Secret for two voters",
                |seen| seen.group.spec.identity_secrets = vec!["a".into(), "b".into(), "a".into(), "c".into()],
                Reason::IdentityReused,
            ),
            ("a node of another group", |seen| seen.group.spec.retired = vec!["other-1".into()], Reason::InvalidSpec),
        ];
        for (name, change, expected) in cases {
            let mut seen = observed();
            change(&mut seen);
            assert_eq!(reason(&seen), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_voter_that_the_kept_genesis_does_not_name_is_retained_data_of_another_chain() {
        let mut seen = observed();
        let node = seen.voters[1].node.as_mut().expect("there");
        node.status.as_mut().expect("there").identity = Some(governance_key());
        assert_eq!(reason(&seen), Some(Reason::RetainedDataMismatch));
    }

    #[test]
    fn the_older_group_keeps_a_chain_id() {
        let mut seen = observed();
        let mut other = group();
        other.metadata.name = Some("a-older".to_string());
        other.spec.chain.id = Some("demo-main".to_string());
        seen.others = vec![other.clone()];
        assert_eq!(reason(&seen), Some(Reason::ChainIdTaken));
        other.metadata.name = Some("z-younger".to_string());
        seen.others = vec![other];
        assert_eq!(reason(&seen), None);
    }
}
