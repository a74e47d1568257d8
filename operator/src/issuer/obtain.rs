//! Asks an issuer for what is wanted, and takes its answers when they are what was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use althing_crds::Reason;
use althing_crds::certificates::IssuerRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use node_api::pki::{self, Asked};

use super::request::{Answer, Ask, KIND, answer, request, resource};
use super::{Obtained, Said, Wanted};
use crate::certificates;
use crate::context::Context;
use crate::error::Error;
use crate::kinds::{Owner, Standing, standing};
use crate::parts::secrets::CertificatePem;
use crate::refusal::Refusal;

/// A request that came to nothing is made again after this.
const REPEAT: Duration = Duration::from_secs(600);
/// So long it is looked at every second, later every ten.
const FRESH: Duration = Duration::from_secs(60);
const AGAIN_SOON: Duration = Duration::from_secs(1);
const AGAIN_LATER: Duration = Duration::from_secs(10);
/// A key that nobody has asked about for this long is dropped: its owner is gone.
const IDLE_MAX: Duration = Duration::from_secs(3_600);

/// Whom to ask, and who asks.
pub struct Issuer<'a> {
    /// The issuer.
    pub named: &'a IssuerRef,
    /// The object that the certificates are for.
    pub owner: &'a Owner,
    /// Metadata of a child of this name.
    pub metadata: &'a (dyn Fn(&str) -> ObjectMeta + Sync),
}

/// By whom an answer must have been issued.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By one of these, which everybody trusts; they go into the Secret.
    All(String),
    /// For the operator's own certificates: by one of those that are known, as PEM, or by the one that the issuer names, if it
    /// has this hash or none is recorded. The one it is goes into the Secret.
    Learned {
        /// Those that are known.
        known: String,
        /// The hash that the network has recorded.
        recorded: Option<String>,
    },
}

/// The requests of this process that were made and not taken, with their keys.
#[derive(Default)]
pub struct Requests {
    made: Mutex<HashMap<(String, String), Made>>,
}

#[derive(Clone)]
struct Made {
    asked: Arc<Asked>,
    issuer: IssuerRef,
    life_s: u64,
    uid: Option<String>,
    at: Instant,
    seen: Instant,
}

impl Requests {
    /// The Secret with what came of them is written: their keys are not needed any more.
    pub fn taken<'a>(&self, namespace: &str, names: impl Iterator<Item = &'a String>) {
        let mut made = self.lock();
        for name in names {
            made.remove(&(namespace.to_string(), name.clone()));
        }
    }

    fn get(&self, namespace: &str, wanted: &Wanted, issuer: &IssuerRef) -> Option<Made> {
        let mut all = self.lock();
        let made = all.get_mut(&(namespace.to_string(), wanted.name.clone()))?;
        if made.seen.elapsed() >= IDLE_MAX {
            return None;
        }
        made.seen = Instant::now();
        let is_same = *made.asked.subject() == wanted.subject && made.issuer == *issuer && made.life_s == wanted.life_s;
        is_same.then(|| made.clone())
    }

    fn put(&self, namespace: &str, name: &str, one: Made) {
        let mut made = self.lock();
        made.retain(|_, one| one.seen.elapsed() < IDLE_MAX);
        made.insert((namespace.to_string(), name.to_string()), one);
    }

    fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_string(), name.to_string()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for everything that is wanted and answers what is there by now.
pub async fn obtain(
    context: &Context,
    issuer: &Issuer<'_>,
    wanted: &[Wanted],
    trust: &Trust,
    now_s: u64,
) -> Result<Obtained, Error> {
    let mut obtained = Obtained::default();
    let mut away: Option<Lack> = None;
    for one in wanted {
        let (said, again) = match step(context, issuer, one, trust, now_s).await? {
            Step::There(pem) => {
                obtained.issued.insert(one.name.clone(), pem);
                continue;
            }
            Step::Lacks(said, again) => (said, again),
            Step::Ask(present) => match &away {
                // Each would be waited for as long as the first one.
                Some(lack) => lack.clone(),
                None => match begin(context, issuer, one, present.as_deref()).await {
                    Ok(lack) => lack,
                    Err(error) => {
                        let is_away = error.put_off().is_some();
                        let lack = unmade(error, &one.name)?;
                        away = is_away.then(|| lack.clone());
                        lack
                    }
                },
            },
        };
        obtained.lacks(said, again);
    }
    Ok(obtained)
}

