//! What is said of a network: its groups' words, the worst first.

use althing_crds::conditions::{self, Statement};
use althing_crds::gateway::GATEWAYS_DEFAULT;
use althing_crds::observers::OBSERVERS_DEFAULT;
use althing_crds::scaling::TierStatus;
use althing_crds::{
    BlockchainNetworkStatus, Condition, ConditionStatus, ConditionType, ConsensusGroup, ConsensusGroupStatus, Reason,
    names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::desired;
use super::observe::{AuthorityRead, Observed};
use super::tiers::Workload;
use crate::certificates;
use crate::issuer::Issuance;
use crate::kinds::{Child, Kind};
use crate::pause::{self, PAUSED};
use crate::readings;
use crate::refusal::Refusal;
use crate::rollover::{self, Stage, Step};

/// How far the reconcile came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was done: only a person can help.
    Refused(Refusal),
    /// Nothing was done: the object is paused.
    Paused,
    /// A step failed, and is tried again.
    Failed(String),
    /// Children were written.
    Applied,
    /// All children are as they shall be.
    Unchanged,
}

/// What a person says of another authority.
const CONFIRM: &str = names::ANNOTATION_CONFIRM;
/// Ranges of block ages from young to old, as groups write them.
const BUCKETS: [&str; 5] = ["<10s", "<1m", "<10m", "<1h", ">=1h"];

/// The new status.
pub fn next(observed: &Observed, progress: &Progress, now: &Time) -> BlockchainNetworkStatus {
    let before = observed.network.status.clone().unwrap_or_default();
    let generation = observed.network.metadata.generation.unwrap_or(0);
    let available = combined(observed, ConditionType::Available);
    let at_risk = combined(observed, ConditionType::QuorumAtRisk);
    let reconciling = reconciling(observed, progress);
    let stalled = stalled(observed, progress);
    let ready = crate::group::status::ready(&available, &reconciling, &stalled);
    let statements = [ready, reconciling, stalled, available, at_risk];
    let statuses: Vec<&ConsensusGroupStatus> =
        observed.groups.iter().flatten().filter_map(|group| group.status.as_ref()).collect();
    let is_complete = statuses.len() == observed.network.spec.groups.len();
    let (next, former) = others(observed, &before);
    let mut after = BlockchainNetworkStatus {
        observed_generation: Some(generation),
        conditions: readings::in_order(conditions::merge(&before.conditions, &statements, generation, now)),
        signing: signing(&statuses).filter(|_| is_complete),
        margin: statuses.iter().map(|status| status.margin).min().flatten().filter(|_| is_complete),
        height: statuses.iter().filter_map(|status| status.height).min().or(before.height),
        block_age: oldest(&statuses).filter(|_| is_complete),
        observed_at: statuses
            .iter()
            .filter_map(|status| status.observed_at.clone())
            .min()
            .or_else(|| before.observed_at.clone()),
        version: version(&statuses).or_else(|| before.version.clone()),
        certificate_authority_hash: before.certificate_authority_hash.clone(),
        next_certificate_authority_hash: next,
        former_certificate_authority_hash: former,
        certificate_authority_expires: match &observed.authority {
            AuthorityRead::Present(authority) => certificates::time(authority.issuer.validity().not_after_s()),
            AuthorityRead::Missing | AuthorityRead::Foreign | AuthorityRead::Invalid(_) => {
                before.certificate_authority_expires.clone()
            }
        },
        operator_certificate_expires: match &observed.authority {
            AuthorityRead::Present(authority) => authority.own_ends_s().and_then(certificates::time),
            AuthorityRead::Missing | AuthorityRead::Foreign | AuthorityRead::Invalid(_) => {
                before.operator_certificate_expires.clone()
            }
        },
        children_hash: observed.children_hash.clone(),
        observers: observers(observed),
        gateway: gateway(observed),
    };
    keep_readings(&before, &mut after, now);
    after
}

