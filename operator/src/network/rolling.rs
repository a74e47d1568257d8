//! Replaces the authority of a network step by step: asks every process whether it has taken up the last step, and writes
//! the next one.

use althing_crds::names;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use node_api::node_core::types::{ChainId, Identity};
use node_api::pki;
use node_api::tls::TlsReport;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::desired;
use super::desired_tiers::Contexts;
use super::observe::{AuthorityRead, Observed};
use super::tiers;
use crate::certificates;
use crate::chain::nodes::Target;
use crate::config::NODE_CALL_TIMEOUT;
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::kinds::{Owner, Standing, standing};
use crate::parts::TierContext;
use crate::rollover::{self, Authority, Behind, Outside, Seen, Signer, Stage, Step};
use crate::validator::now_s;
use crate::validator::observe::address_of;

/// So many processes are asked at one time.
const ASKED_MAX: usize = 16;
/// Most bytes of a gateway's answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What is said of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// What is done or waited for.
    pub step: Step,
    /// Those who have not taken up the last step.
    pub behind: Vec<Behind>,
    /// Those who have to be told by a person.
    pub outside: Outside,
    /// The Secret cannot be changed: it was made by an earlier release.
    pub is_fixed: bool,
}

/// Goes one step further if that cuts nobody off.
pub async fn advance(context: &Context, owner: &Owner, observed: &mut Observed, tiers: &Contexts) -> Result<(), Error> {
    let AuthorityRead::Present(authority) = observed.authority.clone() else { return Ok(()) };
    // Which authority an issuer has is not ours to decide.
    if let Signer::Named(_) = &authority.issuer {
        return Ok(());
    }
    let behind = match authority.stage {
        Stage::Settled => Vec::new(),
        Stage::Trusting { .. } | Stage::Signing { .. } => behind(context, owner, observed, tiers, &authority).await?,
    };
    let (step, outside) = decide(observed, &authority, &behind, now_s());
    let mut rolling = Rolling { step, behind, outside, is_fixed: false };
    match rolling.step {
        Step::Begin | Step::Sign | Step::Withdraw => {
            rolling.is_fixed = !write(context, owner, observed, &authority, &rolling.step).await?;
        }
        Step::Rest | Step::Wait | Step::AskBeforeSigning | Step::AskBeforeWithdrawal => {}
    }
    observed.rolling = Some(rolling);
    Ok(())
}

/// The next step.
pub(super) fn decide(observed: &Observed, authority: &Authority, behind: &[Behind], now_s: u64) -> (Step, Outside) {
    let annotations = observed.network.annotations();
    let wish = annotations.get(names::ANNOTATION_ROLL);
    let outside = rollover::outside(&observed.network);
    let step = rollover::decide(&Seen {
        stage: &authority.stage,
        is_due: now_s >= authority.issuer.validity().renew_at_s(),
        is_asked: wish.is_some() && wish != authority.served.as_ref(),
        behind,
        outside: &outside,
        confirmed: annotations.get(names::ANNOTATION_CONFIRM).map(String::as_str),
    });
    (step, outside)
}

/// Writes a step over the Secret as it is now, if that is what was decided about. False when nobody can change it.
async fn write(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    decided: &Authority,
    step: &Step,
) -> Result<bool, Error> {
    let name = names::ca_secret(&owner.name);
    let what = format!("Secret {}/{name}", owner.namespace);
    let api: Api<Secret> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let secret = api.get(&name).await.map_err(Error::read(&what))?;
    forget(context, owner, &name);
    let live = Authority::read(&owner.name, &secret)?;
    let is_same = live.hash == decided.hash && live.trusted == decided.trusted;
    if !is_same || standing(&secret.metadata, owner) != Standing::Ours {
        return Err(Error::Conflict { what });
    }
    if secret.immutable == Some(true) {
        return Ok(false);
    }
    let Some(patch) = change(observed, owner, &secret, step)? else { return Ok(true) };
    let written = context.shared.writer.patch_secret(owner, &name, &patch).await?;
    forget(context, owner, &name);
    let authority = Authority::read(&owner.name, &written)?;
    let draft = told(&live, &authority);
    observed.authority = AuthorityRead::Present(authority);
    context.publish(&observed.network.object_ref(&()), &[draft]).await;
    // What they wait for is a certificate.
    for node in context.nodes_where(&owner.namespace, |node| node.spec.network == owner.name) {
        context.wakers.node(&owner.namespace, &node.name_any());
    }
    Ok(true)
}

