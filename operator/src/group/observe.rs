//! Everything that a reconcile of a group needs to know, read in one place; the voters are asked at the same time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use althing_crds::template::DefaultImage;
use althing_crds::validator::Role;
use althing_crds::{BlockchainNetwork, ConditionType, ConsensusGroup, ConsensusGroupStatus, ValidatorNode, names};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use node_api::node_core::types::{ChainId, Genesis, Identity};
use node_api::{genesis, keys, proto};

use super::outside::{self, Outside};
use super::{external, facts};
use crate::authorities::Of;
use crate::bundles::{self, Unusable};
use crate::certificates;
use crate::chain::agreement::{Facts, Report};
use crate::chain::nodes::{Node, Target};
use crate::context::Context;
use crate::error::Error;
use crate::kinds::{Kind, Owner, Standing, standing};
use crate::parts::{Installation, default_image};
use crate::references::{self, Missing};
use crate::rollover::{Authority, Source};
use crate::validator::now_s;
use crate::validator::observe::address_of;

/// A block younger than this is never too old.
pub const BLOCK_AGE_MIN: Duration = Duration::from_secs(10);
/// Idle block intervals after which the last block is too old.
const BLOCK_AGE_INTERVALS: u32 = 10;

/// What was read.
pub struct Observed {
    /// The group itself.
    pub group: ConsensusGroup,
    /// Name of the chain.
    pub chain_id: String,
    /// Its network.
    pub network: Option<BlockchainNetwork>,
    /// Other groups of the namespace.
    pub others: Vec<ConsensusGroup>,
    /// The network's authority.
    pub authority: Option<Authority>,
    /// The authorities of other members.
    pub members: Result<String, Unusable>,
    /// The kept genesis.
    pub genesis: GenesisRead,
    /// The document that `spec.external` names; read until there is a kept one.
    pub source: Option<GenesisRead>,
    /// The governance key.
    pub governance: GovernanceRead,
    /// Numbers of the voters: those that the chain has and a newcomer, or those that the spec wants before there is a chain.
    pub numbers: Vec<u32>,
    /// The voters of these numbers.
    pub voters: Vec<Voter>,
    /// Nodes of other members.
    pub outside: Vec<Outside>,
    /// What the spec names and is not there; looked up for a new spec only.
    pub missing: Vec<Missing>,
    /// What f+1 voters report.
    pub facts: Option<Facts>,
    /// Hash of the children as they were last applied.
    pub children_hash: Option<String>,
    /// What builders need to know of this process.
    pub installation: Installation,
}

/// One voter that the group shall have.
pub struct Voter {
    /// Name of its ValidatorNode.
    pub name: String,
    /// Its ValidatorNode.
    pub node: Option<ValidatorNode>,
    /// Its pod.
    pub pod: Option<Pod>,
    /// Its process, if there is one to call.
    pub connection: Option<Node>,
    /// Its own words, or why there are none.
    pub said: Result<proto::GetStatusResponse, String>,
    /// Its report about the chain.
    pub report: Option<Report>,
}

impl Voter {
    /// Its recorded identity, hexadecimal.
    pub fn identity(&self) -> Option<&str> {
        self.node.as_ref()?.status.as_ref()?.identity.as_deref()
    }

    /// It says that it may not sign yet. One that waits for long asks the chain for another key meanwhile; a chain that stands
    /// still gives it none.
    pub fn waits_for_proof(&self) -> bool {
        let session = self.said.as_ref().ok().and_then(|said| said.session.as_ref());
        let state = session.map(proto::Session::state);
        matches!(state, Some(proto::SessionState::WaitingForProof | proto::SessionState::Rotating))
    }
}

/// The genesis ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenesisRead {
    /// There is none.
    Missing,
    /// It belongs to somebody else.
    Foreign,
    /// It holds no genesis.
    Invalid(String),
    /// It holds this one.
    Present(Box<Genesis>),
}

impl GenesisRead {
    /// What this document holds.
    pub fn of(text: &str) -> Self {
        match genesis::from_json(text) {
            Ok(genesis) => Self::Present(Box::new(genesis)),
            Err(error) => Self::Invalid(error.to_string()),
        }
    }
}