/// Not there: why, and when to look again.
type Lack = (Said, Duration);

/// How far one certificate is.
enum Step {
    /// It is there.
    There(CertificatePem),
    /// It is not there.
    Lacks(Said, Duration),
    /// A request has to be made, in place of this one.
    Ask(Option<Box<DynamicObject>>),
}

/// What is said when a request cannot be made or removed. Whoever guards requests, as the webhook of cert-manager does, may be
/// away while all else is well: then nothing else of the owner waits for it.
pub(super) fn unmade(error: Error, name: &str) -> Result<Lack, Error> {
    if let Some(why) = error.put_off() {
        return Ok((Said::Awaited(format!("CertificateRequest {name} cannot be made: {why}")), AGAIN_LATER));
    }
    Refusal::of(error).map(|refusal| (Said::Refused(refusal), AGAIN_LATER))
}

async fn step(
    context: &Context,
    issuer: &Issuer<'_>,
    wanted: &Wanted,
    trust: &Trust,
    now_s: u64,
) -> Result<Step, Error> {
    let (namespace, requests) = (issuer.owner.namespace.as_str(), &context.shared.requests);
    let made = requests.get(namespace, wanted, issuer.named);
    let present = match read(context, namespace, &wanted.name).await? {
        Ok(present) => present,
        Err(refusal) => return Ok(Step::Lacks(Said::Refused(refusal), AGAIN_LATER)),
    };
    let (made, present) = match (made, present) {
        (Some(made), Some(present)) if made.uid.is_some() && made.uid == present.uid() => (made, present),
        (_, present) => return Ok(Step::Ask(present.map(Box::new))),
    };
    let refused = match take(&made.asked, wanted, answer(&present), trust, now_s) {
        // What was answered long ago and not taken is late in its life by now.
        Ok(Some(pem)) if is_late(&pem.certificate, now_s) => return Ok(Step::Ask(Some(Box::new(present)))),
        Ok(Some(pem)) => return Ok(Step::There(pem)),
        Ok(None) => {
            let again = if made.at.elapsed() < FRESH { AGAIN_SOON } else { AGAIN_LATER };
            return Ok(Step::Lacks(Said::Awaited(awaits(issuer, wanted, &answer(&present))), again));
        }
        Err(refusal) => refusal,
    };
    if made.at.elapsed() >= context.shared.config.pause(REPEAT) {
        return Ok(Step::Ask(Some(Box::new(present))));
    }
    Ok(Step::Lacks(Said::Refused(refused), AGAIN_LATER))
}

fn is_late(certificate: &str, now_s: u64) -> bool {
    pki::validity(certificate).is_ok_and(|validity| now_s >= validity.renew_at_s())
}

/// What is said while an answer is on its way.
pub(super) fn awaits(issuer: &Issuer<'_>, wanted: &Wanted, answer: &Answer) -> String {
    let why = match answer {
        Answer::Pending(why) | Answer::Denied(why) | Answer::Failed(why) => why.as_str(),
        Answer::Issued { .. } => "it was issued",
    };
    format!("CertificateRequest {} waits for {}: {why}", wanted.name, issuer.named)
}

/// The certificate if the answer has one that can be used; none while there is no answer.
pub(super) fn take(
    asked: &Asked,
    wanted: &Wanted,
    answer: Answer,
    trust: &Trust,
    now_s: u64,
) -> Result<Option<CertificatePem>, Refusal> {
    let name = &wanted.name;
    let refused = |reason, why: String| Err(Refusal::new(reason, format!("CertificateRequest {name} {why}")));
    let (certificate, authority) = match answer {
        Answer::Pending(_) => return Ok(None),
        Answer::Denied(why) => return refused(Reason::IssuerRefused, format!("was denied: {why}")),
        Answer::Failed(why) => return refused(Reason::IssuerRefused, format!("failed: {why}")),
        Answer::Issued { certificate, authority } => (certificate, authority),
    };
    if let Err(flaw) = asked.check(&certificate, wanted.life_s, now_s) {
        return refused(Reason::IssuedOtherwise, format!("was answered with what was not asked: {flaw}"));
    }
    let (candidates, is_first) = match trust {
        Trust::All(trusted) => (trusted.clone(), false),
        Trust::Learned { known, recorded } => {
            let is_named = |pem: &String| recorded.as_ref().is_none_or(|hash| *hash == certificates::hash(pem));
            let named: String = pki::blocks(&authority).into_iter().filter(is_named).collect();
            (format!("{named}{known}"), recorded.is_none())
        }
    };
    let Some(anchor) = asked.anchor(&certificate, &candidates, now_s) else {
        let why = if is_first {
            "was answered by an authority that neither the answer (status.ca) nor certificates.trustedAuthorities names"
        } else {
            "was answered by an authority that this network does not trust; add it to certificates.trustedAuthorities before \
             it issues"
        };
        return refused(Reason::IssuerChanged, why.to_string());
    };
    let authorities = match trust {
        Trust::All(trusted) => trusted.clone(),
        Trust::Learned { .. } => anchor,
    };
    Ok(Some(CertificatePem { certificate, key: asked.key_pem().to_string(), authorities }))
}

