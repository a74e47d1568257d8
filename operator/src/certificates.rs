//! Certificates: what is in a Secret, whether it must be issued again, and issuing it. Pure; the time is an input.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use node_api::node_core::types::{ChainId, Identity};
use node_api::pki::{
    CertificateAuthority, EntranceFacts, IssuedCertificate, LeafFacts, Validity, is_entrance_issued_by, is_issued_by,
};
use node_api::roles::{NodeRole, Role, SpiffeId};
use node_api::tls::TlsPem;

use crate::error::Error;
use crate::parts::secrets::CertificatePem;

/// In place of a private key that is not kept.
const PRESENT: &[u8] = b"present";
const DAY_S: u64 = 24 * 60 * 60;
/// Life of a network's authority.
const AUTHORITY_S: u64 = 3_650 * DAY_S;
/// Life of a node's certificate.
pub const NODE_S: u64 = 30 * DAY_S;
/// Life of a user's certificate.
pub const CLIENT_S: u64 = 365 * DAY_S;
/// Life of the operator's own certificates, which exist in memory only.
pub const OPERATOR_S: u64 = DAY_S;
/// Clocks of machines may differ by this much.
const SKEW_S: u64 = 300;

/// Text of one key of a Secret.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// The Secret without private keys: of those it only says that they are there.
pub fn without_keys(mut secret: Secret) -> Secret {
    for (name, value) in secret.data.iter_mut().flatten() {
        if name.ends_with(".key") && !value.0.is_empty() {
            value.0 = PRESENT.to_vec();
        }
    }
    secret.metadata.managed_fields = None;
    secret
}

/// SHA-256 of the authority's certificate, hexadecimal.
pub fn authority_hash(secret: &Secret) -> Option<String> {
    use sha2::{Digest, Sha256};
    text(secret, "tls.crt").map(|pem| hex::encode(Sha256::digest(pem.trim().as_bytes())))
}

/// When the certificate in a Secret ends, as it stands in a status.
pub fn expires(secret: &Secret) -> Option<String> {
    LeafFacts::from_pem(&text(secret, "tls.crt")?).ok().and_then(|facts| time(facts.validity.not_after_s()))
}

/// Unix seconds as they stand in a status.
pub fn time(seconds: u64) -> Option<String> {
    Some(Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?.to_string())
}

fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Error {
    let what = what.to_string();
    move |error| Error::Certificates { what, message: error.to_string() }
}

fn validity(what: &str, now_s: u64, life_s: u64) -> Result<Validity, Error> {
    Validity::new(now_s.saturating_sub(SKEW_S), now_s.saturating_add(life_s)).map_err(failed(what))
}

/// A new authority for a network.
pub fn new_authority(network: &str, now_s: u64) -> Result<CertificateAuthority, Error> {
    let name: String = format!("althing {network}").chars().take(64).collect();
    CertificateAuthority::generate(&name, validity(network, now_s, AUTHORITY_S)?).map_err(failed(network))
}

/// The authority in a Secret.
pub fn authority(network: &str, secret: &Secret) -> Result<CertificateAuthority, Error> {
    let certificate = text(secret, "tls.crt").unwrap_or_default();
    let key = text(secret, "tls.key").unwrap_or_default();
    CertificateAuthority::from_pem(&certificate, &key).map_err(failed(network))
}

/// Issues a certificate.
pub fn issue(
    authority: &CertificateAuthority,
    id: &SpiffeId,
    now_s: u64,
    life_s: u64,
) -> Result<CertificatePem, Error> {
    let what = id.to_string();
    let issued = authority.issue(id, validity(&what, now_s, life_s)?).map_err(failed(&what))?;
    Ok(CertificatePem {
        certificate: issued.certificate_pem.clone(),
        key: issued.key_pem.to_string(),
        authorities: authority.certificate_pem().to_string(),
    })
}

/// Issues a certificate for a public entrance with these host names.
pub fn issue_entrance(
    authority: &CertificateAuthority,
    names: &[String],
    now_s: u64,
    life_s: u64,
) -> Result<CertificatePem, Error> {
    let what = names.first().map_or("", String::as_str);
    let (certificate, key) = authority.issue_entrance(names, validity(what, now_s, life_s)?).map_err(failed(what))?;
    let authorities = authority.certificate_pem().to_string();
    Ok(CertificatePem { certificate, key: key.to_string(), authorities })
}

/// Issues a certificate that never leaves this process.
pub fn issue_own(authority: &CertificateAuthority, chain_id: &ChainId, now_s: u64) -> Result<TlsPem, Error> {
    let id = SpiffeId::new(chain_id, Role::Operator, "althing-operator").map_err(failed(chain_id.as_str()))?;
    let what = id.to_string();
    let issued = authority.issue(&id, validity(&what, now_s, OPERATOR_S)?).map_err(failed(&what))?;
    Ok(TlsPem::from_issued(&issued, authority.certificate_pem()))
}

