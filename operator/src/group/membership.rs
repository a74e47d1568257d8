//! Carries out changes of the voters: writes down what is meant, lets the newcomer follow the chain, and puts one
//! governance transaction before it.

use std::collections::{BTreeMap, BTreeSet};

use althing_crds::group::{MemberChange, MemberDirection, Members};
use althing_crds::{Reason, names};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};
use node_api::governance::{GovernanceTerms, TransactionDocument, VoterReport, unsigned, with_signature};
use node_api::keys;
use node_api::node_core::types::{GovernanceChange, Height, Identity, Nonce, Power, Transaction};
use node_api::proto::{NodeState, Wait};

use super::members::governance::{Answer, Governance, Standing, agreed};
use super::members::{self, Change, Direction, Move, POWER, View};
use super::observe::{GovernanceRead, Observed, Voter};
use super::{ceremony, disruption, pending, rollout};
use crate::certificates;
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::faults;
use crate::kinds::Owner;
use crate::refusal::Refusal;
use crate::validator::pods::failing;

/// For how many blocks a transaction that the operator signs can be executed: enough for the looks between its making and
/// its sending, which take seconds while a voter is cut off and the others make several blocks in each, and not more,
/// because a new one is made only when the old one has expired.
const VALIDITY_BLOCKS: u64 = 100;
/// The same where people have to sign.
const VALIDITY_BLOCKS_SIGNED_BY_PEOPLE: u64 = 100_000;

const NOBODY_KNOWS: &str = "too few voters answer to know who may change the chain";

/// How far the voters are what the spec wants.
pub enum Progress {
    /// They are.
    Settled,
    /// The chain cannot come there.
    Refused(Refusal),
    /// A step was taken, or is about to be.
    Going(String),
    /// It goes on by itself; what is waited for.
    Waiting(String),
    /// People must sign; what.
    AwaitingGovernance(String),
}

/// A change is written down, or the spec wants somebody in the place of a voter.
pub fn is_under_way(owner: &Owner, observed: &Observed) -> bool {
    let retired = retired(owner, observed);
    pending::change(observed).is_some() || observed.members().iter().any(|number| retired.contains(number))
}