fn forget(context: &Context, owner: &Owner, name: &str) {
    context.shared.memories.authorities.forget(&owner.uid, name);
    context.shared.authorities.forget(&owner.namespace, &owner.name);
}

fn change(observed: &Observed, owner: &Owner, secret: &Secret, step: &Step) -> Result<Option<Value>, Error> {
    let wish = observed.network.annotations().get(names::ANNOTATION_ROLL).map(String::as_str);
    Ok(match step {
        Step::Begin => {
            let next = certificates::new_authority(&owner.name, now_s())?;
            Some(rollover::begun(secret, &next, wish))
        }
        Step::Sign => Some(rollover::signed(secret)),
        Step::Withdraw => Some(rollover::withdrawn(secret)),
        Step::Rest | Step::Wait | Step::AskBeforeSigning | Step::AskBeforeWithdrawal => None,
    })
}

fn told(before: &Authority, after: &Authority) -> Draft {
    match &after.stage {
        Stage::Trusting { hash, .. } => {
            let note = format!("made the next certificate authority {hash}: everybody is told to trust it");
            Draft::normal("AuthorityComes", note)
        }
        Stage::Signing { hash } => {
            let note = format!("certificate authority {} signs now, in place of {hash}", after.hash);
            Draft::normal("AuthoritySigns", note)
        }
        Stage::Settled => {
            let former = match &before.stage {
                Stage::Signing { hash } => hash.as_str(),
                Stage::Settled | Stage::Trusting { .. } => "",
            };
            let note = format!("certificate authority {former} is trusted no more, and its key is gone");
            Draft::normal("AuthorityWithdrawn", note)
        }
    }
}

/// Those who have not taken up what the stage means.
async fn behind(
    context: &Context,
    owner: &Owner,
    observed: &Observed,
    tiers: &Contexts,
    authority: &Authority,
) -> Result<Vec<Behind>, Error> {
    let mut asked = nodes(context, owner);
    if let Some(tier) = &tiers.observers {
        asked.extend(observers(context, observed, tier).await?);
    }
    if let Some(tier) = &tiers.gateway {
        asked.extend(pods(context, tier).await?.into_iter().map(|pod| (pod.who, Asked::Gateway(pod.address))));
    }
    let answers = stream::iter(asked).map(|(who, asked)| async move {
        let why = ask(context, observed, authority, asked).await?;
        Ok::<_, Error>(why.map(|why| Behind { who, why }))
    });
    let answers: Vec<Result<Option<Behind>, Error>> = answers.buffered(ASKED_MAX).collect().await;
    // After a reconcile that failed it may be older than what the nodes have taken up meanwhile.
    let mut behind: Vec<Behind> = desired::client_behind(observed, authority, now_s())?.into_iter().collect();
    for answer in answers {
        behind.extend(answer?);
    }
    Ok(behind)
}

/// Whom to ask, and how.
enum Asked {
    /// A node; none without a process that could be asked.
    Node(Option<Target>),
    /// A gateway at this address; none when its process does not run yet.
    Gateway(Option<String>),
}

/// Why this one does not count as having taken it up; none when it does.
async fn ask(
    context: &Context,
    observed: &Observed,
    authority: &Authority,
    asked: Asked,
) -> Result<Option<&'static str>, Error> {
    const NO_POD: &str = "no running pod";
    const NOT_YET: &str = "has not taken it up yet";
    Ok(match asked {
        Asked::Node(None) | Asked::Gateway(None) => Some(NO_POD),
        Asked::Node(Some(target)) => match context.shared.dialers.proof(&target, authority, now_s())? {
            Some(node) => node.status().await.is_err().then_some(NOT_YET),
            None => None,
        },
        Asked::Gateway(Some(address)) => match tokio::time::timeout(NODE_CALL_TIMEOUT, report(&address)).await {
            Ok(Ok(report)) => (!has_taken(observed, authority, &report)).then_some(NOT_YET),
            Ok(Err(_)) | Err(_) => Some("does not say what it trusts"),
        },
    })
}

