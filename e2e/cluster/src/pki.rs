//! Keys, certificates and kubeconfigs of one cluster; made anew with every cluster, so there is nothing to renew.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;

use crate::checkout::Node;
use crate::error::{Doing, Error, Result};
use crate::network;

const ADMINISTRATORS: &str = "system:masters";

/// Who a certificate is for and what it may be used for.
struct Subject<'a> {
    name: &'a str,
    common_name: String,
    organization: Option<&'a str>,
    usages: &'a [ExtendedKeyUsagePurpose],
    /// DNS names and IP addresses.
    addresses: Vec<String>,
}

/// A certificate authority that can issue.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Makes everything into `folder`: `ca`, `front-proxy-ca`, `sa` (service account tokens), the API server's
/// certificates, and a kubeconfig for each component, each node and `admin`.
///
/// # Errors
/// When a key cannot be made or a file cannot be written.
pub fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).doing("create", folder)?;
    let authority = Authority::make(folder, "ca")?;
    let front_proxy = Authority::make(folder, "front-proxy-ca")?;

    let tokens = KeyPair::generate().map_err(|source| Error::Certificate { name: "sa".into(), source })?;
    write(&folder.join("sa.key"), &tokens.serialize_pem())?;
    write(&folder.join("sa.pub"), &tokens.public_key_pem())?;

    let server = [ExtendedKeyUsagePurpose::ServerAuth];
    let client = [ExtendedKeyUsagePurpose::ClientAuth];
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from).into();
    names.extend(["kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1"].map(String::from));
    names.extend([network::API_SERVICE_ADDRESS.to_string(), network::address(Node::FIRST)]);
    authority.issue(
        folder,
        Subject {
            name: "apiserver",
            common_name: "kube-apiserver".into(),
            organization: None,
            usages: &server,
            addresses: names,
        },
    )?;
    authority.issue(
        folder,
        Subject {
            organization: Some(ADMINISTRATORS),
            ..Subject::client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &client)
        },
    )?;
    front_proxy.issue(folder, Subject::client("front-proxy-client", "front-proxy-client", &client))?;

    for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        authority.kubeconfig(folder, Subject::client(name, &format!("system:{name}"), &client))?;
    }
    // Calico's agent is an administrator here: a narrow role for it is not what this cluster is to prove.
    for name in ["admin", "calico"] {
        let subject = Subject { organization: Some(ADMINISTRATORS), ..Subject::client(name, name, &client) };
        authority.kubeconfig(folder, subject)?;
    }
    let both = [ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    for node in Node::all() {
        authority.kubeconfig(
            folder,
            Subject {
                name: &node.to_string(),
                common_name: format!("system:node:{node}"),
                organization: Some("system:nodes"),
                usages: &both,
                addresses: vec![node.to_string(), network::address(node)],
            },
        )?;
    }
    Ok(())
}

/// The administrator's kubeconfig with the address that the host reaches the API server at.
///
/// # Errors
/// When [`make`] has not run or the file cannot be written.
pub fn write_host_kubeconfig(folder: &Path, api_port: u16, output: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).doing("read", &path)
    };
    let (authority, certificate, key) = (read("ca.crt")?, read("admin.crt")?, read("admin.key")?);
    let server = format!("https://127.0.0.1:{api_port}");
    write(output, &kubeconfig(&server, &Credentials { authority, certificate, key })?)
}

struct Credentials {
    authority: String,
    certificate: String,
    key: String,
}

impl<'a> Subject<'a> {
    fn client(name: &'a str, common_name: &str, usages: &'a [ExtendedKeyUsagePurpose]) -> Self {
        Self { name, common_name: common_name.into(), organization: None, usages, addresses: Vec::new() }
    }
}

impl Authority {
    fn make(folder: &Path, name: &str) -> Result<Self> {
        let failed = |source| Error::Certificate { name: name.into(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = parameters(name, None, Vec::new()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        write(&folder.join(format!("{name}.crt")), &certificate)?;
        write(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    fn issue(&self, folder: &Path, subject: Subject<'_>) -> Result<Credentials> {
        let failed = |source| Error::Certificate { name: subject.name.into(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params =
            parameters(&subject.common_name, subject.organization, subject.addresses.clone()).map_err(failed)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = subject.usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        let key = key.serialize_pem();
        write(&folder.join(format!("{}.crt", subject.name)), &certificate)?;
        write(&folder.join(format!("{}.key", subject.name)), &key)?;
        Ok(Credentials { authority: self.certificate.clone(), certificate, key })
    }

    fn kubeconfig(&self, folder: &Path, subject: Subject<'_>) -> Result<()> {
        let path: PathBuf = folder.join(format!("{}.kubeconfig", subject.name));
        let server = format!("https://{}:{}", network::address(Node::FIRST), network::API_PORT);
        write(&path, &kubeconfig(&server, &self.issue(folder, subject)?)?)
    }
}

fn parameters(
    common_name: &str,
    organization: Option<&str>,
    addresses: Vec<String>,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(addresses)?;
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    // Wide enough for a machine with a wrong clock; the cluster lives for hours.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2046, 1, 1);
    Ok(params)
}

/// JSON is YAML; keys are inside, so the file works wherever it is copied.
fn kubeconfig(server: &str, credentials: &Credentials) -> Result<String> {
    let document = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "althing",
        "clusters": [{"name": "althing", "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(&credentials.authority),
        }}],
        "users": [{"name": "althing", "user": {
            "client-certificate-data": STANDARD.encode(&credentials.certificate),
            "client-key-data": STANDARD.encode(&credentials.key),
        }}],
        "contexts": [{"name": "althing", "context": {"cluster": "althing", "user": "althing"}}],
    });
    serde_json::to_string_pretty(&document)
        .map_err(|source| Error::Json { action: "write a kubeconfig".into(), source })
}

/// Private keys are among these files: nobody but root reads them.
fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).doing("create", path)?;
    file.write_all(text.as_bytes()).doing("write", path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_component_and_node_gets_a_kubeconfig_that_only_root_reads() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path()).unwrap();
        for name in ["admin", "calico", "kube-controller-manager", "kube-scheduler", "kube-proxy", "node1", "node4"] {
            let path = folder.path().join(format!("{name}.kubeconfig"));
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("https://192.168.99.1:6443"), "{name}");
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_hosts_kubeconfig_leads_to_the_listener_on_loopback() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path()).unwrap();
        let output = folder.path().join("host");
        write_host_kubeconfig(folder.path(), 20_001, &output).unwrap();
        let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(output).unwrap()).unwrap();
        assert_eq!(document["clusters"][0]["cluster"]["server"], "https://127.0.0.1:20001");
    }
}