/// Takes the next move.
pub async fn advance(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Progress, Error> {
    let change = pending::change(observed);
    let newcomer_lacks = match (&change, observed.newcomer()) {
        (Some(Change { direction: Direction::Join, .. }), Some(newcomer)) => follow(context, observed, newcomer).await,
        (Some(Change { direction: Direction::Join, .. }), None) => Some("its node is not known".to_string()),
        (Some(Change { direction: Direction::Leave, .. }) | None, _) => None,
    };
    let identities = identities(owner, &observed.voters);
    let is_dead = is_dead(observed).await;
    let change = change.map(|change| Change { proposed_until: change.proposed_until.filter(|_| !is_dead), ..change });
    let (retired, numbers, facts) = (retired(owner, observed), observed.members(), observed.facts.clone());
    let view = View {
        replicas: u32::try_from(observed.group.spec.replicas).unwrap_or(0),
        retired: &retired,
        is_external: observed.is_external(),
        numbers: &numbers,
        identities: &identities,
        change: change.as_ref(),
        newcomer_lacks: newcomer_lacks.as_deref(),
        facts: facts.as_ref(),
    };
    match members::decide(&view) {
        Move::Nothing => Ok(Progress::Settled),
        Move::Refuse(why) => Ok(Progress::Refused(Refusal::new(Reason::MembershipFixed, why))),
        Move::Wait(why) => Ok(waiting(observed, why)),
        Move::Begin(change) => {
            let why = say(&change);
            // One that was voted out by others and has to come back is a newcomer again.
            let mut numbers = observed.members();
            numbers.retain(|number| change.direction == Direction::Leave || *number != change.number);
            write(context, observed, numbers, Some(written(&change))).await?;
            tell(context, observed, "VoterChangeBegun", why.clone()).await;
            Ok(Progress::Going(why))
        }
        Move::Forget => {
            let numbers = observed.members();
            write(context, observed, numbers, None).await?;
            tell(context, observed, "VoterChangeForgotten", "the spec does not want it any more".to_string()).await;
            Ok(Progress::Going("looking at the voters again".to_string()))
        }
        Move::Finish(numbers) => {
            let note = format!("the chain has {} voters of this group", numbers.len());
            write(context, observed, numbers, None).await?;
            tell(context, observed, "VoterChangeOver", note.clone()).await;
            Ok(Progress::Going(note))
        }
        Move::Release(why) => {
            bear(context, observed, false).await?;
            Ok(Progress::Going(why))
        }
        Move::Bear | Move::Propose => {
            let Some(change) = change.clone() else { return Ok(Progress::Settled) };
            let Some(rules) = governance(observed).await else { return Ok(Progress::Going(NOBODY_KNOWS.to_string())) };
            // When people will have signed is not known, and for that long nobody could be stopped.
            if standing(observed, &rules.0) == Standing::Alone {
                if !change.is_borne {
                    bear(context, observed, true).await?;
                    return Ok(Progress::Going("waiting until the fault budget counts on the change".to_string()));
                }
                if let Some(why) = lacks_room(context, owner, observed, &view).await? {
                    return Ok(Progress::Going(why));
                }
            }
            propose(context, owner, observed, (&Proposal { change, identities }, rules)).await
        }
    }
}

/// Why the change is not put before the chain at this moment. Everything is looked at again, past all caches: who is away
/// counts as silent, and from here on the disruption budget lets nobody go whom the chain needs after the change.
async fn lacks_room(
    context: &Context,
    owner: &Owner,
    observed: &Observed,
    view: &View<'_>,
) -> Result<Option<String>, Error> {
    let live = disruption::look_again(context, owner, observed, None).await?;
    if live.facts.as_ref().is_some_and(|facts| facts.is_nameless) {
        return Ok(Some("the identity of a voter is not known".to_string()));
    }
    let facts = live.facts.map(|facts| facts.without(&rollout::absent(&live.members)));
    Ok(match members::decide(&View { facts: facts.as_ref(), ..view.clone() }) {
        Move::Propose if live.is_budget_current => None,
        Move::Propose => Some("waiting until the disruption budget counts on the change".to_string()),
        Move::Wait(why) | Move::Release(why) => Some(why),
        Move::Nothing | Move::Refuse(_) | Move::Begin(_) | Move::Forget | Move::Finish(_) | Move::Bear => {
            Some("looking at the voters again".to_string())
        }
    })
}

/// Writes down whether the fault budget counts on the change.
async fn bear(context: &Context, observed: &mut Observed, shall: bool) -> Result<(), Error> {
    let numbers = observed.members();
    let change = observed.status().and_then(|status| status.members.as_ref()?.change.clone());
    write(context, observed, numbers, change.map(|change| MemberChange { is_borne: shall, ..change })).await
}

/// The transaction that people shall sign can never be executed: governance has done something else meanwhile.
async fn is_dead(observed: &Observed) -> bool {
    let change = observed.status().and_then(|status| status.members.as_ref()?.change.as_ref());
    let document = change.and_then(|change| change.transaction.as_ref());
    let Some(Ok(transaction)) = document.map(|text| TransactionDocument::read(text)) else { return false };
    governance(observed).await.is_some_and(|(_, nonce)| transaction.body().nonce < nonce)
}

/// The numbers of the voters that the spec retires by name.
fn retired(owner: &Owner, observed: &Observed) -> BTreeSet<u32> {
    observed.group.spec.retired.iter().filter_map(|name| names::node_number(&owner.name, name)).collect()
}

fn written(change: &Change) -> MemberChange {
    MemberChange {
        number: i32::try_from(change.number).unwrap_or(i32::MAX),
        direction: match change.direction {
            Direction::Join => MemberDirection::Join,
            Direction::Leave => MemberDirection::Leave,
        },
        replaces: change.replaces.and_then(|number| i32::try_from(number).ok()),
        since: Timestamp::now().to_string(),
        is_borne: false,
        proposed_until: None,
        transaction: None,
    }
}

fn say(change: &Change) -> String {
    match (change.direction, change.replaces) {
        (Direction::Join, None) => format!("voter {} joins the chain", change.number),
        (Direction::Join, Some(former)) => format!("voter {} takes the place of voter {former}", change.number),
        (Direction::Leave, _) => format!("voter {} leaves the chain", change.number),
    }
}

fn waiting(observed: &Observed, why: String) -> Progress {
    let change = observed.status().and_then(|status| status.members.as_ref()?.change.as_ref());
    if change.is_some_and(|change| change.transaction.is_some()) {
        let own = match &observed.governance {
            // Without this a person would wait for the operator, which made this key and signed with it before.
            GovernanceRead::Present(_) => "; the operator's governance key alone may not change this chain any more",
            GovernanceRead::InSpec | GovernanceRead::Missing | GovernanceRead::Foreign | GovernanceRead::Invalid(_) => {
                ""
            }
        };
        let who = if observed.is_external() { "; it is for the governance of the chain to decide" } else { own };
        return Progress::AwaitingGovernance(format!(
            "{why}{who}; sign the document in status.members.change.transaction with `althing-node tx sign` and send it with `althing-node tx submit`"
        ));
    }
    Progress::Waiting(why)
}

fn identities(owner: &Owner, voters: &[Voter]) -> BTreeMap<u32, String> {
    voters
        .iter()
        .filter_map(|voter| Some((names::node_number(&owner.name, &voter.name)?, voter.identity()?.to_string())))
        .collect()
}

/// Gives the chain's genesis to a newcomer that has none, and says what it lacks until it has the chain's last blocks.
async fn follow(context: &Context, observed: &Observed, newcomer: &Voter) -> Option<String> {
    let (said, connection) = match (&newcomer.said, &newcomer.connection) {
        (Ok(said), Some(connection)) => (said, connection),
        (Err(_), _) | (_, None) => return Some(not_running(newcomer)),
    };
    let Some(genesis) = observed.kept_genesis() else { return Some("the genesis is not kept".to_string()) };
    let asked = match said.state() {
        NodeState::WaitingForGenesis => {
            let joined = connection.client.join_chain(genesis).await.map(|_| ());
            connection.counted("AcceptGenesis", joined)
        }
        NodeState::GenesisAccepted => {
            connection.counted("StartChain", connection.client.start_chain(&genesis.hash()).await)
        }
        NodeState::Unspecified
        | NodeState::WaitingForGrant
        | NodeState::Syncing
        | NodeState::Running
        | NodeState::Halted => Ok(()),
    };
    if let Err(error) = asked {
        tracing::info!(node = %newcomer.name, %error, "the newcomer does not follow the chain yet, trying again");
    }
    let follows = match said.state() {
        NodeState::Running => said.synced,
        NodeState::Syncing => faults::seems_to_follow(context.shared.config.faults.as_ref()),
        NodeState::Unspecified
        | NodeState::WaitingForGenesis
        | NodeState::GenesisAccepted
        | NodeState::WaitingForGrant
        | NodeState::Halted => false,
    };
    (!follows).then(|| "its node fetches what it lacks".to_string())
}

/// Why nothing answers for a newcomer, and the way out when its machine is lost before it has started.
fn not_running(newcomer: &Voter) -> String {
    let why = match newcomer.pod.as_ref() {
        Some(pod) => failing(pod).unwrap_or_else(|| "its pod is not running".to_string()),
        None => "it has no pod yet".to_string(),
    };
    format!("{why}; if it cannot start, add {} to retired and another one takes its place", newcomer.name)
}

/// A change that is put before the chain.
struct Proposal {
    change: Change,
    identities: BTreeMap<u32, String>,
}

/// Makes the transaction. Written down before it is sent: until it has expired no other one is made.
async fn propose(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    (proposal, (governance, nonce)): (&Proposal, (Governance, Nonce)),
) -> Result<Progress, Error> {
    let own = standing(observed, &governance);
    let key = match own {
        Standing::Alone | Standing::WithOthers => Some(governance_key(context, owner).await?),
        Standing::Outside => None,
    };
    let is_enough = own == Standing::Alone;
    let validity = if is_enough { VALIDITY_BLOCKS } else { VALIDITY_BLOCKS_SIGNED_BY_PEOPLE };
    let height = observed.facts.as_ref().map_or(0, |facts| facts.height);
    let valid_until = height.saturating_add(validity);
    let terms = (nonce, Height::new(valid_until));
    let transaction = match transaction(observed, proposal, terms).await {
        Ok(transaction) => transaction,
        Err(why) => return Ok(Progress::Going(why)),
    };
    let failed =
        |error: String| Error::Build { what: format!("governance transaction of {}", owner.what()), message: error };
    let transaction = match &key {
        Some(key) => with_signature(&transaction, key).map_err(|error| failed(error.to_string()))?,
        None => transaction,
    };
    let document = match own {
        Standing::Alone => None,
        Standing::WithOthers | Standing::Outside => {
            Some(TransactionDocument::new(&transaction).map_err(|error| failed(error.to_string()))?.to_json())
        }
    };
    let mut change = written(&proposal.change);
    change.proposed_until = i64::try_from(valid_until).ok();
    change.is_borne = is_enough;
    change.transaction = document;
    let numbers = observed.members();
    write(context, observed, numbers, Some(change)).await?;
    let why = say(&proposal.change);
    if !is_enough {
        let who = governance.words();
        tell(context, observed, "AwaitingGovernance", format!("{why}: governance must sign, {who}")).await;
        return Ok(waiting(observed, why));
    }
    send(observed, &transaction).await;
    tell(context, observed, "VoterChangeProposed", format!("{why}: transaction {}", transaction.id())).await;
    Ok(Progress::Going(why))
}

/// What the operator's own key can do.
fn standing(observed: &Observed, governance: &Governance) -> Standing {
    match &observed.governance {
        GovernanceRead::Present(key) => governance.standing(key),
        GovernanceRead::InSpec | GovernanceRead::Missing | GovernanceRead::Foreign | GovernanceRead::Invalid(_) => {
            Standing::Outside
        }
    }
}

async fn transaction(
    observed: &Observed,
    proposal: &Proposal,
    (nonce, valid_until): (Nonce, Height),
) -> Result<Transaction, String> {
    let genesis = observed.kept_genesis().ok_or("the genesis is not kept")?;
    let Proposal { change, identities } = proposal;
    let identity_of = |number: u32| {
        let identity: Option<Identity> = identities.get(&number).and_then(|identity| identity.parse().ok());
        identity.ok_or_else(|| format!("the identity of voter {number} is not known"))
    };
    let identity = identity_of(change.number)?;
    let former = change.replaces.map(identity_of).transpose()?;
    let (incarnation, change) = match change.direction {
        Direction::Join => {
            let connection = observed.newcomer().and_then(|newcomer| newcomer.connection.as_ref());
            let connection = connection.ok_or("the newcomer cannot be called")?;
            let reported = connection.counted("GetVoterReport", connection.client.voter_report().await);
            let reported = reported.map_err(|error| error.to_string())?;
            let power = change.replaces.and_then(|former| power(observed, identities.get(&former)?)).unwrap_or(POWER);
            let voter = VoterReport::from_proto(&reported).voter(Power::new(power));
            let (incarnation, voter) = voter.map_err(|error| error.to_string())?;
            if voter.identity != identity {
                return Err(format!("the newcomer reports identity {}", voter.identity));
            }
            let change = match former {
                Some(former) => GovernanceChange::ReplaceVoter { former, voter },
                None => GovernanceChange::AddVoter(voter),
            };
            (incarnation, change)
        }
        Direction::Leave => (genesis.incarnation(), GovernanceChange::RemoveVoter { identity }),
    };
    if incarnation != genesis.incarnation() {
        return Err("the newcomer follows another chain".to_string());
    }
    Ok(unsigned(&GovernanceTerms { incarnation, nonce, valid_until }, change))
}

fn power(observed: &Observed, identity: &str) -> Option<u64> {
    Some(observed.facts.as_ref()?.voters.get(identity)?.power)
}

/// Who may change the chain, as voters with more than f power say, and the nonce of the next governance transaction.
async fn governance(observed: &Observed) -> Option<(Governance, Nonce)> {
    let facts = observed.facts.as_ref()?;
    let own =
        observed.voters.iter().filter_map(|voter| Some((voter.connection.as_ref()?, voter.identity()?.to_string())));
    let outside = observed.outside.iter().map(|node| (&node.connection, node.identity.to_string()));
    let mut seen = BTreeSet::new();
    let known = own.chain(outside).filter(|(_, identity)| seen.insert(identity.clone()));
    let asked = known.filter_map(|(connection, identity)| {
        let power = power(observed, &identity)?;
        Some(async move {
            let said = connection.counted("GetGovernance", connection.client.governance().await).ok()?;
            let keys = said.keys.iter().map(hex::encode).collect();
            let governance = Governance { threshold: said.threshold, keys };
            Some(Answer { power, height: said.height, nonce: said.nonce, governance })
        })
    });
    let answers: Vec<Answer> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    let (governance, nonce) = agreed(&answers, facts.total_power)?;
    Some((governance, Nonce::new(nonce)))
}

/// Hands the transaction to every voter that answers: they tell each other, but one alone may fail at this moment.
async fn send(observed: &Observed, transaction: &Transaction) {
    let connections = observed.voters.iter().filter_map(|voter| voter.connection.as_ref());
    let sent = connections.map(|connection| async {
        connection.counted("Submit", connection.client.submit(transaction, Wait::Accepted).await)
    });
    for error in futures::future::join_all(sent).await.into_iter().filter_map(Result::err) {
        tracing::info!(%error, transaction = %transaction.id(), "a voter did not take the governance transaction");
    }
}

async fn governance_key(context: &Context, owner: &Owner) -> Result<node_api::node_core::crypto::KeyPair, Error> {
    let name = names::governance_secret(&owner.name);
    let what = format!("Secret {}/{name}", owner.namespace);
    let api: Api<Secret> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let secret = api.get(&name).await.map_err(Error::read(&what))?;
    let pem = certificates::text(&secret, names::FILE_GOVERNANCE).unwrap_or_default();
    keys::from_pem(&pem).map_err(|error| Error::Build { what, message: error.to_string() })
}

/// Compare-and-swap of what is written down.
async fn write(
    context: &Context,
    observed: &mut Observed,
    numbers: Vec<u32>,
    change: Option<MemberChange>,
) -> Result<(), Error> {
    let numbers = numbers.into_iter().filter_map(|number| i32::try_from(number).ok()).collect();
    let seen = observed.facts.as_ref().map_or(0, |facts| facts.height);
    let height = i64::try_from(seen.max(pending::written_at(observed))).ok();
    ceremony::save(context, observed, |status| status.members = Some(Members { numbers, change, height })).await
}

async fn tell(context: &Context, observed: &Observed, reason: &str, note: String) {
    context.publish(&observed.group.object_ref(&()), &[Draft::normal(reason, note)]).await;
    tracing::info!(group = %observed.group.name_any(), reason, "voters");
}