/// The governance Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GovernanceRead {
    /// The spec names the keys, or the genesis of a chain that lives elsewhere: the operator has none.
    InSpec,
    /// There is none.
    Missing,
    /// It belongs to somebody else.
    Foreign,
    /// It holds no key.
    Invalid(String),
    /// It holds the key with this public key, hexadecimal.
    Present(String),
}

impl Observed {
    /// The status as it was read.
    pub fn status(&self) -> Option<&ConsensusGroupStatus> {
        self.group.status.as_ref()
    }

    /// The chain lives elsewhere.
    pub fn is_external(&self) -> bool {
        self.group.spec.external.is_some()
    }

    /// It joins the chain, and it is not written down yet that it is one of its voters.
    pub fn is_newcomer(&self, voter: &Voter) -> bool {
        let number = names::node_number(&self.group.name_any(), &voter.name);
        number.is_some_and(|number| !self.members().contains(&number))
    }

    /// The one that joins the chain.
    pub fn newcomer(&self) -> Option<&Voter> {
        self.voters.iter().find(|voter| self.is_newcomer(voter))
    }

    /// Milliseconds between two blocks of the idle chain, as it began.
    pub fn block_interval_ms(&self) -> u64 {
        match self.kept_genesis().filter(|_| self.is_external()) {
            Some(genesis) => genesis.parameters.block_interval_ms,
            None => u64::try_from(self.group.spec.chain.parameters.block_interval_ms).unwrap_or(0),
        }
    }

    /// The image of nodes while the spec names none, to be written down.
    pub fn default_image(&self) -> Option<DefaultImage> {
        let recorded = self.status().and_then(|status| status.default_image.as_ref());
        let restart = self.group.annotations().get(names::ANNOTATION_RESTART);
        default_image(&self.group.spec.node, recorded, restart, &self.installation.node_image)
    }

    /// The age from which the last block of this chain is too old.
    pub fn block_age_max(&self) -> Duration {
        BLOCK_AGE_MIN.max(Duration::from_millis(self.block_interval_ms()).saturating_mul(BLOCK_AGE_INTERVALS))
    }

    /// Numbers of the voters that are no newcomers.
    pub fn members(&self) -> Vec<u32> {
        if is_written_down(&self.group, &self.genesis) { recorded_members(&self.group) } else { self.numbers.clone() }
    }

    /// The genesis that is recorded outside the nodes.
    pub fn kept_genesis(&self) -> Option<&Genesis> {
        match &self.genesis {
            GenesisRead::Present(genesis) => Some(genesis),
            GenesisRead::Missing | GenesisRead::Foreign | GenesisRead::Invalid(_) => None,
        }
    }
}

/// The group as it is now: steps of a ceremony are decided on a live read, never on the cache. Before a voter can be
/// called there are none; what is written down until then is refused when the cache is old.
pub async fn current(context: &Context, group: ConsensusGroup) -> Result<ConsensusGroup, Error> {
    if is_recorded(&group) || !is_callable(context, &group) {
        return Ok(group);
    }
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let api: Api<ConsensusGroup> = Api::namespaced(context.shared.client.clone(), &namespace);
    let what = format!("ConsensusGroup {namespace}/{name}");
    api.get_opt(&name).await.map_err(Error::read(&what))?.ok_or(Error::Conflict { what })
}

/// No genesis is written down, nor one that voters may have accepted: who votes is up to the spec.
pub fn is_open(status: Option<&ConsensusGroupStatus>) -> bool {
    let has_candidate = |status: &ConsensusGroupStatus| {
        status.ceremony.as_ref().is_some_and(|ceremony| ceremony.candidate_hash.is_some())
    };
    status.is_none_or(|status| status.genesis_hash.is_none() && !has_candidate(status))
}

