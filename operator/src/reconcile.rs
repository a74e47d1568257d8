//! The frame around every reconcile: undecodable objects, timeout, panic, metrics, back-off.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use kube_runtime::controller::Action;
use serde::de::DeserializeOwned;

use crate::config::RECONCILE_TIMEOUT;
use crate::context::Context;
use crate::error::Error;
use crate::refusal::Refusal;
use crate::watches::Guarded;

/// Pause after a conflict: the cache has caught up by then.
const AFTER_CONFLICT: Duration = Duration::from_millis(250);
/// Pause before an object that cannot be decoded is looked at again.
const UNDECODABLE: Duration = Duration::from_secs(300);

/// `ConsensusGroup demo/demo-main`.
pub fn what<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any())
}

/// Runs one reconcile of one object inside its limits. It answers how long to wait before the next look.
pub async fn framed<K, F>(
    object: Arc<Guarded<K>>,
    context: Arc<Context>,
    reconcile: impl FnOnce(K, Arc<Context>) -> F,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    F: Future<Output = Result<Duration, Error>>,
{
    let kind = K::kind(&()).into_owned();
    let decoded = match &object.0 {
        Ok(decoded) => decoded.clone(),
        Err(invalid) => {
            let named = format!("{kind} {}", invalid.metadata.name.as_deref().unwrap_or("?"));
            return Err(Error::Undecodable { what: named, message: invalid.error.clone() });
        }
    };
    let name = what(&decoded);
    // What is not in a cache that is still being filled may exist.
    context.filling.done().await;
    let started = Instant::now();
    let look = async {
        refuse_former(&context, &decoded).await?;
        reconcile(decoded, Arc::clone(&context)).await
    };
    let guarded = AssertUnwindSafe(look).catch_unwind();
    let result = match tokio::time::timeout(RECONCILE_TIMEOUT, guarded).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Error::Panicked(message(&*panic))),
        Err(_) => Err(Error::Timeout(RECONCILE_TIMEOUT)),
    };
    let metrics = &context.shared.metrics;
    metrics.reconcile_seconds.with_label_values(&[kind.as_str()]).observe(started.elapsed().as_secs_f64());
    let word = result.as_ref().map_or_else(Error::result, |_| "ok");
    metrics.reconciles.with_label_values(&[kind.as_str(), word]).inc();
    result.map(|pause| {
        context.succeeded(&name);
        Action::requeue(context.shared.config.pause(pause))
    })
}

/// Of an object whose spec is older than one that was looked at before a list was behind, and what it asks for was taken back: a
/// voter that has left would be asked for again. That it is so all the same, as after a restore of the API server's storage,
/// only the API server itself can say.
async fn refuse_former<K>(context: &Context, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let (uid, Some(generation)) = (object.uid().unwrap_or_default(), object.meta().generation) else { return Ok(()) };
    let (memory, at) = (&context.shared.memories.generations, Instant::now());
    if memory.get(&uid, "").is_some_and(|seen| generation < seen) {
        let (what, name) = (what(object), object.name_any());
        let api: Api<K> = Api::namespaced(context.shared.client.clone(), &object.namespace().unwrap_or_default());
        let live = api.get_metadata_opt(&name).await.map_err(Error::read(&what))?;
        let is_so = |meta: &ObjectMeta| meta.uid.as_ref() == Some(&uid) && meta.generation == Some(generation);
        if !live.is_some_and(|live| is_so(&live.metadata)) {
            return Err(Error::Conflict { what });
        }
    }
    memory.put(&uid, "", at, generation);
    Ok(())
}

/// How a look that did not come to its end is said.
pub struct Words<P> {
    /// A person has to help.
    pub refused: fn(Refusal) -> P,
    /// A step failed, and is tried again.
    pub failed: fn(String) -> P,
}

/// Says how far a look came, or what a person has to do. When a step failed, what was seen is said all the same, unless the
/// failure may pass as it came: it may be why. That it cannot be said is no other failure.
pub async fn end<P, F>(
    context: &Context,
    what: &str,
    done: Result<P, Error>,
    words: Words<P>,
    write_status: impl Fn(P) -> F,
) -> Result<Duration, Error>
where
    F: Future<Output = Result<Duration, Error>>,
{
    let error = match done.or_else(|error| Refusal::of(error).map(words.refused)) {
        Ok(progress) => return write_status(progress).await,
        Err(error) => error,
    };
    if context.shall_tell(what, &error)
        && let Err(untold) = write_status((words.failed)(error.said())).await
    {
        tracing::debug!(object = what, error = %untold, "a failure is not told");
    }
    Err(error)
}

/// How long to wait after a failure.
pub fn after_failure<K>(object: &Guarded<K>, error: &Error, context: &Context) -> Action
where
    K: Resource<DynamicType = ()>,
{
    let name = what(object);
    if error.is_passing() {
        tracing::debug!(object = %name, %error, "looking again");
        return Action::requeue(context.shared.config.pause(AFTER_CONFLICT));
    }
    let pause = match error {
        Error::Undecodable { .. } => UNDECODABLE,
        Error::Read { .. }
        | Error::Write { .. }
        | Error::Conflict { .. }
        | Error::WriteTimeout { .. }
        | Error::BeingDeleted { .. }
        | Error::Incomplete { .. }
        | Error::Encode { .. }
        | Error::Build { .. }
        | Error::Certificates { .. }
        | Error::NotLeader
        | Error::LeadershipLost
        | Error::Lease(_)
        | Error::Timeout(_)
        | Error::Panicked(_) => context.backoff(&name),
    };
    tracing::warn!(object = %name, %error, pause_s = pause.as_secs(), "reconcile failed");
    Action::requeue(context.shared.config.pause(pause))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_string())
}
