//! `cluster selftest`: proves on the running cluster that it is what it claims to be.
//!
//! Four pods, one a node, with a volume each. They must reach each other by name until a policy forbids it, their
//! volumes must belong to them, and nodes must get lost and come back. About 45 s, most of it waiting for `NotReady`.

use std::io::{Read, Write};
use std::time::Duration;

use crate::checkout::{Checkout, Node};
use crate::error::{Error, Result};
use crate::forward;
use crate::interrupt::{Wait, wait_for};
use crate::kubectl::{apply, kubectl};
use crate::membership::Heartbeats;
use crate::progress::Progress;
use crate::{addons, control_plane, daemon, membership, relay, up};

const PEERS: &str = include_str!("../manifests/selftest.yaml");
const NAMESPACE: &str = "cluster-selftest";

const DENY_ALL: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: cluster-selftest}
spec: {podSelector: {}, policyTypes: [Ingress]}";

const ALLOW_PEER_0: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow, namespace: cluster-selftest}
spec:
  podSelector: {matchLabels: {app: peer}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: peer-0}}}]
    ports: [{port: 8080}]";

/// A pod that wants the volume of another.
const SECOND_USER: &str = "apiVersion: v1
kind: Pod
metadata: {name: second-user, namespace: cluster-selftest}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: user
    image: docker.io/local/busybox:1
    imagePullPolicy: IfNotPresent
    command: [sleep, '3600']
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data-peer-0}}]";

const PRIVILEGED: &str = "apiVersion: v1
kind: Pod
metadata: {name: privileged, namespace: cluster-selftest}
spec:
  containers:
  - {name: all, image: 'docker.io/local/busybox:1', imagePullPolicy: IfNotPresent, securityContext: {privileged: true}}";

/// Runs all checks and removes what they made, unless one fails: then it is there to be looked at.
///
/// # Errors
/// The first check that fails.
pub fn run(checkout: &Checkout) -> Result<()> {
    let environment = membership::expect_running(checkout)?;
    if membership::alive(checkout, &environment).len() < usize::from(Node::MAX) {
        return Err(Error::Refused("selftest needs all four nodes; use `cluster up --nodes 4`".into()));
    }
    let mut progress = Progress::start();
    kubectl(checkout, &["delete", "namespace", NAMESPACE, "--ignore-not-found"])?;
    apply(checkout, PEERS)?;
    kubectl(checkout, &["-n", NAMESPACE, "rollout", "status", "statefulset/peer", "--timeout=90s"])?;
    progress.done("four pods with volumes are Ready, one a node");

    names_lead_to_pods_of_all_nodes(checkout)?;
    progress.done("each pod reaches each by name, and by the virtual address of a Service");
    volumes_belong_to_their_pods(checkout)?;
    progress.done("volumes belong to the pods' group; a second pod does not get a ReadWriteOncePod volume");
    rights_are_enforced(checkout)?;
    progress.done("PodSecurity and RBAC refuse; the audit log has it");
    host_gets_in(checkout)?;
    progress.done("the host reaches a Service through the relay");
    policies_are_enforced(checkout)?;
    progress.done("a NetworkPolicy denies, another allows one pod");
    nodes_get_lost_and_come_back(checkout, &mut progress)?;
    daemon::restart(checkout, Node::FIRST, "kube-apiserver")?;
    control_plane::wait_until_ready(checkout)?;
    progress.done("the API server was killed and is back");

    kubectl(checkout, &["delete", "namespace", NAMESPACE, "--timeout=60s"])?;
    wait(20, "the removal of all volumes", || {
        let volumes =
            kubectl(checkout, &["get", "pv", "-o", "jsonpath={range .items[*]}{.spec.claimRef.namespace} {end}"])?;
        Ok(!volumes.contains(NAMESPACE))
    })?;
    progress.done("everything is removed again, volumes too");
    Ok(())
}

fn names_lead_to_pods_of_all_nodes(checkout: &Checkout) -> Result<()> {
    for from in 0..4 {
        for to in 0..4 {
            let name = format!("peer-{to}");
            let what = format!("the answer of {name} to peer-{from}");
            wait(
                10,
                &what,
                || Ok(fetch(checkout, from, &format!("{name}.peers:8080/name")).as_deref() == Some(&name)),
            )?;
        }
    }
    expect("the Service's virtual address answers", fetch(checkout, 0, "any/name").is_some())?;
    expect("a name outside the cluster is unknown", fetch(checkout, 0, "debian.org/").is_none())
}

fn volumes_belong_to_their_pods(checkout: &Checkout) -> Result<()> {
    let owner = inside(checkout, 1, "stat -c %g /data; id -u")?;
    expect("the volume has the pod's fsGroup, and the pod is not root", owner == "65532\n65532\n")?;
    apply(checkout, SECOND_USER)?;
    wait(15, "the refusal of a second user of a volume", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
        let said = kubectl(checkout, &["-n", NAMESPACE, "get", "pod", "second-user", "-o", path])?;
        Ok(said.contains("ReadWriteOncePod"))
    })?;
    kubectl(checkout, &["-n", NAMESPACE, "delete", "pod", "second-user"]).map(drop)
}