/// The authority that comes, and the one that went.
fn others(observed: &Observed, before: &BlockchainNetworkStatus) -> (Option<String>, Option<String>) {
    match &observed.authority {
        AuthorityRead::Present(authority) => match &authority.stage {
            Stage::Settled => {
                let former = authority.former().first().map(|pem| certificates::hash(pem));
                (None, former)
            }
            Stage::Trusting { hash, .. } => (Some(hash.clone()), None),
            Stage::Signing { hash } => (None, Some(hash.clone())),
        },
        AuthorityRead::Missing | AuthorityRead::Foreign | AuthorityRead::Invalid(_) => {
            (before.next_certificate_authority_hash.clone(), before.former_certificate_authority_hash.clone())
        }
    }
}

/// Height and block age alone are no reason to write before their time.
fn keep_readings(before: &BlockchainNetworkStatus, after: &mut BlockchainNetworkStatus, now: &Time) {
    let is_young = readings::are_young(before.observed_at.as_ref(), now);
    let mut same = after.clone();
    same.height = before.height;
    same.block_age = before.block_age.clone();
    same.observed_at = before.observed_at.clone();
    if is_young && same == *before {
        *after = same;
    }
}

/// True when nothing is expected to change by itself.
pub fn is_settled(status: &BlockchainNetworkStatus) -> bool {
    conditions::holds(&status.conditions, ConditionType::Ready)
}

fn condition(group: Option<&ConsensusGroup>, kind: ConditionType) -> Option<&Condition> {
    conditions::find(&group?.status.as_ref()?.conditions, kind)
}

/// What the groups say about one condition: the worst of them, in its own words.
fn combined(observed: &Observed, kind: ConditionType) -> Statement {
    let (worst, best) = match kind {
        ConditionType::QuorumAtRisk => (ConditionStatus::True, ConditionStatus::False),
        ConditionType::Available
        | ConditionType::Ready
        | ConditionType::Reconciling
        | ConditionType::Stalled
        | ConditionType::Synced
        | ConditionType::Signing => (ConditionStatus::False, ConditionStatus::True),
    };
    let mut found = Vec::new();
    for (spec, group) in observed.network.spec.groups.iter().zip(&observed.groups) {
        match condition(group.as_ref(), kind) {
            Some(condition) => found.push((group.as_ref().map(ResourceExt::name_any).unwrap_or_default(), condition)),
            None => {
                let status = if worst == ConditionStatus::False { worst } else { ConditionStatus::Unknown };
                return Statement::new(
                    kind,
                    status,
                    Reason::NotStarted,
                    format!("group {} has not started", spec.name),
                );
            }
        }
    }
    for wanted in [worst, ConditionStatus::Unknown, best] {
        if let Some((name, condition)) = found.iter().find(|(_, condition)| condition.status == wanted) {
            let message =
                if found.len() == 1 { condition.message.clone() } else { format!("{name}: {}", condition.message) };
            return Statement::new(kind, wanted, reason(&condition.reason), message);
        }
    }
    Statement::new(kind, ConditionStatus::Unknown, Reason::Pending, "there are no groups")
}

fn reason(word: &str) -> Reason {
    Reason::ALL.iter().copied().find(|reason| reason.as_str() == word).unwrap_or(Reason::Pending)
}

fn reconciling(observed: &Observed, progress: &Progress) -> Statement {
    let say = |status, reason, message: String| Statement::new(ConditionType::Reconciling, status, reason, message);
    match progress {
        // kstatus takes a stalled object that still reconciles as one in progress.
        Progress::Refused(_) => say(ConditionStatus::False, Reason::NotStalled, "waiting for a person".to_string()),
        Progress::Failed(why) => say(ConditionStatus::True, Reason::StepFailed, why.clone()),
        Progress::Paused => match not_carried_out(observed) {
            None if let Some((_, message)) = below(observed) => {
                say(ConditionStatus::True, Reason::Paused, format!("{PAUSED}; {message}"))
            }
            why => pause::reconciling(&observed.network.metadata, why),
        },
        Progress::Applied => {
            say(ConditionStatus::True, Reason::ApplyingChildren, "children were made or changed".to_string())
        }
        // The same.
        Progress::Unchanged if observed.issuance.as_ref().is_some_and(|issuance| issuance.refusal().is_some()) => {
            say(ConditionStatus::False, Reason::NotStalled, "waiting for a person".to_string())
        }
        Progress::Unchanged if let Some((reason, why)) = observed.issuance.as_ref().and_then(Issuance::awaited) => {
            say(ConditionStatus::True, reason, why)
        }
        Progress::Unchanged => match rolls(observed).or_else(|| below(observed)) {
            Some((reason, message)) => say(ConditionStatus::True, reason, message),
            None => say(ConditionStatus::False, Reason::UpToDate, up_to_date(observed)),
        },
    }
}

