//! `BlockchainNetwork`: one trust domain; its authority, client certificate, closed door, groups, observers and gateway.

pub mod desired;
pub mod desired_tiers;
pub mod issued;
pub mod observe;
pub mod rolling;
pub mod status;
pub mod tiers;
pub mod validate;

#[cfg(test)]
pub mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use althing_crds::{BlockchainNetwork, Reason, names};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use prometheus::IntGaugeVec;

use crate::apply::{AllOutcome, Made};
use crate::certificates;
use crate::config::{APPLIED, AWAITED, SETTLED};
use crate::context::Context;
use crate::error::Error;
use crate::events::{self, Draft};
use crate::issuer::{self, Desk, Issuer, Trust};
use crate::kinds::{Child, Kind, Owner, is_controlled};
use crate::memory::TOLD_AGE_MAX;
use crate::parts::secrets;
use crate::pause::is_paused;
use crate::reconcile::{self, Words};
use crate::refusal::Refusal;
use crate::rollover::{Authority, Source};
use crate::validator::now_s;
use observe::{AuthorityRead, Observed};
use status::Progress;

/// One look at a network. It answers how long to wait before the next one.
pub async fn reconcile(network: BlockchainNetwork, context: Arc<Context>) -> Result<Duration, Error> {
    if network.metadata.deletion_timestamp.is_some() {
        let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
        // Not there when its authority was never seen.
        let metrics = &context.shared.metrics;
        for gauge in [&metrics.authority_expires, &metrics.certificate_expires] {
            let _ = gauge.remove_label_values(&[&namespace, &name]);
        }
        return Ok(SETTLED);
    }
    let network = observe::current(&context, network).await?;
    let owner = owner(&network)?;
    let is_paused = is_paused(&network);
    let mut observed = observe::observe(&context, network).await?;
    tell_expiry(&context, &owner, &observed);
    let done = match validate::validate(&observed) {
        Err(refusal) => Ok(Progress::Refused(refusal)),
        Ok(()) if is_paused => Ok(Progress::Paused),
        Ok(()) => advance(&context, &owner, &mut observed).await,
    };
    let (context, observed) = (&*context, &observed);
    let write = |progress| async move { write_status(context, observed, &progress).await };
    let words = Words { refused: Progress::Refused, failed: Progress::Failed };
    reconcile::end(context, &owner.what(), done, words, write).await
}

/// The end of the authority, and of what an issuer has given to the operator, for alerts.
fn tell_expiry(context: &Context, owner: &Owner, observed: &Observed) {
    let AuthorityRead::Present(authority) = &observed.authority else { return };
    let metrics = &context.shared.metrics;
    let tell = |gauge: &IntGaugeVec, at_s: u64| {
        gauge.with_label_values(&[&owner.namespace, &owner.name]).set(i64::try_from(at_s).unwrap_or(i64::MAX));
    };
    tell(&metrics.authority_expires, authority.issuer.validity().not_after_s());
    if let Some(ends_s) = authority.own_ends_s() {
        tell(&metrics.certificate_expires, ends_s);
    }
}