/// This group as the API server says now; none when it is gone, whoever has its name.
pub async fn live(context: &Context, owner: &Owner) -> Result<Option<ConsensusGroup>, Error> {
    let groups: Api<ConsensusGroup> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let group = groups.get_opt(&owner.name).await.map_err(Error::read(owner.what()))?;
    Ok(group.filter(|group| group.uid().as_deref() == Some(owner.uid.as_str())))
}

/// A voter's process may take part in a ceremony.
fn is_callable(context: &Context, group: &ConsensusGroup) -> bool {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let is_up = |number: u32| {
        let pod = context.pod(&namespace, &names::pod(&names::node(&name, number)));
        pod.is_some_and(|pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()))
    };
    (0..u32::try_from(group.spec.replicas).unwrap_or(0)).any(is_up)
}

/// Reads everything and asks the voters.
pub async fn observe(context: &Context, group: ConsensusGroup) -> Result<Observed, Error> {
    let client = &context.shared.client;
    let owner = super::owner(&group)?;
    let (namespace, name) = (owner.namespace.clone(), owner.name.clone());
    let network = context.network(&namespace, &group.spec.network);
    let recorded = network
        .as_ref()
        .and_then(|network| network.status.as_ref())
        .and_then(|status| status.certificate_authority_hash.clone());
    let source = network.as_ref().map_or(Source::Own, Source::of);
    let of = Of { namespace: &namespace, network: &group.spec.network, source };
    let trusted = group.spec.p2p.with(group.spec.external.as_ref()).trusted_authorities;
    let (genesis, governance, authority, members) = tokio::try_join!(
        genesis_read(context, &group, &owner),
        governance_read(context, &group, &owner),
        context.shared.authorities.get(client, of, recorded.as_deref()),
        bundles::read(context, &namespace, &trusted),
    )?;
    let source = match &group.spec.external {
        Some(named) if genesis == GenesisRead::Missing => {
            Some(external::source(context, &namespace, &named.genesis.config_map).await?)
        }
        Some(_) | None => None,
    };
    let chain_id = group.spec.chain.id_or_name(&name);
    let is_seen = group.status.as_ref().and_then(|status| status.observed_generation) == group.metadata.generation;
    let is_stalled = group
        .status
        .as_ref()
        .is_some_and(|status| althing_crds::conditions::holds(&status.conditions, ConditionType::Stalled));
    let missing = if is_seen && !is_stalled {
        Vec::new()
    } else {
        let mut missing = references::read(context, &namespace, &group.spec.node, &group.spec.identity_secrets).await?;
        missing.extend(references::read_authorities(context, &namespace, &trusted).await?);
        missing
    };
    let numbers = numbers(&group, &genesis);
    // Of all groups of the namespace only those matter that have the same chain id.
    let others = context.groups_where(&namespace, |other| {
        let other_name = other.name_any();
        other_name != name && *other.spec.chain.id.as_ref().unwrap_or(&other_name) == chain_id
    });
    let mut observed = Observed {
        children_hash: group.status.as_ref().and_then(|status| status.children_hash.clone()),
        group,
        chain_id,
        network,
        others,
        authority,
        members,
        genesis,
        source,
        governance,
        numbers,
        voters: Vec::new(),
        outside: Vec::new(),
        missing,
        facts: None,
        installation: context.installation(),
    };
    (observed.voters, observed.outside) =
        tokio::try_join!(voters(context, &owner, &observed), outside::ask(context, &owner, &observed))?;
    observed.facts = facts::gather(context, &owner, &observed, (&observed.voters, &observed.outside));
    Ok(observed)
}