/// A gateway trusts the next authority, or presents the certificate that is in its Secret: by then that is of the new one.
pub(super) fn has_taken(observed: &Observed, authority: &Authority, report: &TlsReport) -> bool {
    let fingerprint = |pem: &str| pki::fingerprint(pem).ok().map(hex::encode);
    match &authority.stage {
        Stage::Settled => true,
        Stage::Trusting { next, .. } => {
            fingerprint(next.certificate_pem()).is_some_and(|next| report.authorities.contains(&next))
        }
        Stage::Signing { .. } => {
            let secret = observed.tiers.secret(&names::gateway_tls_secret(&observed.network.name_any()));
            let leaf = secret.and_then(|secret| certificates::text(secret, "tls.crt"));
            let of_new =
                |leaf: &String| pki::is_issued_by(leaf, authority.issuer.certificate_pem(), now_s()).unwrap_or(false);
            leaf.filter(of_new).and_then(|leaf| fingerprint(&leaf)).is_some_and(|leaf| leaf == report.certificate)
        }
    }
}

/// Every ValidatorNode of the network: also one whose process does not run now is waited for.
fn nodes(context: &Context, owner: &Owner) -> Vec<(String, Asked)> {
    let nodes = context.nodes_where(&owner.namespace, |node| node.spec.network == owner.name);
    let target = |node: &althing_crds::ValidatorNode| {
        let pod = context.pod(&owner.namespace, &names::pod(&node.name_any()))?;
        Some(Target {
            namespace: owner.namespace.clone(),
            node: node.name_any(),
            chain_id: ChainId::new(node.spec.chain_id.clone()).ok()?,
            identity: node.status.as_ref()?.identity.as_ref()?.parse().ok()?,
            address: address_of(&running(&pod)?),
        })
    };
    nodes.iter().map(|node| (node.name_any(), Asked::Node(target(node)))).collect()
}

/// The observers by the identities of their numbers.
async fn observers(context: &Context, observed: &Observed, tier: &TierContext) -> Result<Vec<(String, Asked)>, Error> {
    let secret = observed.tiers.secret(&tier.name);
    let target = |pod: &TierPod| {
        let number = pod.who.strip_prefix(&tier.name)?.strip_prefix('-')?.parse().ok()?;
        let identity: Identity = tiers::observer_identity(secret?, number)?;
        Some(Target {
            namespace: tier.network.namespace.clone(),
            node: pod.who.clone(),
            chain_id: ChainId::new(tier.chain_id.clone()).ok()?,
            identity,
            address: address_of(pod.address.as_ref()?),
        })
    };
    let pods = pods(context, tier).await?;
    Ok(pods.iter().map(|pod| (pod.who.clone(), Asked::Node(target(pod)))).collect())
}

/// A pod of a tier, with its IP while it runs.
struct TierPod {
    who: String,
    address: Option<String>,
}

/// The pods of a tier that have files: one without a machine gets the newest, and one that goes needs no others.
async fn pods(context: &Context, tier: &TierContext) -> Result<Vec<TierPod>, Error> {
    let selector: Vec<String> = tier.selector().iter().map(|(label, value)| format!("{label}={value}")).collect();
    let api: Api<Pod> = Api::namespaced(context.shared.client.clone(), &tier.network.namespace);
    let listed = api.list(&ListParams::default().labels(&selector.join(","))).await;
    let listed = listed.map_err(Error::read(format!("pods of {}/{}", tier.network.namespace, tier.name)))?;
    let has_files = |pod: &Pod| {
        let is_placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        is_placed && pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let pods = listed.items.into_iter().filter(has_files);
    Ok(pods.map(|pod| TierPod { who: pod.name_any(), address: running(&pod) }).collect())
}

fn running(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    status.pod_ip.clone().filter(|_| status.phase.as_deref() == Some("Running"))
}

/// What a gateway says of its files, on the port that only the operator and monitors reach.
async fn report(ip: &str) -> std::io::Result<TlsReport> {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    read_report(&format!("{host}:{}", names::PORT_HTTP)).await
}

/// One request by hand: the answer is small, of a program of ours, and read to the end of the connection.
pub(super) async fn read_report(address: &str) -> std::io::Result<TlsReport> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
        TlsReport::PATH
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let body = answer.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/1.1 200")).map(|(_, body)| body);
    let invalid = |message: String| std::io::Error::new(std::io::ErrorKind::InvalidData, message);
    let body = body.ok_or_else(|| invalid("it answers with something else".to_string()))?;
    serde_json::from_str(body).map_err(|error| invalid(error.to_string()))
}
