//! Identity and volume: made when they never were, recorded in the status at once, and never made again.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use node_api::keys;

use super::observe::{IdentityRead, Observed};
use super::{desired, taken, validate};
use crate::apply::Made;
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
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
    if observed.recorded_identity().is_none() {
        let identity = match &validated.identity {
            Some(identity) => identity.clone(),
            None => match make_identity(context, owner, &parts).await? {
                Ok(identity) => identity,
                Err(refusal) => return Ok(Some(refusal)),
            },
        };
        observed.identity = IdentityRead::Present(identity.clone());
        record(context, observed, |status| status.identity = Some(identity)).await?;
    }
    if observed.recorded_claim().is_none() {
        let claim = storage::claim(&parts);
        let uid = match context.shared.writer.make_once::<PersistentVolumeClaim>(owner, &claim).await? {
            Made::Now(made) => {
                tell(context, observed, "VolumeClaimed", format!("made PersistentVolumeClaim {}", made.name_any()))
                    .await;
                made.uid().unwrap_or_default()
            }
            Made::Before(kept) => kept.uid().unwrap_or_default(),
            Made::Taken => return Ok(Some(taken(&Child::of(&claim)?.what(&owner.namespace)))),
        };
        record(context, observed, |status| status.claim_uid = Some(uid)).await?;
    } else if validated.shall_grow {
        let claim = Child::of(&storage::claim(&parts))?;
        let cached = context.children.get(claim.kind, &owner.namespace, &claim.name);
        context.shared.writer.apply(owner, &claim, cached.as_ref()).await?;
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
    match context.shared.writer.make_once(owner, &secret).await? {
        Made::Now(_) => Ok(Ok(hex::encode(key.public()))),
        // It was not there a moment ago: look again.
        Made::Before(_) => Err(Error::Conflict { what }),
        Made::Taken => Ok(Err(taken(&Child::of(&secret)?.what(&owner.namespace)))),
    }
}

async fn record(
    context: &Context,
    observed: &mut Observed,
    change: impl FnOnce(&mut althing_crds::ValidatorNodeStatus),
) -> Result<(), Error> {
    let mut status = observed.node.status.clone().unwrap_or_default();
    change(&mut status);
    let mut changed = observed.node.clone();
    changed.status = Some(status.clone());
    if let Some(written) = context.shared.writer.status(observed.node.status.as_ref(), &changed, &status).await? {
        observed.node = written;
        context.wakers.group(&observed.node.namespace().unwrap_or_default(), &observed.node.spec.group);
    }
    Ok(())
}

async fn tell(context: &Context, observed: &Observed, reason: &str, note: String) {
    context.publish(&observed.node.object_ref(&()), &[Draft::normal(reason, note)]).await;
}