/// The kept genesis: live until it is written down; later what was read at the version that the watch knows.
async fn genesis_read(context: &Context, group: &ConsensusGroup, owner: &Owner) -> Result<GenesisRead, Error> {
    let name = names::genesis_config_map(&owner.name);
    let memory = &context.shared.memories.genesis;
    let cached = context.children.get(Kind::ConfigMap, &owner.namespace, &name).filter(|_| is_recorded(group));
    if let Some((version, known)) = memory.get(&owner.uid, &name)
        && cached.is_some_and(|meta| meta.resource_version.as_ref() == Some(&version))
    {
        return Ok(known);
    }
    let absent = &context.shared.memories.no_genesis;
    if absent.get(&owner.uid, &name).is_some() && !is_callable(context, group) {
        return Ok(GenesisRead::Missing);
    }
    let at = Instant::now();
    let api: Api<ConfigMap> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let found = api.get_opt(&name).await.map_err(Error::read(format!("ConfigMap {}/{name}", owner.namespace)))?;
    let Some(map) = found else {
        absent.put(&owner.uid, &name, at, ());
        return Ok(GenesisRead::Missing);
    };
    if standing(&map.metadata, owner) != Standing::Ours {
        return Ok(GenesisRead::Foreign);
    }
    let text = map.data.as_ref().and_then(|data| data.get(names::FILE_GENESIS)).cloned().unwrap_or_default();
    let read = GenesisRead::of(&text);
    memory.put(&owner.uid, &name, at, (map.metadata.resource_version.unwrap_or_default(), read.clone()));
    Ok(read)
}

/// The genesis is written down: from then on it can only be lost.
fn is_recorded(group: &ConsensusGroup) -> bool {
    group.status.as_ref().is_some_and(|status| status.genesis_hash.is_some())
}

async fn governance_read(context: &Context, group: &ConsensusGroup, owner: &Owner) -> Result<GovernanceRead, Error> {
    if group.spec.chain.governance.is_some() || group.spec.external.is_some() {
        return Ok(GovernanceRead::InSpec);
    }
    let name = names::governance_secret(&owner.name);
    let memory = &context.shared.memories.governance;
    if let Some(known) = memory.get(&owner.uid, &name) {
        return Ok(known);
    }
    let at = Instant::now();
    let api: Api<Secret> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let found = api.get_opt(&name).await.map_err(Error::read(format!("Secret {}/{name}", owner.namespace)))?;
    let Some(secret) = found else { return Ok(GovernanceRead::Missing) };
    if standing(&secret.metadata, owner) != Standing::Ours {
        return Ok(GovernanceRead::Foreign);
    }
    let pem = certificates::text(&secret, names::FILE_GOVERNANCE).unwrap_or_default();
    Ok(match keys::from_pem(&pem) {
        Ok(key) => {
            let present = GovernanceRead::Present(hex::encode(key.public()));
            memory.put(&owner.uid, &name, at, present.clone());
            present
        }
        Err(error) => GovernanceRead::Invalid(error.to_string()),
    })
}

/// The voters by number, each one asked what it is and what it sees.
async fn voters(context: &Context, owner: &Owner, observed: &Observed) -> Result<Vec<Voter>, Error> {
    let asked =
        observed.numbers.iter().map(|number| voter(context, owner, observed, names::node(&owner.name, *number)));
    futures::future::try_join_all(asked).await
}

/// Who votes from this group is what the status says, and not the genesis or the spec.
fn is_written_down(group: &ConsensusGroup, genesis: &GenesisRead) -> bool {
    let has_members = || group.status.as_ref().is_some_and(|status| status.members.is_some());
    group.spec.external.is_some() || matches!(genesis, GenesisRead::Present(_)) && has_members()
}

/// The numbers of the voters: as written down once they were changed, with a newcomer, before that those of genesis.
pub fn numbers(group: &ConsensusGroup, genesis: &GenesisRead) -> Vec<u32> {
    if is_written_down(group, genesis) {
        let change = group.status.as_ref().and_then(|status| status.members.as_ref()?.change.as_ref());
        let newcomer = change.and_then(|change| u32::try_from(change.number).ok());
        let all: BTreeSet<u32> = recorded_members(group).into_iter().chain(newcomer).collect();
        return all.into_iter().collect();
    }
    let count = match genesis {
        GenesisRead::Present(genesis) => u32::try_from(genesis.voter_set().entries().len()).unwrap_or(0),
        GenesisRead::Missing | GenesisRead::Foreign | GenesisRead::Invalid(_) => {
            u32::try_from(group.spec.replicas).unwrap_or(0)
        }
    };
    (0..count).collect()
}

