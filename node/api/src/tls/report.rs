//! What a process says of the TLS files that it uses, for whoever has to know that it has taken up new ones.

use serde::{Deserialize, Serialize};

use super::TlsMaterial;

/// Fingerprints are SHA-256 of the DER of a certificate, hexadecimal. None of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsReport {
    /// The certificate that the process presents.
    pub certificate: String,
    /// Each authority that it trusts.
    pub authorities: Vec<String>,
}

impl TlsReport {
    /// Where gateways answer with it, on their port for metrics and probes.
    pub const PATH: &str = "/tls";

    /// Of these files.
    pub fn of(material: &TlsMaterial) -> Self {
        let authorities = material.authorities().iter().map(hex::encode).collect();
        Self { certificate: hex::encode(material.facts().fingerprint), authorities }
    }
}
