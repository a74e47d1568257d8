//! Whether a group can be worked on: what the API server cannot see, and whether what is made once is still there.

use std::collections::BTreeSet;

use althing_crds::chain::Parameters;
use althing_crds::network::NetworkGroup;
use althing_crds::peers::{External, ExternalGenesis};
use althing_crds::{BlockchainNetwork, ConsensusGroup, Reason, names};
use kube::ResourceExt;
use node_api::config::PeerAddress;
use node_api::node_core::crypto::verify_genesis;
use node_api::node_core::types::{ChainId, Genesis, Identity};

use super::observe::{GenesisRead, GovernanceRead, Observed};
use crate::kinds::{age_key, is_controlled};
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
    external(&observed.group)?;
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
    let network = observed.network.as_ref();
    match had_it_first(observed).find(|other| !is_going(other, network)) {
        Some(other) => Err(Refusal::new(
            Reason::ChainIdTaken,
            format!("ConsensusGroup {} of this namespace already has chain id {id}", other.name_any()),
        )),
        None => Ok(()),
    }
}

/// Other groups with the same chain id that had it before this one.
fn had_it_first(observed: &Observed) -> impl Iterator<Item = &ConsensusGroup> {
    observed.others.iter().filter(|other| {
        other.spec.chain.id_or_name(&other.name_any()) == observed.chain_id
            && age_key(*other) < age_key(&observed.group)
    })
}

/// Why this group has to wait although its spec is good: a group that had the chain id before is on its way out. Nobody
/// needs to help, so that this is no refusal.
pub fn awaited(observed: &Observed) -> Option<String> {
    let (id, former) = (&observed.chain_id, had_it_first(observed).next()?.name_any());
    Some(format!(
        "chain id {id} is that of ConsensusGroup {former} until that one is gone; this group begins another chain after \
         that: to go on with the former one, give the group its former name again"
    ))
}

