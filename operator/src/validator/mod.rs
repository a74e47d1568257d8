//! `ValidatorNode`: identity, volume, certificate, pod, start grant and truthful status of one node.

pub mod desired;
pub mod observe;
pub mod pods;
pub mod status;
pub mod validate;
mod volume;

#[cfg(test)]
pub mod fixtures;
mod genesis;
mod grant;
mod made_once;
mod renewal;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use althing_crds::{ValidatorNode, ValidatorNodeStatus, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt};

use crate::apply::{AllOutcome, Outcome};
use crate::certificates;
use crate::config::{APPLIED, AWAITED, SETTLED, UNSETTLED};
use crate::context::Context;
use crate::error::Error;
use crate::events;
use crate::issuer::{self, Desk, Issuer, Said, Trust};
use crate::kinds::{Child, Kind, Owner};
use crate::memory::TOLD_AGE_MAX;
use crate::pause::is_paused;
use crate::reconcile::{self, Words};
use crate::refusal::Refusal;
use desired::Desired;
use observe::Observed;
use status::Progress;

/// One look at a node. It answers how long to wait before the next one.
pub async fn reconcile(node: ValidatorNode, context: Arc<Context>) -> Result<Duration, Error> {
    if node.metadata.deletion_timestamp.is_some() {
        return Ok(SETTLED);
    }
    let node = observe::current(&context, node).await?;
    let owner = owner(&node)?;
    let is_paused = is_paused(&node);
    let mut observed = observe::observe(&context, node).await?;
    let done = match validate::validate(&observed) {
        Err(refusal) if is_paused => Ok(Progress::Refused(refusal)),
        Err(refusal) => return refuse(&context, &owner, &mut observed, refusal).await,
        Ok(_) if is_paused => Ok(Progress::Paused),
        Ok(validated) => advance(&context, &owner, &mut observed, &validated).await,
    };
    let (context, observed) = (&*context, &observed);
    let write = |progress| async move { write_status(context, observed, &progress).await };
    let words = Words { refused: Progress::Refused, failed: Progress::Failed };
    reconcile::end(context, &owner.what(), done, words, write).await
}

/// A spec that cannot be carried out is no reason to let a node fall silent that works: it goes on getting certificates, and an
/// answer when it asks for its start. The refusal is said whatever comes of that.
async fn refuse(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    refusal: Refusal,
) -> Result<Duration, Error> {
    let kept = if validate::is_itself(observed) { keep(context, owner, observed).await } else { Ok(()) };
    let pause = write_status(context, observed, &Progress::Refused(refusal)).await?;
    kept.map(|()| pause)
}