fn rights_are_enforced(checkout: &Checkout) -> Result<()> {
    let refusal = apply(checkout, PRIVILEGED).err().map(|error| error.to_string()).unwrap_or_default();
    expect("PodSecurity refuses a privileged pod", refusal.contains("violates PodSecurity"))?;
    let nobody = format!("--as=system:serviceaccount:{NAMESPACE}:default");
    let refusal = kubectl(checkout, &["-n", NAMESPACE, "get", "secrets", &nobody]).err();
    let refusal = refusal.map(|error| error.to_string()).unwrap_or_default();
    expect("RBAC refuses an account without rights", refusal.contains("Forbidden") || refusal.contains("forbidden"))?;
    wait(5, "the refusal in the audit log", || {
        let log = std::fs::read_to_string(checkout.log().join("audit.log")).unwrap_or_default();
        Ok(log.lines().any(|line| line.contains("\"code\":403") && line.contains("cluster-selftest:default")))
    })
}

fn host_gets_in(checkout: &Checkout) -> Result<()> {
    let target = format!("{NAMESPACE}/any:http").parse().map_err(Error::Refused)?;
    let address = forward::resolve(checkout, &target)?;
    expect("the host reaches a Service", get(checkout, Node::FIRST, &address).contains("peer-"))
}

fn policies_are_enforced(checkout: &Checkout) -> Result<()> {
    let reaches = |from| fetch(checkout, from, "peer-3.peers:8080/name").is_some();
    apply(checkout, DENY_ALL)?;
    wait(10, "the denial of all connections", || Ok(!reaches(0) && !reaches(1)))?;
    apply(checkout, ALLOW_PEER_0)?;
    wait(10, "the permission for peer-0", || Ok(reaches(0)))?;
    expect("peer-1 is still denied", !reaches(1))?;
    kubectl(checkout, &["-n", NAMESPACE, "delete", "networkpolicy", "--all"])?;
    wait(10, "the end of the denial", || Ok(reaches(1)))
}

/// One node loses its cable, another its power, at the same time.
fn nodes_get_lost_and_come_back(checkout: &Checkout, progress: &mut Progress) -> Result<()> {
    let nodes: Vec<Node> = Node::all().collect();
    let (Some(cut), Some(crashed)) = (nodes.get(2).copied(), nodes.get(3).copied()) else { return Ok(()) };
    let (cut_pod, crashed_pod) = (pod_of(checkout, cut)?, pod_of(checkout, crashed)?);
    membership::partition(checkout, cut)?;
    membership::crash(checkout, crashed)?;
    wait(40, "the loss of two nodes", || Ok(!is_ready(checkout, cut)? && !is_ready(checkout, crashed)?))?;
    progress.done("a partitioned and a crashed node are NotReady");

    let address = format!("{}:8080", cut_pod.address);
    expect("a partitioned pod is out of reach", get(checkout, Node::FIRST, &address).is_empty())?;
    expect("but it lives, as its own node's relay shows", get(checkout, cut, &address).contains(&cut_pod.name))?;
    membership::heal(checkout, cut)?;
    up::add_node(checkout, crashed)?;
    membership::wait_until_ready(checkout, &nodes, &Heartbeats::default())?;
    progress.done("both nodes are Ready again");

    addons::wait_for_base(checkout)?;
    kubectl(checkout, &["-n", NAMESPACE, "rollout", "status", "statefulset/peer", "--timeout=60s"])?;
    let index = |pod: &Pod| pod.name.rsplit('-').next().and_then(|index| index.parse().ok()).unwrap_or(0);
    wait(30, "the second start of the pod on the crashed node, with its data", || {
        let starts = inside(checkout, index(&crashed_pod), "cat /data/starts").unwrap_or_default();
        Ok(starts.lines().count() == 2)
    })?;
    let starts = inside(checkout, index(&cut_pod), "cat /data/starts")?;
    expect("the partitioned pod was never restarted", starts.lines().count() == 1)?;
    progress.done("the crashed node's pod is back with its data, the partitioned one went on");
    Ok(())
}

struct Pod {
    name: String,
    address: String,
}

fn pod_of(checkout: &Checkout, node: Node) -> Result<Pod> {
    let field = format!("--field-selector=spec.nodeName={node}");
    let path = "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}";
    let line = kubectl(checkout, &["-n", NAMESPACE, "get", "pods", "-l", "app=peer", &field, "-o", path])?;
    let (name, address) =
        line.split_once(' ').ok_or_else(|| Error::Refused(format!("there is no pod on {node}: {line}")))?;
    Ok(Pod { name: name.into(), address: address.into() })
}

fn is_ready(checkout: &Checkout, node: Node) -> Result<bool> {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    Ok(kubectl(checkout, &["get", "node", &node.to_string(), "-o", path])? == "True")
}

/// What a pod gets from an address; `None` when it gets nothing within a second.
fn fetch(checkout: &Checkout, from: u8, address: &str) -> Option<String> {
    let script = format!("timeout 1 wget -q -O - http://{address}");
    inside(checkout, from, &script).ok().map(|text| text.trim().to_string())
}

fn inside(checkout: &Checkout, peer: u8, script: &str) -> Result<String> {
    kubectl(checkout, &["-n", NAMESPACE, "exec", &format!("peer-{peer}"), "--", "sh", "-c", script])
}

/// What the host gets from an address through the relay of a node; empty when nothing comes.
fn get(checkout: &Checkout, node: Node, address: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = relay::dial(&checkout.relay(node), address) {
        // Whatever fails, the answer stays empty, and that is what the caller judges.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = stream.write_all(b"GET /name HTTP/1.0\r\n\r\n");
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

fn wait(seconds_max: u64, what: &str, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let hint = "the pods are still there: kubectl -n cluster-selftest get pods -o wide";
    wait_for(Wait { what, seconds_max, every_ms: 100, hint }, || Ok(look()?.then_some(())))
}

fn expect(claim: &str, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Refused(format!("it is not true that {claim}"))) }
}