/// Brings the children one step closer to what they shall be.
async fn advance(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Progress, Error> {
    if let Some(progress) = ensure_authority(context, owner, observed).await? {
        return Ok(progress);
    }
    let contexts = desired_tiers::contexts(observed)?;
    rolling::advance(context, owner, observed, &contexts).await?;
    record_authority(context, owner, observed).await?;
    if let Some(refusal) = tiers::ensure_api_key(context, owner, observed, contexts.gateway.as_ref()).await? {
        return Ok(Progress::Refused(refusal));
    }
    tiers::hand_over(context, owner, observed, &contexts).await?;
    let AuthorityRead::Present(authority) = observed.authority.clone() else { return Ok(Progress::Unchanged) };
    let (made, client, asked) = issue(context, owner, observed, &contexts, &authority).await?;
    let mut children = desired::children(observed)?;
    children.extend(desired_tiers::children(observed, &contexts, &made.observers)?);
    for secret in client.iter().chain(&made.secrets) {
        children.push(Child::of(secret)?);
    }
    children.sort_by_key(|child| child.kind);
    undo_scale(context, observed, &children).await;
    for child in children.iter().filter(|child| child.kind == Kind::Secret) {
        context.shared.memories.certificates.forget(&owner.uid, &child.name);
    }
    let recorded = observed.children_hash.as_deref();
    let cached = |child: &Child| cached(context, owner, child);
    let written = match context.shared.writer.apply_all(owner, &children, recorded, cached).await? {
        AllOutcome::Taken(what) => return Ok(Progress::Refused(taken(&what))),
        AllOutcome::Applied { written, hash } => {
            observed.children_hash = hash;
            written
        }
    };
    context.shared.requests.taken(&owner.namespace, asked.iter());
    prune(context, owner, &children).await?;
    Ok(if written > 0 { Progress::Applied } else { Progress::Unchanged })
}

/// Certificates of the tiers and of clients that have to be written now, and the names of the requests that they come from. An
/// issuer is asked for what is missing.
async fn issue(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    contexts: &desired_tiers::Contexts,
    authority: &Authority,
) -> Result<(tiers::Credentials, Option<Secret>, Vec<String>), Error> {
    let nothing = BTreeMap::new();
    let mut desk = Desk::new(authority, &nothing, now_s());
    let made = tiers::credentials(observed, contexts, &mut desk)?;
    let client = desired::client(observed, &mut desk)?;
    let spec = observed.network.spec.certificates.clone();
    let (wanted, Some(spec)) = (desk.wanted, spec) else { return Ok((made, client, Vec::new())) };
    if wanted.is_empty() {
        return Ok((made, client, Vec::new()));
    }
    let network = desired::network_context(observed)?;
    let issuer = Issuer { named: &spec.issuer_ref, owner, metadata: &|name: &str| network.metadata(name) };
    let trust = Trust::All(authority.trusted.clone());
    let obtained = issuer::obtain(context, &issuer, &wanted, &trust, now_s()).await?;
    let mut desk = Desk::new(authority, &obtained.issued, now_s());
    let made = tiers::credentials(observed, contexts, &mut desk)?;
    let client = desired::client(observed, &mut desk)?;
    // What is said of the operator's own certificates comes first: nothing goes without them.
    observed.issuance = observed.issuance.take().or(obtained.issuance);
    let taken = issuer::taken_by(client.iter().chain(&made.secrets), desk.taken);
    Ok((made, client, taken))
}

/// Makes the authority of a network that never had one, and records it. How far it came when nothing goes without one.
async fn ensure_authority(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
) -> Result<Option<Progress>, Error> {
    if Source::of(&observed.network) == Source::Issuer {
        let progress = issued::ensure(context, owner, observed).await?;
        record_authority(context, owner, observed).await?;
        return Ok(progress);
    }
    match &observed.authority {
        AuthorityRead::Present(_) => {}
        AuthorityRead::Missing | AuthorityRead::Foreign | AuthorityRead::Invalid(_) => {
            let made = certificates::new_authority(&owner.name, now_s())?;
            let parts = desired::network_context(observed)?;
            // A wish that is as old as the network is met by its first authority.
            let wish = observed.network.annotations().get(names::ANNOTATION_ROLL).map(String::as_str);
            let secret = secrets::certificate_authority(&parts, made.certificate_pem(), made.key_pem(), wish);
            match context.shared.writer.make_once::<Secret>(owner, &secret).await? {
                Made::Now(kept) => {
                    observed.authority = observe::authority_of(Source::Own, &owner.name, &kept);
                    let note = format!("made the certificate authority (Secret {})", kept.name_any());
                    let about = observed.network.object_ref(&());
                    context.publish(&about, &[Draft::normal("AuthorityMade", note)]).await;
                }
                Made::Before(_) => return Err(Error::Conflict { what: owner.what() }),
                Made::Taken => {
                    return Ok(Some(Progress::Refused(taken(&Child::of(&secret)?.what(&owner.namespace)))));
                }
            }
        }
    }
    record_authority(context, owner, observed).await?;
    Ok(None)
}

/// Writes down which authority signs: from then on it can only be lost, or give way to the next one.
async fn record_authority(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<(), Error> {
    let AuthorityRead::Present(authority) = &observed.authority else { return Ok(()) };
    let hash = authority.hash.clone();
    let recorded = observed.network.status.as_ref().and_then(|status| status.certificate_authority_hash.as_ref());
    if recorded == Some(&hash) {
        return Ok(());
    }
    let mut status = observed.network.status.clone().unwrap_or_default();
    status.certificate_authority_hash = Some(hash);
    let mut changed = observed.network.clone();
    changed.status = Some(status.clone());
    context.shared.authorities.learn(&owner.namespace, &owner.name, authority);
    if let Some(written) = context.shared.writer.status(observed.network.status.as_ref(), &changed, &status).await? {
        observed.network = written;
    }
    Ok(())
}

/// Tells a person who scaled a group whose number the network holds.
async fn undo_scale(context: &Context, observed: &Observed, children: &[Child]) {
    for (number, spec) in observed.network.spec.groups.iter().enumerate() {
        let (Some(wanted), Some(Some(group))) = (spec.replicas, observed.groups.get(number)) else { continue };
        let is_child =
            children.iter().any(|child| child.kind == Kind::ConsensusGroup && child.name == group.name_any());
        if is_child && group.spec.replicas != wanted {
            let note = format!(
                "replicas {} of ConsensusGroup {} is set back to {wanted}: edit spec.groups[{number}].replicas of BlockchainNetwork {}",
                group.spec.replicas,
                group.name_any(),
                observed.network.name_any()
            );
            let drafts = [Draft::warning("ScaleUndone", note)];
            context.publish(&group.object_ref(&()), &drafts).await;
        }
    }
}

fn cached(context: &Context, owner: &Owner, child: &Child) -> Option<ObjectMeta> {
    match child.kind {
        Kind::ConsensusGroup => context.group(&owner.namespace, &child.name).map(|group| group.metadata),
        // Whose it is is asked of the API server: what is remembered may have given way to somebody else's.
        Kind::Secret => None,
        Kind::NetworkPolicy
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::Service
        | Kind::PersistentVolumeClaim
        | Kind::PodDisruptionBudget
        | Kind::ValidatorNode
        | Kind::StatefulSet
        | Kind::Deployment
        | Kind::HorizontalPodAutoscaler
        | Kind::Ingress
        | Kind::TlsRoute => context.children.get(child.kind, &owner.namespace, &child.name),
    }
}

/// Kinds of children that go when the spec does not ask for them any more. The autoscaler goes before what it scales.
const PRUNED: [Kind; 10] = [
    Kind::TlsRoute,
    Kind::Ingress,
    Kind::HorizontalPodAutoscaler,
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::PodDisruptionBudget,
    Kind::Service,
    Kind::ConfigMap,
    Kind::ServiceAccount,
    Kind::NetworkPolicy,
];

/// Deletes what the network shall not have any more. A group that was removed from the spec goes with its nodes; what
/// was made once stays, and so do Secrets, which the operator has no right to delete.
async fn prune(context: &Context, owner: &Owner, children: &[Child]) -> Result<(), Error> {
    let is_wanted = |kind: Kind, name: &str| children.iter().any(|child| child.kind == kind && child.name == name);
    for kind in PRUNED {
        let mut orphans = context.children.owned_by(kind, &owner.uid);
        orphans.retain(|meta| !meta.name.as_deref().is_some_and(|name| is_wanted(kind, name)));
        context.shared.writer.prune(owner, kind, &orphans).await?;
    }
    let groups: Vec<ObjectMeta> = context
        .groups_where(&owner.namespace, |group| is_controlled(&group.metadata, &owner.uid))
        .into_iter()
        .filter(|group| !is_wanted(Kind::ConsensusGroup, &group.name_any()))
        .map(|group| group.metadata)
        .collect();
    context.shared.writer.prune(owner, Kind::ConsensusGroup, &groups).await?;
    Ok(())
}

fn taken(what: &str) -> Refusal {
    Refusal::new(
        Reason::NameTaken,
        format!("{what} exists and belongs to somebody else; remove it or choose another name"),
    )
}

/// Writes the status if it changed, tells about it, and says when to look again.
async fn write_status(context: &Context, observed: &Observed, progress: &Progress) -> Result<Duration, Error> {
    let before = observed.network.status.clone().unwrap_or_default();
    let uid = observed.network.uid().unwrap_or_default();
    if matches!(progress, Progress::Applied) && !before.conditions.is_empty() && context.applies_quietly(&uid) {
        return Ok(APPLIED);
    }
    let after = status::next(observed, progress, &Time(Timestamp::now()));
    let is_settled = status::is_settled(&after);
    if !is_settled && context.can_wait(&uid, &before.conditions, &after.conditions) {
        return Ok(TOLD_AGE_MAX);
    }
    let drafts = events::transitions(&before.conditions, &after.conditions);
    let mut changed = observed.network.clone();
    changed.status = Some(after.clone());
    let written = context.shared.writer.status(observed.network.status.as_ref(), &changed, &after).await?;
    if written.is_some() {
        context.told(&uid);
        context.publish(&observed.network.object_ref(&()), &drafts).await;
    }
    Ok(match &observed.issuance {
        Some(issuance) => issuance.again,
        None if is_settled => SETTLED,
        // Its groups are watched.
        None => AWAITED,
    })
}

fn owner(network: &BlockchainNetwork) -> Result<Owner, Error> {
    const KIND: &str = "BlockchainNetwork";
    Ok(Owner {
        kind: KIND,
        namespace: network.namespace().ok_or(Error::Incomplete { kind: KIND, field: "namespace" })?,
        name: network.name_any(),
        uid: network.uid().ok_or(Error::Incomplete { kind: KIND, field: "uid" })?,
        manager: names::MANAGER_NETWORK,
        label: names::LABEL_NETWORK,
    })
}
