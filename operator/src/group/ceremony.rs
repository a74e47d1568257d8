//! Performs the genesis ceremony, one recorded step after the other; any step may be the first after a crash.

use std::time::Instant;

use althing_crds::group::Ceremony;
use althing_crds::{ConsensusGroupStatus, Reason, names};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use node_api::node_core::codec::Decode;
use node_api::node_core::types::{CeremonyNonce, Genesis, Identity};
use node_api::{keys, proto};

use super::genesis::{self, Contribution, Ingredients};
use super::observe::{GenesisRead, GovernanceRead, Observed, has_started};
use super::{desired, taken};
use crate::apply::Made;
use crate::chain::ceremony::{Recorded, Refusal as CeremonyRefusal, Said, Step, decide};
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::kinds::{Child, Owner};
use crate::parts::{configmaps, secrets};
use crate::refusal::Refusal;
use crate::validator::now_s;

/// How far the ceremony is.
pub enum Advance {
    /// Every voter has started.
    Done,
    /// It goes on at the next look.
    Waiting(String),
    /// Only a person can help.
    Refused(Refusal),
}

/// Steps that one reconcile may take; a ceremony needs five.
const STEPS_MAX: usize = 8;

/// Makes the governance key of a chain that has none.
pub async fn ensure_governance(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
) -> Result<Option<Refusal>, Error> {
    if observed.governance != GovernanceRead::Missing {
        return Ok(None);
    }
    let what = format!("governance key of {}", owner.what());
    let key = keys::generate().map_err(|error| Error::Build { what: what.clone(), message: error.to_string() })?;
    let secret = secrets::governance(&desired::group_context(observed)?, &keys::to_pem(&key));
    let at = Instant::now();
    match context.shared.writer.make_once(owner, &secret).await? {
        Made::Now(_) => {
            observed.governance = GovernanceRead::Present(hex::encode(key.public()));
            let memory = &context.shared.memories.governance;
            memory.put(&owner.uid, &secret.name_any(), at, observed.governance.clone());
            Ok(None)
        }
        Made::Before(_) => Err(Error::Conflict { what }),
        Made::Taken => Ok(Some(taken(&Child::of(&secret)?.what(&owner.namespace)))),
    }
}

