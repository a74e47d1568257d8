//! Identity and volume: made when they never were, recorded in the status at once, and never made again, but for a lost
//! volume that a person gives up by name.

use std::time::Instant;

use althing_crds::Reason;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use node_api::keys;

use super::observe::{IdentityRead, Observed};
use super::status::{self, Progress};
use super::{desired, taken, validate};
use crate::apply::Made;
use crate::context::Context;
use crate::error::Error;
use crate::events::{self, Draft};
use crate::kinds::{Child, Owner};
use crate::parts::{NodeContext, secrets, storage};
use crate::refusal::Refusal;
use kube::Resource;

/// Makes and records what is missing. A crash between the two is no harm: what is there is recorded by the next run, and
/// no pod starts before both are recorded.
pub async fn ensure(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    validated: &validate::Validated,
) -> Result<Option<Refusal>, Error> {
    let parts = desired::node_context(observed, Vec::new(), &context.installation())?;
    let identity = match (observed.recorded_identity(), &validated.identity) {
        (Some(_), _) => None,
        (None, Some(present)) => Some(present.clone()),
        (None, None) => match make_identity(context, owner, &parts).await? {
            Ok(made) => Some(made),
            Err(refusal) => return Ok(Some(refusal)),
        },
    };
    if let Some(identity) = &identity {
        observed.identity = IdentityRead::Present(identity.clone());
    }
    let shall_rebuild = validated.volume == validate::Volume::Rebuild;
    if observed.recorded_claim().is_none() || shall_rebuild {
        let claim = storage::claim(&parts);
        let (uid, note) = match context.shared.writer.make_once::<PersistentVolumeClaim>(owner, &claim).await? {
            Made::Now(made) => (made.uid(), Some(format!("made PersistentVolumeClaim {}", made.name_any()))),
            Made::Before(kept) => {
                let name = kept.name_any();
                (kept.uid(), shall_rebuild.then(|| format!("PersistentVolumeClaim {name} is taken for the lost one")))
            }
            Made::Taken => {
                record(context, observed, identity, None).await?;
                return Ok(Some(taken(&Child::of(&claim)?.what(&owner.namespace))));
            }
        };
        if let Some(note) = note {
            tell(context, observed, if shall_rebuild { "VolumeRebuilt" } else { "VolumeClaimed" }, note).await;
        }
        record(context, observed, identity, uid).await?;
        return Ok(None);
    }
    record(context, observed, identity, None).await?;
    if validated.volume == validate::Volume::Grow {
        let claim = Child::of(&storage::claim(&parts))?;
        let cached = context.claim(&owner.namespace, &claim.name).map(|claim| claim.metadata.clone());
        return match context.shared.writer.apply(owner, &claim, cached.as_ref()).await {
            Ok(_) => Ok(None),
            Err(error) => match error.refused() {
                // As with a quota. Tried again with each look: nothing but this volume waits for it to be said.
                Some(why) => Ok(Some(Refusal::new(Reason::StorageFixed, format!("the volume cannot grow: {why}")))),
                None => Err(error),
            },
        };
    }
    Ok(None)
}

async fn make_identity(
    context: &Context,
    owner: &Owner,
    parts: &NodeContext,
) -> Result<Result<String, Refusal>, Error> {
    let what = format!("identity of {}", owner.what());
    let key = keys::generate().map_err(|error| Error::Build { what: what.clone(), message: error.to_string() })?;
    let secret = secrets::identity(parts, &keys::to_pem(&key));
    let at = Instant::now();
    match context.shared.writer.make_once(owner, &secret).await? {
        Made::Now(_) => {
            let identity = hex::encode(key.public());
            let present = IdentityRead::Present(identity.clone());
            context.shared.memories.identities.put(&owner.uid, &secret.name_any(), at, present);
            Ok(Ok(identity))
        }
        // It was not there a moment ago: look again.
        Made::Before(_) => Err(Error::Conflict { what }),
        Made::Taken => Ok(Err(taken(&Child::of(&secret)?.what(&owner.namespace)))),
    }
}

/// Writes down what was made or found, both at once. A claim that is given takes the place of one that is lost.
async fn record(
    context: &Context,
    observed: &mut Observed,
    identity: Option<String>,
    claim_uid: Option<String>,
) -> Result<(), Error> {
    let mut status = observed.node.status.clone().unwrap_or_default();
    status.identity = status.identity.or(identity);
    status.claim_uid = claim_uid.or(status.claim_uid);
    if observed.node.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let before = observed.node.status.replace(status);
    // With all else that can be said now, so that it is one write.
    let progress = Progress::Waiting("the node has its identity and its volume claim".to_string());
    let status = status::next(observed, &progress, &context.installation(), &Time(Timestamp::now()));
    let mut changed = observed.node.clone();
    changed.status = Some(status.clone());
    observed.node.status = before;
    if let Some(written) = context.shared.writer.status(observed.node.status.as_ref(), &changed, &status).await? {
        let said = observed.node.status.take().unwrap_or_default().conditions;
        observed.node = written;
        context.told(&observed.node.uid().unwrap_or_default());
        context.publish(&observed.node.object_ref(&()), &events::transitions(&said, &status.conditions)).await;
        let namespace = observed.node.namespace().unwrap_or_default();
        context.wakers.group(&namespace, &observed.node.spec.group);
        // The others wait for the identities of all.
        for other in &observed.others {
            context.wakers.node(&namespace, &other.name_any());
        }
    }
    Ok(())
}

async fn tell(context: &Context, observed: &Observed, reason: &str, note: String) {
    context.publish(&observed.node.object_ref(&()), &[Draft::normal(reason, note)]).await;
}