/// The voters that are written down.
fn recorded_members(group: &ConsensusGroup) -> Vec<u32> {
    let members = group.status.as_ref().and_then(|status| status.members.as_ref());
    let numbers = members.map(|members| members.numbers.as_slice()).unwrap_or_default();
    numbers.iter().filter_map(|number| u32::try_from(*number).ok()).collect()
}

/// The voters as they are at this moment: pods, and the spec of the one that is meant, from the API server, and every
/// node asked once more.
pub async fn voters_again(
    context: &Context,
    owner: &Owner,
    observed: &Observed,
    target: Option<&str>,
) -> Result<Vec<Voter>, Error> {
    let namespace = &owner.namespace;
    let client = &context.shared.client;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let nodes: Api<ValidatorNode> = Api::namespaced(client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("{}={}", names::LABEL_GROUP, owner.name));
    let (pods, node) = tokio::try_join!(
        async { pods.list(&selector).await.map_err(Error::read(format!("Pods of {}", owner.what()))) },
        async {
            let Some(target) = target else { return Ok(None) };
            nodes.get_opt(target).await.map_err(Error::read(format!("ValidatorNode {namespace}/{target}")))
        },
    )?;
    let asked = observed.voters.iter().map(|voter| {
        let pod_name = names::pod(&voter.name);
        let pod = pods.items.iter().find(|pod| pod.name_any() == pod_name).cloned();
        let node = if Some(voter.name.as_str()) == target { node.clone() } else { voter.node.clone() };
        ask(context, owner, observed, (voter.name.clone(), node, pod))
    });
    futures::future::try_join_all(asked).await
}

async fn voter(context: &Context, owner: &Owner, observed: &Observed, name: String) -> Result<Voter, Error> {
    let node = context
        .node(&owner.namespace, &name)
        .filter(|node| node.spec.group == owner.name && node.spec.role == Role::Validator);
    let pod = context.pod(&owner.namespace, &names::pod(&name)).map(|pod| (*pod).clone());
    ask(context, owner, observed, (name, node, pod)).await
}

type Known = (String, Option<ValidatorNode>, Option<Pod>);

/// Asks the process of one voter, if there is one to call.
async fn ask(context: &Context, owner: &Owner, observed: &Observed, known: Known) -> Result<Voter, Error> {
    let (name, node, pod) = known;
    let mut voter = Voter { name, node, pod, connection: None, said: Err("no pod".to_string()), report: None };
    let (Some((target, identity)), Some(authority)) = (target(owner, observed, &voter), &observed.authority) else {
        return Ok(voter);
    };
    let connection = match context.shared.dialers.node(&target, authority, now_s()) {
        Ok(connection) => connection,
        Err(error) => return Ok(Voter { said: Err(error.to_string()), ..voter }),
    };
    let (said, report) = tokio::join!(connection.status(), connection.report(&identity));
    voter.report = report.ok().filter(|_| said.as_ref().is_ok_and(has_started));
    voter.said = said.map_err(|error| error.to_string());
    voter.connection = Some(connection);
    Ok(voter)
}

fn target(owner: &Owner, observed: &Observed, voter: &Voter) -> Option<(Target, Identity)> {
    let status = voter.pod.as_ref()?.status.as_ref()?;
    let ip = status.pod_ip.as_ref().filter(|_| status.phase.as_deref() == Some("Running"))?;
    let identity: Identity = voter.identity()?.parse().ok()?;
    let target = Target {
        namespace: owner.namespace.clone(),
        node: voter.name.clone(),
        chain_id: ChainId::new(observed.chain_id.clone()).ok()?,
        identity,
        address: address_of(ip),
    };
    Some((target, identity))
}

/// The node follows a chain.
pub fn has_started(said: &proto::GetStatusResponse) -> bool {
    match said.state() {
        proto::NodeState::Unspecified | proto::NodeState::WaitingForGenesis | proto::NodeState::GenesisAccepted => {
            false
        }
        proto::NodeState::WaitingForGrant
        | proto::NodeState::Syncing
        | proto::NodeState::Running
        | proto::NodeState::Halted => true,
    }
}
