//! Who signs the certificates of a network: the operator with an authority of its own, or an issuer of cert-manager.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing_crds::{BlockchainNetwork, names};
use k8s_openapi::api::core::v1::Secret;
use node_api::node_core::types::ChainId;
use node_api::pki::{self, CertificateAuthority, LeafFacts, Validity};
use node_api::roles::{Role, SpiffeId};
use node_api::tls::TlsPem;

use super::{Authority, Stage};
use crate::certificates;
use crate::error::Error;

/// Where the authority of a network comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator made it: Secret `<bcn>-ca`.
    Own,
    /// An issuer has it: the operator's own certificates, and what is trusted, are in Secret `<bcn>-operator`.
    Issuer,
}

impl Source {
    /// As the spec says.
    pub fn of(network: &BlockchainNetwork) -> Self {
        if network.spec.certificates.is_some() { Self::Issuer } else { Self::Own }
    }

    /// Name of the Secret.
    pub fn secret(self, network: &str) -> String {
        match self {
            Self::Own => names::ca_secret(network),
            Self::Issuer => names::operator_secret(network),
        }
    }

    /// What the Secret holds.
    pub fn read(self, network: &str, secret: &Secret) -> Result<Authority, Error> {
        match self {
            Self::Own => Authority::read(network, secret),
            Self::Issuer => Authority::named(network, secret),
        }
    }
}

/// Who signs.
#[derive(Clone)]
pub enum Signer {
    /// The operator, with this authority.
    Own(Arc<CertificateAuthority>),
    /// An issuer, by whose certificates the operator calls the nodes.
    Named(Arc<Named>),
}

/// What an issuer has given to the operator.
pub struct Named {
    /// Its authority.
    certificate_pem: String,
    validity: Validity,
    /// Authorities that issued before and are still trusted, the last one first.
    former: Vec<String>,
    /// The operator's certificates by chain.
    own: BTreeMap<ChainId, Own>,
}

struct Own {
    certificate: String,
    key: String,
    facts: LeafFacts,
}

impl Signer {
    /// The certificate of the authority.
    pub fn certificate_pem(&self) -> &str {
        match self {
            Self::Own(authority) => authority.certificate_pem(),
            Self::Named(named) => &named.certificate_pem,
        }
    }

    /// When the authority counts.
    pub fn validity(&self) -> Validity {
        match self {
            Self::Own(authority) => authority.validity(),
            Self::Named(named) => named.validity,
        }
    }
}

/// Entry with the authorities that issued before.
const FORMER: &str = "former.crt";

/// Entries of the operator's certificate and key for the chain of this number.
pub fn entries(number: usize) -> [String; 2] {
    let name = if number == 0 { "tls".to_string() } else { format!("tls.{number}") };
    [format!("{name}.crt"), format!("{name}.key")]
}

impl Named {
    /// Authorities that issued before and are still trusted, the last one first.
    pub fn former(&self) -> &[String] {
        &self.former
    }

    /// There is a certificate for each of these ids, in the first two thirds of its life.
    pub fn covers(&self, ids: &[SpiffeId], now_s: u64) -> bool {
        ids.iter().all(|id| {
            let own = self.own.get(id.chain_id());
            own.is_some_and(|own| own.facts.id == *id && now_s < own.facts.validity.renew_at_s())
        })
    }

    /// As whom the operator calls nodes of this chain.
    pub fn own(&self, chain_id: &ChainId, authority: &Authority) -> Option<TlsPem> {
        let own = self.own.get(chain_id)?;
        Some(TlsPem {
            certificate: own.certificate.clone().into_bytes(),
            key: own.key.clone().into_bytes().into(),
            authorities: authority.trusted.clone().into_bytes(),
            members: Vec::new(),
        })
    }

    /// When the first of the operator's certificates ends.
    fn ends_s(&self) -> Option<u64> {
        self.own.values().map(|own| own.facts.validity.not_after_s()).min()
    }

    /// Another word when one of the operator's certificates is another one.
    fn mark(&self) -> String {
        self.own.values().map(|own| hex::encode(own.facts.fingerprint)).collect::<Vec<_>>().join(" ")
    }
}

impl Authority {
    /// What an issuer has given, as it lies in its Secret. In `ca.crt` the authority that issued the operator's certificate
    /// comes first.
    pub fn named(network: &str, secret: &Secret) -> Result<Self, Error> {
        let failed = |message: String| Error::Certificates { what: network.to_string(), message };
        let trusted = certificates::text(secret, "ca.crt").unwrap_or_default();
        pki::check_authorities(&trusted).map_err(|error| failed(error.to_string()))?;
        let certificate_pem = pki::blocks(&trusted).into_iter().next().unwrap_or_default();
        let validity = pki::validity(&certificate_pem).map_err(|error| failed(error.to_string()))?;
        let mut own = BTreeMap::new();
        for number in 0.. {
            let [entry, key] = entries(number);
            let Some(certificate) = certificates::text(secret, &entry) else { break };
            let key = certificates::text(secret, &key).unwrap_or_default();
            let facts = LeafFacts::from_pem(&certificate).map_err(|error| failed(format!("{entry}: {error}")))?;
            if facts.id.role() != Role::Operator || key.is_empty() {
                return Err(failed(format!("{entry} is not a certificate of the operator with its key")));
            }
            own.insert(facts.id.chain_id().clone(), Own { certificate, key, facts });
        }
        if own.is_empty() {
            return Err(failed("there is no certificate of the operator".to_string()));
        }
        let hash = certificates::hash(&certificate_pem);
        let former = pki::blocks(&certificates::text(secret, FORMER).unwrap_or_default());
        let issuer = Signer::Named(Arc::new(Named { certificate_pem, validity, former, own }));
        Ok(Self { issuer, hash, trusted, stage: Stage::Settled, served: None })
    }

    /// The entries of a Secret that [`Authority::named`] reads, apart from the certificates.
    pub fn named_entries(trusted: &str, former: &[String]) -> Vec<(String, String)> {
        let mut entries = vec![("ca.crt".to_string(), trusted.to_string())];
        if !former.is_empty() {
            entries.push((FORMER.to_string(), former.concat()));
        }
        entries
    }

    /// Authorities of an issuer that issued before and are still trusted, the last one first.
    pub fn former(&self) -> &[String] {
        match &self.issuer {
            Signer::Own(_) => &[],
            Signer::Named(named) => named.former(),
        }
    }

    /// When the first of the operator's certificates ends that an issuer has given to it.
    pub fn own_ends_s(&self) -> Option<u64> {
        match &self.issuer {
            Signer::Own(_) => None,
            Signer::Named(named) => named.ends_s(),
        }
    }

    /// Another word when the operator has to call with another certificate.
    pub fn mark(&self) -> String {
        match &self.issuer {
            Signer::Own(_) => self.hash.clone(),
            Signer::Named(named) => named.mark(),
        }
    }
}