/// The two authorities are there, and everybody has what the stage means, but for a word of a person.
fn up_to_date(observed: &Observed) -> String {
    let said = "all children are as the spec says";
    match observed.rolling.as_ref().map(|rolling| (&rolling.step, &rolling.outside)) {
        Some((Step::AskBeforeWithdrawal, outside)) => {
            let former = others(observed, &BlockchainNetworkStatus::default()).1.unwrap_or_default();
            let whom = outside.present.join(", ");
            format!(
                "{said}; the former certificate authority is trusted until {CONFIRM}={former} says that these need it no more: {whom}"
            )
        }
        Some(_) => said.to_string(),
        None => match others(observed, &BlockchainNetworkStatus::default()).1 {
            Some(former) => format!(
                "{said}; the former certificate authority is trusted until it ends or {CONFIRM}={former} says that nobody needs it"
            ),
            None => said.to_string(),
        },
    }
}

/// How far the replacement of the authority is.
fn rolls(observed: &Observed) -> Option<(Reason, String)> {
    let (rolling, AuthorityRead::Present(authority)) = (observed.rolling.as_ref()?, &observed.authority) else {
        return None;
    };
    let behind = rollover::named(&rolling.behind);
    let waits =
        |what: &str| if behind.is_empty() { what.to_string() } else { format!("{what}; it waits for {behind}") };
    let message = match (&rolling.step, &authority.stage) {
        (Step::Rest | Step::AskBeforeWithdrawal | Step::Withdraw, _) => return None,
        (Step::Begin, _) if rolling.is_fixed => {
            let name = names::ca_secret(&observed.network.name_any());
            format!(
                "the certificate authority cannot be replaced: Secret {name} is immutable; put a copy in its place that is not"
            )
        }
        (Step::AskBeforeSigning, Stage::Trusting { hash, .. }) => {
            let whom = rolling.outside.verify.join(", ");
            let message =
                format!("the next certificate authority signs when {CONFIRM}={hash} says that these trust it: {whom}");
            return Some((Reason::AwaitingConfirmation, message));
        }
        (Step::Begin | Step::Wait | Step::AskBeforeSigning | Step::Sign, stage) => match stage {
            Stage::Settled | Stage::Trusting { .. } => {
                waits("everybody is told to trust the next certificate authority")
            }
            Stage::Signing { .. } => waits("everybody gets a certificate of the new certificate authority"),
        },
    };
    Some((Reason::RollingAuthority, message))
}

/// What is being changed below this network.
fn below(observed: &Observed) -> Option<(Reason, String)> {
    for group in observed.groups.iter().flatten() {
        let name = group.name_any();
        let status = group.status.as_ref();
        if status.and_then(|status| status.observed_generation) != group.metadata.generation {
            return Some((Reason::Pending, format!("{name} is about to change")));
        }
        if let Some(condition) = condition(Some(group), ConditionType::Reconciling)
            && condition.status == ConditionStatus::True
        {
            return Some((reason(&condition.reason), format!("{name}: {}", condition.message)));
        }
    }
    let tiers = [("observers", observers(observed)), ("gateway", gateway(observed))];
    let message = tiers.into_iter().find_map(|(name, tier)| Some(format!("{name}: {}", tier?.message?)));
    message.map(|message| (Reason::StartingTiers, message))
}

/// The groups that are not what the spec wants: a pause leaves them as they were.
fn not_carried_out(observed: &Observed) -> Option<String> {
    let Ok(wanted) = desired::children(observed) else { return None };
    let is_former = |child: &&Child| {
        let found = observed.groups.iter().flatten().find(|group| group.name_any() == child.name);
        found.is_none_or(|group| !desired::is_of(child, group))
    };
    let groups = wanted.iter().filter(|child| child.kind == Kind::ConsensusGroup);
    let former: Vec<&str> = groups.filter(is_former).map(|child| child.name.as_str()).collect();
    (!former.is_empty()).then(|| format!("these have a former spec: {}", former.join(", ")))
}