/// Issues a certificate of a node without a vote, as which this process asks nodes of other members. It never leaves this
/// process.
pub fn issue_observer(
    authority: &CertificateAuthority,
    chain_id: &ChainId,
    identity: &Identity,
    now_s: u64,
) -> Result<IssuedCertificate, Error> {
    let id = SpiffeId::node(chain_id, NodeRole::Observer, identity);
    let what = id.to_string();
    authority.issue(&id, validity(&what, now_s, OPERATOR_S)?).map_err(failed(&what))
}

/// Whether the certificate in this Secret can be used until it is looked at again: for this id, by this authority, and
/// in the first two thirds of its life.
pub fn is_current(secret: &Secret, id: &SpiffeId, authority: &CertificateAuthority, now_s: u64) -> bool {
    let (Some(certificate), Some(key), Some(bundle)) =
        (text(secret, "tls.crt"), text(secret, "tls.key"), text(secret, "ca.crt"))
    else {
        return false;
    };
    let Ok(facts) = LeafFacts::from_pem(&certificate) else { return false };
    let is_ours = is_issued_by(&certificate, authority.certificate_pem(), now_s).unwrap_or(false);
    let is_trusted = bundle.contains(authority.certificate_pem().trim());
    facts.id == *id && is_ours && is_trusted && !key.is_empty() && now_s < facts.validity.renew_at_s()
}

/// The same for the certificate of a public entrance with these host names.
pub fn is_entrance_current(secret: &Secret, names: &[String], authority: &CertificateAuthority, now_s: u64) -> bool {
    let (Some(certificate), Some(key)) = (text(secret, "tls.crt"), text(secret, "tls.key")) else { return false };
    let Ok(facts) = EntranceFacts::from_pem(&certificate) else { return false };
    let is_ours = is_entrance_issued_by(&certificate, authority.certificate_pem(), now_s).unwrap_or(false);
    facts.names == names && is_ours && !key.is_empty() && now_s < facts.validity.renew_at_s()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn id(name: &str) -> SpiffeId {
        let chain = ChainId::new("demo-main").expect("a chain id");
        SpiffeId::new(&chain, Role::Client, name).expect("a name")
    }

    fn secret(pem: &CertificatePem) -> Secret {
        let data = [("tls.crt", &pem.certificate), ("tls.key", &pem.key), ("ca.crt", &pem.authorities)];
        Secret {
            data: Some(data.map(|(key, text)| (key.to_string(), ByteString(text.clone().into_bytes()))).into()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_certificate_is_issued_again_after_two_thirds_of_its_life_or_for_another_id_or_authority() {
        let authority = new_authority("demo", NOW).expect("an authority");
        let pem = issue(&authority, &id("user"), NOW, NODE_S).expect("a certificate");
        let secret = secret(&pem);
        assert!(is_current(&secret, &id("user"), &authority, NOW));
        assert!(is_current(&secret, &id("user"), &authority, NOW + NODE_S / 2));
        assert!(!is_current(&secret, &id("user"), &authority, NOW + NODE_S * 7 / 10));
        assert!(!is_current(&secret, &id("other"), &authority, NOW));
        assert_eq!(expires(&secret), time(NOW + NODE_S));
        assert_eq!(time(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert!(
            is_current(&without_keys(secret.clone()), &id("user"), &authority, NOW),
            "the key itself is not needed"
        );
        let other = new_authority("demo", NOW).expect("an authority");
        assert!(!is_current(&secret, &id("user"), &other, NOW));
        assert!(!is_current(&Secret::default(), &id("user"), &authority, NOW));
    }

    #[test]
    fn an_entrance_gets_another_certificate_for_other_names_or_late_in_its_life() {
        let authority = new_authority("demo", NOW).expect("an authority");
        let names = ["gateway.example.org".to_string(), "localhost".to_string()];
        let pem = issue_entrance(&authority, &names, NOW, NODE_S).expect("a certificate");
        let secret = secret(&pem);
        assert!(is_entrance_current(&secret, &names, &authority, NOW));
        assert!(!is_entrance_current(&secret, &names[..1], &authority, NOW));
        assert!(!is_entrance_current(&secret, &names, &authority, NOW + NODE_S * 7 / 10));
        assert!(!is_entrance_current(&Secret::default(), &names, &authority, NOW));
        assert!(!is_current(&secret, &id("user"), &authority, NOW), "it names nobody on the chain");
    }

    #[test]
    fn an_authority_is_read_back_from_its_secret() {
        let made = new_authority("demo", NOW).expect("an authority");
        let pem = CertificatePem {
            certificate: made.certificate_pem().to_string(),
            key: made.key_pem().to_string(),
            authorities: made.certificate_pem().to_string(),
        };
        let read = authority("demo", &secret(&pem)).expect("the same authority");
        assert_eq!(read.certificate_pem(), made.certificate_pem());
        assert!(authority("demo", &Secret::default()).is_err());
    }
}