/// Makes a request, in place of the one that is there.
async fn begin(
    context: &Context,
    issuer: &Issuer<'_>,
    wanted: &Wanted,
    present: Option<&DynamicObject>,
) -> Result<Lack, Error> {
    let (owner, requests) = (issuer.owner, &context.shared.requests);
    let what = format!("{KIND} {}/{}", owner.namespace, wanted.name);
    requests.forget(&owner.namespace, &wanted.name);
    if let Some(present) = present {
        if standing(&present.metadata, owner) != Standing::Ours {
            let note = format!("{what} exists and belongs to somebody else; remove it");
            return Ok((Said::Refused(Refusal::new(Reason::NameTaken, note)), AGAIN_LATER));
        }
        let preconditions =
            Preconditions { uid: present.uid(), resource_version: present.metadata.resource_version.clone() };
        let params = DeleteParams::background().preconditions(preconditions);
        let api = api(context, &owner.namespace);
        context.shared.writer.write(KIND, "delete", &what, api.delete(&wanted.name, &params)).await?;
    }
    let asked = Asked::new(wanted.subject.clone())
        .map_err(|error| Error::Certificates { what: wanted.subject.to_string(), message: error.to_string() })?;
    let ask = Ask { asked: &asked, issuer: issuer.named, life_s: wanted.life_s };
    let object = request((issuer.metadata)(&wanted.name), &ask);
    let params = PostParams { field_manager: Some(owner.manager.to_string()), ..PostParams::default() };
    let api = api(context, &owner.namespace);
    let made = match context.shared.writer.write(KIND, "create", &what, api.create(&params, &object)).await {
        Ok(made) => made,
        Err(error) if is_unknown_kind(&error) => {
            let note = format!(
                "spec.certificates names {}, and the cluster has no CertificateRequest: install cert-manager",
                issuer.named
            );
            return Ok((Said::Refused(Refusal::new(Reason::IssuerKindMissing, note)), AGAIN_LATER));
        }
        Err(error) => return Err(error),
    };
    let (at, uid) = (Instant::now(), made.uid());
    let life_s = wanted.life_s;
    let kept = Made { asked: Arc::new(asked), issuer: issuer.named.clone(), life_s, uid, at, seen: at };
    requests.put(&owner.namespace, &wanted.name, kept);
    Ok((Said::Awaited(awaits(issuer, wanted, &Answer::Pending("it was just made".to_string()))), AGAIN_SOON))
}

fn api(context: &Context, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(context.shared.client.clone(), namespace, &resource())
}

async fn read(context: &Context, namespace: &str, name: &str) -> Result<Result<Option<DynamicObject>, Refusal>, Error> {
    let what = format!("{KIND} {namespace}/{name}");
    match api(context, namespace).get_opt(name).await {
        Ok(found) => Ok(Ok(found)),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let note = format!(
                "the API server refuses to read {what}: {}; the chart's value certManager.enabled gives the right",
                status.message
            );
            Ok(Err(Refusal::new(Reason::ChildRefused, note)))
        }
        Err(error) => Err(Error::read(what)(error)),
    }
}

/// The API server has no such kind. A namespace that is gone is answered with the same number, and takes its objects along.
fn is_unknown_kind(error: &Error) -> bool {
    match error {
        Error::Write { source, .. } => matches!(&**source, kube::Error::Api(status) if status.code == 404),
        _ => false,
    }
}
