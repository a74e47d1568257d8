//! Who issues the certificates of a network when it is not the operator itself.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::peers::TrustedAuthority;

/// An issuer of cert-manager, and whom to trust beside the authority that it answers with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// The issuer. The operator makes each key itself and asks by a CertificateRequest; what comes back is used when it is
    /// what was asked, by an authority that this network trusts. Another issuer of the same authority can take its place.
    pub issuer_ref: IssuerRef,
    /// Authorities that are trusted beside the one that issued the operator's own certificate. Needed before the issuer gets
    /// another authority, until every certificate is of that one; and where the issuer does not say its authority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub trusted_authorities: Vec<TrustedAuthority>,
}

/// Names an issuer as cert-manager's own kinds do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Name of the issuer; an `Issuer` is in the namespace of the network.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer`, `ClusterIssuer`, or a kind of an external issuer.
    #[serde(default = "kind_default")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// API group of the kind; an external issuer has its own.
    #[serde(default = "group_default")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub group: String,
}

fn kind_default() -> String {
    "Issuer".to_string()
}

fn group_default() -> String {
    "cert-manager.io".to_string()
}

impl std::fmt::Display for IssuerRef {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, kind, group } = self;
        write!(formatter, "{kind}.{group} {name}")
    }
}