fn stalled(observed: &Observed, progress: &Progress) -> Statement {
    let yes = |reason, message: String| Statement::new(ConditionType::Stalled, ConditionStatus::True, reason, message);
    if let Progress::Refused(refusal) = progress {
        return yes(refusal.reason, refusal.message.clone());
    }
    if let Some(refusal) = observed.issuance.as_ref().and_then(Issuance::refusal) {
        return yes(refusal.reason, refusal.message.clone());
    }
    for group in observed.groups.iter().flatten() {
        if let Some(condition) = condition(Some(group), ConditionType::Stalled)
            && condition.status == ConditionStatus::True
        {
            return yes(
                Reason::ChildStalled,
                format!("{}: {}: {}", group.name_any(), condition.reason, condition.message),
            );
        }
    }
    Statement::new(ConditionType::Stalled, ConditionStatus::False, Reason::NotStalled, "nothing needs a person")
}

/// What runs of the observers.
fn observers(observed: &Observed) -> Option<TierStatus> {
    let spec = observed.network.spec.observers.as_ref()?;
    let least = spec.autoscaling.as_ref().map(|autoscaling| autoscaling.min_replicas);
    let wanted = least.or(spec.replicas).unwrap_or(OBSERVERS_DEFAULT);
    Some(tier(observed.tiers.observers.as_ref(), wanted, least))
}

/// What runs of the gateway, and where its clients find it.
fn gateway(observed: &Observed) -> Option<TierStatus> {
    let spec = observed.network.spec.gateway.as_ref()?;
    let least = spec.autoscaling.as_ref().map(|autoscaling| autoscaling.min_replicas);
    let wanted = least.or(spec.replicas).unwrap_or(GATEWAYS_DEFAULT);
    let (name, namespace) = (observed.network.name_any(), observed.network.namespace().unwrap_or_default());
    let address = format!("{}.{namespace}.svc:{}", names::gateway(&name), names::PORT_GATEWAY);
    Some(TierStatus { address: Some(address), ..tier(observed.tiers.gateway.as_ref(), wanted, least) })
}

/// An autoscaled tier is well with its least number: what it grows by on the way is no fault.
fn tier(workload: Option<&Workload>, wanted: i32, least: Option<i32>) -> TierStatus {
    let Some(workload) = workload else {
        let message = Some("it waits for its chain, or is being made".to_string());
        return TierStatus { ready: 0, desired: wanted, address: None, message };
    };
    let (ready, desired) = (workload.ready, workload.replicas);
    let is_seen = workload.metadata.generation.is_none_or(|generation| workload.observed_generation >= generation);
    let needed = least.map_or(desired, |least| least.min(desired));
    let message = if least.is_none() && !is_seen {
        Some("its controller has not seen its newest form".to_string())
    } else if ready < needed {
        Some(format!("{ready} of {desired} are ready"))
    } else if workload.updated < needed {
        Some(format!("{} of {desired} have the newest form", workload.updated))
    } else {
        None
    };
    TierStatus { ready, desired, address: None, message }
}

/// The sums of all groups, when every group knows its own.
fn signing(statuses: &[&ConsensusGroupStatus]) -> Option<String> {
    let mut sums = (0u32, 0u32);
    for status in statuses {
        let (sign, all) = status.signing.as_ref()?.split_once('/')?;
        sums = (sums.0 + sign.parse::<u32>().ok()?, sums.1 + all.parse::<u32>().ok()?);
    }
    Some(format!("{}/{}", sums.0, sums.1))
}

fn oldest(statuses: &[&ConsensusGroupStatus]) -> Option<String> {
    let place =
        |status: &&ConsensusGroupStatus| BUCKETS.iter().position(|bucket| Some(*bucket) == status.block_age.as_deref());
    let places: Option<Vec<usize>> = statuses.iter().map(place).collect();
    places?.into_iter().max().and_then(|place| BUCKETS.get(place)).map(ToString::to_string)
}

fn version(statuses: &[&ConsensusGroupStatus]) -> Option<String> {
    let mut versions: Vec<&str> =
        statuses.iter().filter_map(|status| status.version.as_deref()).flat_map(|text| text.split(',')).collect();
    versions.sort_unstable();
    versions.dedup();
    (!versions.is_empty()).then(|| versions.join(","))
}