/// Takes as many steps as can be taken now.
pub async fn advance(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Advance, Error> {
    if is_over(observed) {
        return Ok(Advance::Done);
    }
    if observed.is_external() && observed.kept_genesis().is_none() {
        return Ok(Advance::Waiting("the genesis of the chain is not kept yet".to_string()));
    }
    for _ in 0..STEPS_MAX {
        let Some(nonce) = begin(context, observed).await? else { continue };
        let collected = collect(observed, nonce).await;
        let step = next(observed, &collected);
        tracing::debug!(group = %owner.what(), ?step, "genesis ceremony");
        match step {
            Step::Done => return Ok(Advance::Done),
            Step::Wait(why) => return Ok(Advance::Waiting(why)),
            Step::Refuse(refusal, message) => return Ok(Advance::Refused(refused(refusal, message))),
            Step::Propose | Step::Adopt(..) | Step::Forget => {
                record_candidate(context, observed, &collected, &step).await?
            }
            Step::Record(hash) => {
                if let Some(refusal) = record(context, owner, observed, &collected, &hash).await? {
                    return Ok(Advance::Refused(refusal));
                }
            }
            Step::Drop(..) | Step::Accept(..) | Step::Start(..) => {
                if let Err(why) = call_nodes(context, observed, &collected, &step).await {
                    return Ok(Advance::Waiting(why));
                }
            }
        }
    }
    Ok(Advance::Waiting("the ceremony goes on".to_string()))
}

/// The genesis is recorded, and every node that answers follows it: nothing has to be asked.
fn is_over(observed: &Observed) -> bool {
    let Some(recorded) = observed.status().and_then(|status| status.genesis_hash.as_deref()) else { return false };
    let is_kept = observed.kept_genesis().is_some_and(|genesis| genesis.hash().to_string() == recorded);
    let follows = |said: &proto::GetStatusResponse| has_started(said) && hex::encode(&said.genesis_hash) == recorded;
    let mut voters = observed.voters.iter().filter(|voter| !observed.is_newcomer(voter));
    is_kept && voters.all(|voter| voter.said.as_ref().map_or(true, follows))
}

/// The nonce of the ceremony; when there is none yet, it is recorded first and nothing is answered.
async fn begin(context: &Context, observed: &mut Observed) -> Result<Option<CeremonyNonce>, Error> {
    if let Some(genesis) = observed.kept_genesis() {
        return Ok(Some(genesis.ceremony));
    }
    if let Some(ceremony) = observed.status().and_then(|status| status.ceremony.as_ref()) {
        let nonce = ceremony.nonce.parse::<CeremonyNonce>();
        let failed =
            |_| Error::Build { what: "ceremony".to_string(), message: "the recorded nonce is none".to_string() };
        return nonce.map(Some).map_err(failed);
    }
    let bytes: [u8; 32] = rand::random();
    let time_ms = i64::try_from(now_s().saturating_mul(1_000)).unwrap_or(i64::MAX);
    let ceremony = Ceremony { nonce: hex::encode(bytes), time_ms, candidate_hash: None };
    save(context, observed, |status| status.ceremony = Some(ceremony)).await?;
    Ok(None)
}

/// What the voters reported for one ceremony, in their order.
struct Collected {
    nonce: CeremonyNonce,
    reports: Vec<Result<proto::GenesisReport, String>>,
}

async fn collect(observed: &Observed, nonce: CeremonyNonce) -> Collected {
    let asked = observed.voters.iter().map(|voter| async move {
        // It is brought to the chain by the change that shall give it a vote.
        if observed.is_newcomer(voter) {
            return Err("it has no vote yet".to_string());
        }
        let Some(connection) = &voter.connection else {
            return Err(voter.said.as_ref().err().cloned().unwrap_or_else(|| "no pod".to_string()));
        };
        // A key belongs to a claim: the node's own reconcile tells it which before it makes one.
        let asked = connection.start_request().await.map_err(|error| error.to_string())?;
        if asked.claim_uid.is_empty() {
            return Err("it waits to be told its volume claim".to_string());
        }
        let answered = connection.client.genesis_report(&nonce).await;
        connection.counted("GetGenesisReport", answered).map_err(|error| error.to_string())
    });
    Collected { nonce, reports: futures::future::join_all(asked).await }
}

/// The next step, from what is recorded and what the voters say.
fn next(observed: &Observed, collected: &Collected) -> Step {
    let status = observed.status();
    let recorded = Recorded {
        status: status.and_then(|status| status.genesis_hash.clone()),
        config_map: observed.kept_genesis().map(|genesis| genesis.hash().to_string()),
        candidate: status
            .and_then(|status| status.ceremony.as_ref())
            .and_then(|ceremony| ceremony.candidate_hash.clone()),
        pinned: observed.group.spec.chain.genesis_hash.clone(),
    };
    let held = held(collected);
    let said: Vec<Said> = collected
        .reports
        .iter()
        .map(|report| match report {
            Err(why) => Said::Nothing(why.clone()),
            Ok(report) => Said::Report {
                accepted: Some(hex::encode(&report.accepted_genesis_hash)).filter(|hash| !hash.is_empty()),
                is_started: report.started,
                fits: held.as_ref().is_none_or(|genesis| fits(genesis, report)),
            },
        })
        .collect();
    let names: Vec<String> = observed.voters.iter().map(|voter| voter.name.clone()).collect();
    match assemble(observed, collected) {
        Ok(rebuilt) => decide(&recorded, &names, &said, Some(&rebuilt.hash().to_string())),
        // When all have reported and no genesis comes of it, its reason is what a person needs.
        Err(why) => match decide(&recorded, &names, &said, None) {
            Step::Wait(_) if said.iter().all(|said| matches!(said, Said::Report { .. })) => Step::Wait(why),
            step => step,
        },
    }
}

/// A genesis that some node has accepted.
fn held(collected: &Collected) -> Option<Genesis> {
    let bytes = collected.reports.iter().flatten().find(|report| !report.accepted_genesis.is_empty())?;
    Genesis::decode(&bytes.accepted_genesis).ok()
}

fn fits(genesis: &Genesis, report: &proto::GenesisReport) -> bool {
    let Ok(identity) = node_api::fields::identity("identity", &report.identity) else { return false };
    genesis.voter_set().get(&identity).is_some_and(|entry| report.session_key == entry.session_key.as_bytes())
}

/// The genesis that the present reports make.
fn assemble(observed: &Observed, collected: &Collected) -> Result<Genesis, String> {
    let Collected { nonce, reports } = collected;
    let mut voters: Vec<Contribution> = Vec::with_capacity(reports.len());
    for (voter, report) in observed.voters.iter().zip(reports) {
        let report = report.as_ref().map_err(Clone::clone)?;
        let expected = voter.identity().unwrap_or_default();
        let contribution = genesis::contribution(report, expected).map_err(|why| format!("{}: {why}", voter.name))?;
        voters.push(contribution);
    }
    let ceremony = observed.status().and_then(|status| status.ceremony.as_ref());
    let time_ms = ceremony.map(|ceremony| ceremony.time_ms).ok_or("the ceremony has not begun")?;
    let governance_key = match &observed.governance {
        GovernanceRead::Present(key) => Some(key.as_str()),
        GovernanceRead::InSpec | GovernanceRead::Missing | GovernanceRead::Foreign | GovernanceRead::Invalid(_) => None,
    };
    genesis::assemble(&Ingredients {
        chain: &observed.group.spec.chain,
        chain_id: &observed.chain_id,
        time_ms: u64::try_from(time_ms).unwrap_or(0),
        nonce: *nonce,
        voters: &voters,
        governance_key,
    })
}

/// Writes down which genesis is put before the voters, before any of them sees it.
async fn record_candidate(
    context: &Context,
    observed: &mut Observed,
    collected: &Collected,
    step: &Step,
) -> Result<(), Error> {
    let candidate = match step {
        Step::Adopt(_, hash) => Some(hash.clone()),
        Step::Propose => assemble(observed, collected).ok().map(|genesis| genesis.hash().to_string()),
        Step::Forget
        | Step::Wait(_)
        | Step::Refuse(..)
        | Step::Drop(..)
        | Step::Accept(..)
        | Step::Record(_)
        | Step::Start(..)
        | Step::Done => None,
    };
    save(context, observed, |status| {
        if let Some(ceremony) = status.ceremony.as_mut() {
            ceremony.candidate_hash = candidate;
        }
    })
    .await
}

/// Keeps a copy of the genesis that every voter has accepted, then records its hash for good.
async fn record(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    collected: &Collected,
    hash: &str,
) -> Result<Option<Refusal>, Error> {
    if observed.kept_genesis().is_none() {
        let genesis = match content(observed, collected, hash) {
            Ok(genesis) => genesis,
            Err(message) => return Err(Error::Build { what: format!("genesis of {}", owner.what()), message }),
        };
        let text = node_api::genesis::to_json(&genesis);
        let map = configmaps::genesis(&desired::group_context(observed)?, &text, hash);
        match context.shared.writer.make_once::<ConfigMap>(owner, &map).await? {
            Made::Now(_) => observed.genesis = GenesisRead::Present(Box::new(genesis)),
            Made::Before(_) => return Err(Error::Conflict { what: format!("genesis of {}", owner.what()) }),
            Made::Taken => return Ok(Some(taken(&Child::of(&map)?.what(&owner.namespace)))),
        }
    }
    save(context, observed, |status| status.genesis_hash = Some(hash.to_string())).await?;
    tell(context, observed, "GenesisAccepted", format!("every voter has accepted genesis {hash}")).await;
    Ok(None)
}

/// The genesis with this hash: kept, held by a node, or made from the reports.
fn content(observed: &Observed, collected: &Collected, hash: &str) -> Result<Genesis, String> {
    let is_it = |genesis: &Genesis| genesis.hash().to_string() == hash;
    if let Some(genesis) = observed.kept_genesis().filter(|genesis| is_it(genesis)) {
        return Ok(genesis.clone());
    }
    if let Some(genesis) = held(collected).filter(is_it) {
        if genesis.chain_id.as_str() != observed.chain_id {
            return Err(format!("the held genesis is of chain {}", genesis.chain_id));
        }
        return Ok(genesis);
    }
    let genesis = assemble(observed, collected)?;
    if is_it(&genesis) { Ok(genesis) } else { Err(format!("the reports do not make genesis {hash} any more")) }
}

/// Calls the nodes that this step names, all at once.
async fn call_nodes(context: &Context, observed: &Observed, collected: &Collected, step: &Step) -> Result<(), String> {
    let (indices, hash) = match step {
        Step::Drop(indices, hash) | Step::Accept(indices, hash) | Step::Start(indices, hash) => (indices, hash),
        Step::Wait(_)
        | Step::Refuse(..)
        | Step::Propose
        | Step::Adopt(..)
        | Step::Forget
        | Step::Record(_)
        | Step::Done => return Ok(()),
    };
    let genesis = match step {
        Step::Accept(..) => Some(content(observed, collected, hash)?),
        _ => None,
    };
    let wanted = genesis::hash(hash)?;
    let genesis = genesis.as_ref();
    // The chain has begun: a voter without its genesis, and with another key than genesis names, has lost its volume. It
    // follows the chain and asks it for a new key by itself.
    let has_begun = observed.status().and_then(|status| status.genesis_hash.as_deref()) == Some(hash);
    let has_lost_its_key = |index: usize| {
        let report = collected.reports.get(index).and_then(|report| report.as_ref().ok());
        has_begun && genesis.zip(report).is_some_and(|(genesis, report)| !fits(genesis, report))
    };
    let named = indices.iter().filter_map(|index| Some((observed.voters.get(*index)?, has_lost_its_key(*index))));
    let calls = named.map(|(voter, has_lost_its_key)| async move {
        let failed = |why: String| format!("{}: {why}", voter.name);
        let Some(connection) = &voter.connection else { return Err(failed("no pod".to_string())) };
        let client = &connection.client;
        match (step, genesis) {
            (Step::Accept(..), Some(genesis)) if has_lost_its_key => connection
                .counted("AcceptGenesis", client.join_chain(genesis).await)
                .map(|_| ())
                .map_err(|error| failed(error.to_string())),
            (Step::Accept(..), Some(genesis)) => {
                let answered = connection.counted("AcceptGenesis", client.accept_genesis(genesis).await);
                let answer = answered.map_err(|error| failed(error.to_string()))?;
                let identity: Identity = voter
                    .identity()
                    .unwrap_or_default()
                    .parse()
                    .map_err(|_| failed("it has no identity".to_string()))?;
                if genesis::is_accepted(genesis, &identity, &answer) {
                    Ok(())
                } else {
                    Err(failed("its answer does not prove that it holds its session key".to_string()))
                }
            }
            (Step::Drop(..), _) => connection
                .counted("DropGenesis", client.drop_genesis(&wanted).await)
                .map_err(|error| failed(error.to_string())),
            _ => connection
                .counted("StartChain", client.start_chain(&wanted).await)
                .map_err(|error| failed(error.to_string())),
        }
    });
    let results = futures::future::join_all(calls).await;
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    if matches!(step, Step::Start(..)) && failures.is_empty() {
        tell(context, observed, "ChainStarted", format!("the voters start genesis {hash}")).await;
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

fn refused(refusal: CeremonyRefusal, message: String) -> Refusal {
    let reason = match refusal {
        CeremonyRefusal::RetainedDataMismatch => Reason::RetainedDataMismatch,
        CeremonyRefusal::GenesisMismatch => Reason::GenesisMismatch,
        CeremonyRefusal::GenesisLost => Reason::GenesisLost,
    };
    Refusal::new(reason, message)
}

/// Compare-and-swap of the status: it fails when anybody else has written since it was read.
pub(super) async fn save(
    context: &Context,
    observed: &mut Observed,
    change: impl FnOnce(&mut ConsensusGroupStatus),
) -> Result<(), Error> {
    let mut status = observed.status().cloned().unwrap_or_default();
    change(&mut status);
    let mut changed = observed.group.clone();
    changed.status = Some(status.clone());
    if let Some(written) = context.shared.writer.status(observed.status(), &changed, &status).await? {
        observed.group = written;
    }
    Ok(())
}

async fn tell(context: &Context, observed: &Observed, reason: &str, note: String) {
    context.publish(&observed.group.object_ref(&()), &[Draft::normal(reason, note)]).await;
    tracing::info!(group = %observed.group.name_any(), reason, config_map = %names::genesis_config_map(&observed.group.name_any()), "genesis ceremony");
}