/// Nothing of the refused spec counts here: not whom it trusts, and not what it says of its storage.
async fn keep(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<(), Error> {
    observed.members = Ok(desired::members_kept(observed));
    let granted = grant::answer(context, observed, grant::Fencing::NotBelieved).await;
    ensure_certificate(context, owner, observed).await?;
    granted
}

/// Brings the children one step closer to what they shall be.
async fn advance(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    validated: &validate::Validated,
) -> Result<Progress, Error> {
    if let Some(refusal) = made_once::ensure(context, owner, observed, validated).await? {
        return Ok(Progress::Refused(refusal));
    }
    let installation = context.installation();
    let children = match desired::desired(observed, &installation)? {
        Desired::Waiting(why) => return Ok(Progress::Waiting(why)),
        Desired::Children(children) => children,
    };
    // It rests on live reads alone: a child that cannot be written now is no reason to let a voter wait.
    let granted = grant::answer(context, observed, grant::Fencing::AsDeclared).await;
    let cached = |child: &Child| context.children.get(child.kind, &owner.namespace, &child.name);
    if children.iter().any(|child| child.kind == Kind::StatefulSet && cached(child).is_none()) {
        is_still_there(context, owner).await?;
    }
    if let Some(progress) = ensure_certificate(context, owner, observed).await? {
        return Ok(progress);
    }
    let recorded = observed.children_hash.as_deref();
    let written = match context.shared.writer.apply_all(owner, &children, recorded, cached).await? {
        AllOutcome::Taken(what) => return Ok(Progress::Refused(taken(&what))),
        AllOutcome::Applied { written, hash } => {
            observed.children_hash = hash;
            written
        }
    };
    prune(context, owner, &children).await?;
    granted?;
    genesis::give(context, observed).await?;
    let is_renewed = renewal::advance(context, owner, observed, &children).await?;
    let waits_for_address = observed.node.spec.p2p.expose.is_some() && observed.external_address.is_none();
    if written > 0 || is_renewed {
        return Ok(Progress::Applied);
    }
    if waits_for_address {
        let service = names::p2p_external_service(&owner.name);
        return Ok(Progress::Waiting(format!("waiting for a load balancer to give Service {service} an address")));
    }
    Ok(Progress::Unchanged)
}

/// Nothing starts for a node that is gone, which a cache that is behind does not know.
async fn is_still_there(context: &Context, owner: &Owner) -> Result<(), Error> {
    let api: Api<ValidatorNode> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let live = api.get_metadata_opt(&owner.name).await.map_err(Error::read(owner.what()))?;
    let is_same = |live: &PartialObjectMeta<ValidatorNode>| {
        live.uid().as_deref() == Some(owner.uid.as_str()) && live.metadata.deletion_timestamp.is_none()
    };
    if live.as_ref().is_some_and(is_same) { Ok(()) } else { Err(Error::Conflict { what: owner.what() }) }
}

fn taken(what: &str) -> Refusal {
    Refusal::new(
        althing_crds::Reason::NameTaken,
        format!("{what} exists and belongs to somebody else; remove it or choose another name"),
    )
}

/// Issues the node's certificate when there is none that is current, or asks the issuer for it. How far it came when the node
/// cannot do without it.
async fn ensure_certificate(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
) -> Result<Option<Progress>, Error> {
    let Some(authority) = observed.authority.clone() else { return Ok(None) };
    let (installation, nothing) = (context.installation(), BTreeMap::new());
    let mut desk = Desk::new(&authority, &nothing, now_s());
    let mut secret = desired::certificate(observed, &installation, &mut desk)?;
    let wanted = desk.wanted;
    if let (false, Some(named)) = (wanted.is_empty(), &observed.issuer) {
        let node = desired::node_context(observed, Vec::new(), &installation)?;
        let issuer = Issuer { named, owner, metadata: &|name: &str| node.metadata(name) };
        let trust = Trust::All(authority.trusted.clone());
        let obtained = issuer::obtain(context, &issuer, &wanted, &trust, now_s()).await?;
        let mut desk = Desk::new(&authority, &obtained.issued, now_s());
        secret = desired::certificate(observed, &installation, &mut desk)?;
        observed.issuance = obtained.issuance;
    }
    let Some(secret) = secret else { return without(observed) };
    let child = Child::of(&secret)?;
    let memory = &context.shared.memories.certificates;
    memory.forget(&owner.uid, &child.name);
    let at = Instant::now();
    // Whose it is is asked of the API server: what is remembered may have given way to somebody else's.
    let outcome = context.shared.writer.apply(owner, &child, None).await?;
    match outcome {
        Outcome::Taken => Ok(Some(Progress::Refused(taken(&child.what(&owner.namespace))))),
        Outcome::Written | Outcome::Unchanged => {
            context.shared.requests.taken(&owner.namespace, wanted.iter().map(|one| &one.name));
            let known = certificates::without_keys(secret);
            memory.put(&owner.uid, &child.name, at, known.clone());
            observed.tls = Some(known);
            Ok(None)
        }
    }
}

/// A certificate that still counts does while the issuer does not give another one.
fn without(observed: &Observed) -> Result<Option<Progress>, Error> {
    let Some(issuance) = &observed.issuance else { return Ok(None) };
    if desired::has_certificate(observed, now_s())? {
        return Ok(None);
    }
    Ok(Some(match &issuance.said {
        Said::Awaited(why) => Progress::Waiting(why.clone()),
        Said::Refused(refusal) => Progress::Refused(refusal.clone()),
    }))
}

/// Deletes children of this node that it shall not have any more.
async fn prune(context: &Context, owner: &Owner, children: &[Child]) -> Result<(), Error> {
    const KINDS: [Kind; 5] =
        [Kind::NetworkPolicy, Kind::ServiceAccount, Kind::ConfigMap, Kind::Service, Kind::StatefulSet];
    // Nobody makes such children but this node: they are looked for when the wanted ones have changed, and now and then.
    let wanted: Vec<String> = children.iter().map(|child| child.what("")).collect();
    let memory = &context.shared.memories.pruned;
    if memory.get(&owner.uid, &owner.name).as_ref() == Some(&wanted) {
        return Ok(());
    }
    let (at, mut pruned) = (Instant::now(), 0);
    for kind in KINDS {
        let is_wanted = |name: &str| children.iter().any(|child| child.kind == kind && child.name == name);
        let mut orphans = context.children.owned_by(kind, &owner.uid);
        orphans.retain(|meta| !meta.name.as_deref().is_some_and(is_wanted));
        pruned += context.shared.writer.prune(owner, kind, &orphans).await?;
    }
    if pruned == 0 {
        memory.put(&owner.uid, &owner.name, at, wanted);
    }
    Ok(())
}

/// Writes the status if it changed, tells about it, and says when to look again.
async fn write_status(context: &Context, observed: &Observed, progress: &Progress) -> Result<Duration, Error> {
    let before = observed.node.status.clone().unwrap_or_default();
    let uid = observed.node.uid().unwrap_or_default();
    if *progress == Progress::Applied && !before.conditions.is_empty() && context.applies_quietly(&uid) {
        return Ok(APPLIED);
    }
    let after = status::next(observed, progress, &context.installation(), &Time(Timestamp::now()));
    let settled = status::is_settled(&after);
    if !settled && context.can_wait(&uid, &before.conditions, &after.conditions) {
        return Ok(TOLD_AGE_MAX);
    }
    let mut drafts = events::transitions(&before.conditions, &after.conditions);
    drafts.extend(volume::warning(&before, &after));
    let written = save(context, &observed.node, after).await?;
    if written {
        context.told(&uid);
        context.publish(&observed.node.object_ref(&()), &drafts).await;
    }
    Ok(match observed.connection {
        _ if let Some(issuance) = &observed.issuance => issuance.again,
        _ if settled => SETTLED,
        Some(_) => UNSETTLED,
        None => AWAITED,
    })
}

/// Writes this status if it differs; true when it did.
pub(super) async fn save(context: &Context, node: &ValidatorNode, status: ValidatorNodeStatus) -> Result<bool, Error> {
    let mut changed = node.clone();
    changed.status = Some(status.clone());
    context.shared.writer.status(node.status.as_ref(), &changed, &status).await.map(|written| written.is_some())
}

fn owner(node: &ValidatorNode) -> Result<Owner, Error> {
    const KIND: &str = "ValidatorNode";
    Ok(Owner {
        kind: KIND,
        namespace: node.namespace().ok_or(Error::Incomplete { kind: KIND, field: "namespace" })?,
        name: node.name_any(),
        uid: node.uid().ok_or(Error::Incomplete { kind: KIND, field: "uid" })?,
        manager: names::MANAGER_NODE,
        label: names::LABEL_NODE,
    })
}

/// Unix seconds.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
