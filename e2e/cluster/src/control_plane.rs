//! etcd, API server, controller manager and scheduler, all in node 1.

use serde_json::json;

use crate::checkout::{Checkout, Node};
use crate::daemon::Daemon;
use crate::error::{Doing, Result};
use crate::interrupt::{Wait, wait_for};
use crate::kubectl::kubectl;
use crate::network::{API_PORT, POD_RANGE, SERVICE_RANGE, address};

const PKI: &str = "/run/althing/pki";
const ETCD: &str = "http://127.0.0.1:2379";
const AUDIT_POLICY: &str = "audit-policy.json";

/// Starts etcd and the API server.
///
/// # Errors
/// When node 1 does not run.
pub fn start_api_server(checkout: &Checkout) -> Result<()> {
    let policy = checkout.node(Node::FIRST).join("config").join(AUDIT_POLICY);
    std::fs::write(&policy, audit_policy()).doing("write", &policy)?;
    etcd().start(checkout, Node::FIRST)?;
    api_server().start(checkout, Node::FIRST)
}

/// Waits for the API server.
///
/// # Errors
/// When it does not get ready.
pub fn wait_until_ready(checkout: &Checkout) -> Result<()> {
    let log = checkout.log().join("kube-apiserver-node1.log");
    let hint = format!("see {}", log.display());
    let wait = Wait { what: "the start of the API server", seconds_max: 90, every_ms: 150, hint: &hint };
    wait_for(wait, || Ok(is_ready(checkout).then_some(())))
}

/// Does the API server say that it is ready?
pub fn is_ready(checkout: &Checkout) -> bool {
    kubectl(checkout, &["get", "--raw", "/readyz", "--request-timeout=5s"]).is_ok()
}

/// Starts controller manager and scheduler. Only once the API server is ready: both back off for seconds otherwise.
///
/// # Errors
/// When node 1 does not run.
pub fn start_controllers(checkout: &Checkout) -> Result<()> {
    controller_manager().start(checkout, Node::FIRST)?;
    scheduler().start(checkout, Node::FIRST)
}

/// No fsync: a cluster that lives for hours need not survive a power cut, and etcd is slow with it.
fn etcd() -> Daemon {
    Daemon::new(
        "etcd",
        [
            "--data-dir=/var/lib/etcd".to_string(),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ],
    )
}

fn api_server() -> Daemon {
    Daemon::new(
        "kube-apiserver",
        [
            format!("--advertise-address={}", address(Node::FIRST)),
            "--bind-address=0.0.0.0".into(),
            format!("--secure-port={API_PORT}"),
            format!("--etcd-servers={ETCD}"),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--allow-privileged=true".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            format!("--client-ca-file={PKI}/ca.crt"),
            format!("--tls-cert-file={PKI}/apiserver.crt"),
            format!("--tls-private-key-file={PKI}/apiserver.key"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={PKI}/sa.pub"),
            format!("--service-account-signing-key-file={PKI}/sa.key"),
            format!("--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt"),
            format!("--kubelet-client-key={PKI}/apiserver-kubelet-client.key"),
            format!("--kubelet-certificate-authority={PKI}/ca.crt"),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--proxy-client-cert-file={PKI}/front-proxy-client.crt"),
            format!("--proxy-client-key-file={PKI}/front-proxy-client.key"),
            "--cert-dir=/var/lib/kubernetes".into(),
            format!("--audit-policy-file=/run/althing/node/config/{AUDIT_POLICY}"),
            "--audit-log-path=/run/althing/log/audit.log".into(),
            "--audit-log-maxsize=100".into(),
            "--audit-log-maxbackup=1".into(),
        ],
    )
}

/// The short node monitor times make a lost node `NotReady` after 13 s instead of 49 s.
fn controller_manager() -> Daemon {
    let kubeconfig = format!("{PKI}/kube-controller-manager.kubeconfig");
    Daemon::new(
        "kube-controller-manager",
        [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!("--service-account-private-key-file={PKI}/sa.key"),
            format!("--root-ca-file={PKI}/ca.crt"),
            format!("--client-ca-file={PKI}/ca.crt"),
            format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
            "--use-service-account-credentials=true".into(),
            format!("--cluster-signing-cert-file={PKI}/ca.crt"),
            format!("--cluster-signing-key-file={PKI}/ca.key"),
            // Pods' addresses are fixed per node by the CNI configuration.
            "--allocate-node-cidrs=false".into(),
            format!("--cluster-cidr={POD_RANGE}"),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
            // Its default is a folder of the host, which it would create.
            "--flex-volume-plugin-dir=/var/lib/kubernetes/plugins".into(),
            "--kube-api-qps=300".into(),
            "--kube-api-burst=600".into(),
            "--node-monitor-grace-period=12s".into(),
            "--node-monitor-period=2s".into(),
        ],
    )
}

fn scheduler() -> Daemon {
    let kubeconfig = format!("{PKI}/kube-scheduler.kubeconfig");
    Daemon::new(
        "kube-scheduler",
        [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
        ],
    )
}

/// Who did what to which object, for everybody but the cluster's own parts: enough to prove that an operator uses no
/// right that it does not need, and little to write.
fn audit_policy() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {"level": "None", "users": [
                "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy",
                "calico", "system:serviceaccount:local-path-storage:local-path-provisioner",
            ]},
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*"]},
            {"level": "Metadata"},
        ],
    })
    .to_string()
}
