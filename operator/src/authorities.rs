//! Certificate authorities of networks, read from their Secrets and kept for a short while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use althing_crds::names;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use node_api::pki::CertificateAuthority;

use crate::certificates;
use crate::error::Error;

/// How long an authority is used before its Secret is read again.
const AGE_MAX: Duration = Duration::from_secs(30);

/// An authority and the hash of its certificate.
#[derive(Clone)]
pub struct Authority {
    /// Issues certificates.
    pub issuer: Arc<CertificateAuthority>,
    /// SHA-256 of its certificate, hexadecimal.
    pub hash: String,
}

/// All authorities by namespace and network.
#[derive(Default)]
pub struct Authorities {
    kept: Mutex<HashMap<(String, String), (Instant, Authority)>>,
}

impl Authorities {
    /// The authority of a network. One whose Secret is gone goes on being used while this process runs: the network says
    /// that it is lost, and its nodes still trust it.
    pub async fn get(&self, client: &Client, namespace: &str, network: &str) -> Result<Option<Authority>, Error> {
        let key = (namespace.to_string(), network.to_string());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((read_at, authority)) = &kept
            && read_at.elapsed() < AGE_MAX
        {
            return Ok(Some(authority.clone()));
        }
        let name = names::ca_secret(network);
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = api.get_opt(&name).await.map_err(Error::read(format!("Secret {namespace}/{name}")))?;
        let Some(secret) = secret else {
            return Ok(kept.map(|(_, authority)| authority));
        };
        let authority = Authority {
            issuer: Arc::new(certificates::authority(network, &secret)?),
            hash: certificates::authority_hash(&secret).unwrap_or_default(),
        };
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (Instant::now(), authority.clone()));
        Ok(Some(authority))
    }

    /// The Secret was made or seen to change: read it again next time.
    pub fn forget(&self, namespace: &str, network: &str) {
        let key = (namespace.to_string(), network.to_string());
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}