/// This group is being deleted, or will be because its network does not name it any more.
pub fn is_going(group: &ConsensusGroup, network: Option<&BlockchainNetwork>) -> bool {
    let is_dropped = network.is_some_and(|network| {
        let is_owned = network.metadata.uid.as_ref().is_some_and(|uid| is_controlled(&group.metadata, uid));
        let named = |spec: &NetworkGroup| names::group(&network.name_any(), &spec.name) == group.name_any();
        is_owned && !network.spec.groups.iter().any(named)
    });
    group.metadata.deletion_timestamp.is_some() || is_dropped
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

/// What a chain that lives elsewhere is reached by, and nothing that only a genesis made here could hold.
fn external(group: &ConsensusGroup) -> Result<(), Refusal> {
    let Some(external) = &group.spec.external else { return Ok(()) };
    let invalid = |message: String| Err(Refusal::new(Reason::InvalidSpec, message));
    if group.spec.chain.parameters != Parameters::default() {
        return invalid("chain.parameters are those of the genesis that external names; remove them".to_string());
    }
    for peer in &external.peers {
        if let Err(error) = peer.address.parse::<PeerAddress>() {
            return invalid(format!("external.peers: {error}"));
        }
        if peer.identity.parse::<Identity>().is_err() {
            return invalid(format!("external.peers: {} is no identity", peer.identity));
        }
    }
    Ok(())
}

/// The document that `external.genesis` names is the genesis that its hash names.
fn source(observed: &Observed, external: &External) -> Result<(), Refusal> {
    let ExternalGenesis { config_map, hash } = &external.genesis;
    let mismatch = |why: String| {
        Err(Refusal::new(Reason::GenesisMismatch, format!("the genesis in ConfigMap {config_map} {why}")))
    };
    let genesis = match &observed.source {
        Some(GenesisRead::Present(genesis)) => genesis,
        Some(GenesisRead::Invalid(why)) => {
            let message = format!("ConfigMap {config_map} of external.genesis holds no genesis: {why}");
            return Err(Refusal::new(Reason::GenesisMissing, message));
        }
        Some(GenesisRead::Missing | GenesisRead::Foreign) | None => {
            let message = format!("ConfigMap {config_map} of external.genesis does not exist");
            return Err(Refusal::new(Reason::GenesisMissing, message));
        }
    };
    let found = genesis.hash().to_string();
    if found != *hash {
        return mismatch(format!("has hash {found}, external.genesis.hash names {hash}"));
    }
    if genesis.chain_id.as_str() != observed.chain_id {
        return mismatch(format!("is of chain {}, chain.id names {}", genesis.chain_id, observed.chain_id));
    }
    match verify_genesis(genesis) {
        Ok(()) => own_voters_came_later(observed, genesis),
        Err(error) => mismatch(format!("is not good: {error}")),
    }
}

/// No node of this group is a voter of the genesis: its keys would be those of a chain that began here.
fn own_voters_came_later(observed: &Observed, genesis: &Genesis) -> Result<(), Refusal> {
    let is_first = |identity: &str| {
        identity.parse::<Identity>().is_ok_and(|identity| genesis.voter_set().get(&identity).is_some())
    };
    match observed.voters.iter().find(|voter| voter.identity().is_some_and(is_first)) {
        Some(voter) => Err(Refusal::new(
            Reason::RetainedDataMismatch,
            format!("{} is a voter of the genesis itself: this chain began here, and is no external one", voter.name),
        )),
        None => Ok(()),
    }
}

fn genesis(observed: &Observed) -> Result<(), Refusal> {
    let name = names::genesis_config_map(&observed.group.name_any());
    let genesis = match &observed.genesis {
        GenesisRead::Missing => {
            let recorded = observed.status().and_then(|status| status.genesis_hash.as_ref());
            return match (recorded, &observed.group.spec.external) {
                (Some(_), _) => {
                    let message =
                        format!("ConfigMap {name} with the genesis of this chain is gone; restore it from a backup");
                    Err(Refusal::new(Reason::GenesisLost, message))
                }
                (None, Some(external)) => source(observed, external),
                (None, None) => Ok(()),
            };
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
    let Some(external) = &observed.group.spec.external else { return voters_match(observed, genesis) };
    let (kept, wanted) = (genesis.hash().to_string(), &external.genesis.hash);
    if kept != *wanted {
        return Err(Refusal::new(
            Reason::RetainedDataMismatch,
            format!("the kept genesis (ConfigMap {name}) is {kept}, external.genesis.hash names {wanted}"),
        ));
    }
    own_voters_came_later(observed, genesis)
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
    use super::super::fixtures::{contribution, genesis, governance_key, group, observed};
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

    /// A group that joins the chain of `observed`, and has seen nothing of it but the document.
    fn joining() -> Observed {
        let mut seen = observed();
        seen.group.spec.chain = Default::default();
        seen.group.spec.chain.id = Some("demo-main".to_string());
        let hash = genesis().hash();
        let external = format!(
            "{{genesis: {{configMap: chain, hash: {hash}}}, trustedAuthorities: [{{configMap: home}}],
              peers: [{{identity: {}, address: 'a.example:7100'}}]}}",
            contribution(0).identity
        );
        seen.group.spec.external = Some(serde_yaml::from_str(&external).expect("parses"));
        seen.group.status = None;
        seen.source = Some(std::mem::replace(&mut seen.genesis, GenesisRead::Missing));
        seen.governance = GovernanceRead::InSpec;
        (seen.numbers, seen.voters, seen.facts) = (Vec::new(), Vec::new(), None);
        seen
    }

    #[test]
    fn only_the_named_genesis_is_joined() {
        assert_eq!(validate(&joining()), Ok(()));
        let other = |seen: &mut Observed| {
            let external = seen.group.spec.external.as_mut().expect("there");
            external.genesis.hash = "ab".repeat(32);
        };
        let cases: [(&str, Change, Reason); 7] = [
            ("no document", |seen| seen.source = Some(GenesisRead::Missing), Reason::GenesisMissing),
            ("no genesis", |seen| seen.source = Some(GenesisRead::Invalid("no".into())), Reason::GenesisMissing),
            ("another chain", |seen| seen.chain_id = "demo-other".into(), Reason::GenesisMismatch),
            (
                "parameters of its own",
                |seen| seen.group.spec.chain.parameters.block_interval_ms = 7,
                Reason::InvalidSpec,
            ),
            (
                "no address",
                |seen| seen.group.spec.external.as_mut().expect("there").peers[0].address = "a:b:7100".into(),
                Reason::InvalidSpec,
            ),
            (
                "a recorded genesis that is gone",
                |seen| {
                    let genesis_hash = Some(genesis().hash().to_string());
                    seen.group.status = Some(althing_crds::ConsensusGroupStatus { genesis_hash, ..Default::default() });
                },
                Reason::GenesisLost,
            ),
            ("a chain that began here", |seen| seen.voters = observed().voters, Reason::RetainedDataMismatch),
        ];
        for (name, change, expected) in cases {
            let mut seen = joining();
            change(&mut seen);
            assert_eq!(reason(&seen), Some(expected), "{name}");
        }
        let mut seen = joining();
        other(&mut seen);
        assert_eq!(reason(&seen), Some(Reason::GenesisMismatch), "another hash");
        seen.genesis = seen.source.take().expect("there");
        assert_eq!(reason(&seen), Some(Reason::RetainedDataMismatch), "data of another genesis was kept");
    }

    #[test]
    fn a_group_that_joined_a_chain_never_becomes_its_home() {
        let mut seen = joining();
        seen.genesis = seen.source.take().expect("there");
        assert_eq!(reason(&seen), None);
        seen.group.spec.external = None;
        seen.governance = GovernanceRead::Missing;
        assert_eq!(reason(&seen), Some(Reason::GovernanceKeyLost));
        // With keys in the spec: its nodes are none of the voters that the genesis names.
        seen.governance = GovernanceRead::InSpec;
        (seen.numbers, seen.voters) = ((0..4).collect(), observed().voters);
        for (number, voter) in (10..).zip(&mut seen.voters) {
            let status = voter.node.as_mut().and_then(|node| node.status.as_mut()).expect("there");
            status.identity = Some(contribution(number).identity.to_string());
        }
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
        assert_eq!((reason(&seen), awaited(&seen)), (None, None));
    }

    #[test]
    fn a_renamed_group_waits_until_the_former_one_is_gone() {
        let mut seen = observed();
        let mut former = group();
        former.metadata.name = Some("demo-former".to_string());
        former.spec.chain.id = Some("demo-main".to_string());
        let owner =
            "{apiVersion: althing.dev/v1alpha1, kind: BlockchainNetwork, name: demo, uid: n-1, controller: true}";
        former.metadata.owner_references = Some(vec![serde_yaml::from_str(owner).expect("a reference")]);
        seen.others = vec![former.clone()];
        assert_eq!(reason(&seen), None, "its network does not name it any more: it goes by itself");
        let why = awaited(&seen).expect("it waits");
        assert!(why.contains("chain id demo-main is that of ConsensusGroup demo-former until"), "{why}");
        let network = seen.network.as_mut().expect("there");
        network.spec.groups.push(serde_yaml::from_str("{name: former}").expect("a group"));
        assert_eq!(reason(&seen), Some(Reason::ChainIdTaken), "its network names it");
        former.metadata.deletion_timestamp = former.metadata.creation_timestamp.clone();
        seen.others = vec![former];
        assert_eq!((reason(&seen), awaited(&seen)), (None, Some(why)), "it is being deleted");
        seen.others.clear();
        assert_eq!(awaited(&seen), None);
    }
}
