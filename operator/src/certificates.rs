//! Certificates: what is in a Secret, whether it must be issued again, and issuing it. Pure; the time is an input.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use node_api::node_core::types::{ChainId, Identity};
use node_api::pki::{
    CertificateAuthority, EntranceFacts, IssuedCertificate, LeafFacts, Subject, Validity, are_same_hosts,
    is_entrance_issued_by, is_issued_by,
};
use node_api::roles::{NodeRole, Role, SpiffeId};
use node_api::tls::TlsPem;

use crate::error::Error;
use crate::parts::secrets::CertificatePem;
use crate::rollover::{Authority, Signer};

/// In place of a private key that is not kept.
const PRESENT: &[u8] = b"present";
const DAY_S: u64 = 24 * 60 * 60;
/// Life of a network's authority.
const AUTHORITY_S: u64 = 3_650 * DAY_S;
/// Life of a node's certificate.
pub const NODE_S: u64 = 30 * DAY_S;
/// Life of a user's certificate.
pub const CLIENT_S: u64 = 365 * DAY_S;
/// Life of the operator's own certificates where its own authority issues them; they exist in memory only.
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

/// SHA-256 of an authority's certificate as PEM, hexadecimal.
pub fn hash(certificate: &str) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(certificate.trim().as_bytes()))
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

/// A new authority for a network. Its name has the time in it: programs that look for an issuer by name find one.
pub fn new_authority(network: &str, now_s: u64) -> Result<CertificateAuthority, Error> {
    let name: String = format!("althing {network} {now_s}").chars().take(64).collect();
    CertificateAuthority::generate(&name, validity(network, now_s, AUTHORITY_S)?).map_err(failed(network))
}

/// The authority that this process can issue with. An issuer of cert-manager is asked, see [`crate::issuer`].
fn own<'a>(authority: &'a Authority, what: &str) -> Result<&'a CertificateAuthority, Error> {
    match &authority.issuer {
        Signer::Own(own) => Ok(own),
        Signer::Named(_) => Err(failed(what)("an issuer of cert-manager signs for this network")),
    }
}

/// Issues a certificate for whomever it is.
pub fn issue_for(authority: &Authority, subject: &Subject, now_s: u64, life_s: u64) -> Result<CertificatePem, Error> {
    match subject {
        Subject::Id(id) => issue(authority, id, now_s, life_s),
        Subject::Hosts(names) => issue_entrance(authority, names, now_s, life_s),
    }
}

/// Issues a certificate.
pub fn issue(authority: &Authority, id: &SpiffeId, now_s: u64, life_s: u64) -> Result<CertificatePem, Error> {
    let what = id.to_string();
    let issued = own(authority, &what)?.issue(id, validity(&what, now_s, life_s)?).map_err(failed(&what))?;
    Ok(CertificatePem {
        certificate: issued.certificate_pem.clone(),
        key: issued.key_pem.to_string(),
        authorities: authority.trusted.clone(),
    })
}

/// Issues a certificate for a public entrance with these host names.
pub fn issue_entrance(
    authority: &Authority,
    names: &[String],
    now_s: u64,
    life_s: u64,
) -> Result<CertificatePem, Error> {
    let what = names.first().map_or("", String::as_str);
    let (certificate, key) =
        own(authority, what)?.issue_entrance(names, validity(what, now_s, life_s)?).map_err(failed(what))?;
    let authorities = authority.trusted.clone();
    Ok(CertificatePem { certificate, key: key.to_string(), authorities })
}

/// As whom this process calls: a certificate that never leaves it, or the one that an issuer has given to it.
pub fn issue_own(authority: &Authority, chain_id: &ChainId, now_s: u64) -> Result<TlsPem, Error> {
    if let Signer::Named(named) = &authority.issuer {
        let own = named.own(chain_id, authority);
        return own.ok_or_else(|| failed(chain_id.as_str())("the operator has no certificate for this chain yet"));
    }
    let id = SpiffeId::new(chain_id, Role::Operator, "althing-operator").map_err(failed(chain_id.as_str()))?;
    let what = id.to_string();
    let issued = own(authority, &what)?.issue(&id, validity(&what, now_s, OPERATOR_S)?).map_err(failed(&what))?;
    Ok(TlsPem::from_issued(&issued, &authority.trusted))
}

/// Issues a certificate of a node without a vote, as which this process asks nodes of other members. It never leaves this
/// process.
pub fn issue_observer(
    authority: &Authority,
    chain_id: &ChainId,
    identity: &Identity,
    now_s: u64,
) -> Result<IssuedCertificate, Error> {
    let id = SpiffeId::node(chain_id, NodeRole::Observer, identity);
    let what = id.to_string();
    own(authority, &what)?.issue(&id, validity(&what, now_s, OPERATOR_S)?).map_err(failed(&what))
}

/// The authorities one of which must have issued a certificate: the one that signs, and with an issuer all that are trusted,
/// because it may sign by another one while the operator's own certificate is still of the former one.
fn signing(authority: &Authority) -> &str {
    match &authority.issuer {
        Signer::Own(own) => own.certificate_pem(),
        Signer::Named(_) => &authority.trusted,
    }
}

/// Whether a Secret has a certificate of this id that counts now, however late in its life: a process can start with it.
pub fn is_usable(secret: &Secret, id: &SpiffeId, now_s: u64) -> bool {
    let facts = text(secret, "tls.crt").and_then(|certificate| LeafFacts::from_pem(&certificate).ok());
    facts.is_some_and(|facts| facts.id == *id && now_s < facts.validity.not_after_s())
}

/// Whether the certificate in this Secret can be used until it is looked at again: for this id, by the authority that signs,
/// beside all that are trusted, and in the first two thirds of its life.
pub fn is_current(secret: &Secret, id: &SpiffeId, authority: &Authority, now_s: u64) -> bool {
    let (Some(certificate), Some(key), Some(bundle)) =
        (text(secret, "tls.crt"), text(secret, "tls.key"), text(secret, "ca.crt"))
    else {
        return false;
    };
    let Ok(facts) = LeafFacts::from_pem(&certificate) else { return false };
    let is_ours = is_issued_by(&certificate, signing(authority), now_s).unwrap_or(false);
    let is_whole = bundle.trim() == authority.trusted.trim();
    facts.id == *id && is_ours && is_whole && !key.is_empty() && now_s < facts.validity.renew_at_s()
}

/// The same for the certificate of a public entrance with these host names.
pub fn is_entrance_current(secret: &Secret, names: &[String], authority: &Authority, now_s: u64) -> bool {
    let (Some(certificate), Some(key), Some(bundle)) =
        (text(secret, "tls.crt"), text(secret, "tls.key"), text(secret, "ca.crt"))
    else {
        return false;
    };
    let Ok(facts) = EntranceFacts::from_pem(&certificate) else { return false };
    let is_ours = is_entrance_issued_by(&certificate, signing(authority), now_s).unwrap_or(false);
    let is_whole = bundle.trim() == authority.trusted.trim();
    are_same_hosts(&facts.names, names) && is_ours && is_whole && !key.is_empty() && now_s < facts.validity.renew_at_s()
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
        let authority = Authority::settled(new_authority("demo", NOW).expect("an authority"));
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
        let other = Authority::settled(new_authority("demo", NOW).expect("an authority"));
        assert!(!is_current(&secret, &id("user"), &other, NOW));
        assert!(!is_current(&Secret::default(), &id("user"), &authority, NOW));
    }

    #[test]
    fn an_entrance_gets_another_certificate_for_other_names_or_late_in_its_life() {
        let authority = Authority::settled(new_authority("demo", NOW).expect("an authority"));
        let names = ["gateway.example.org".to_string(), "localhost".to_string()];
        let pem = issue_entrance(&authority, &names, NOW, NODE_S).expect("a certificate");
        let secret = secret(&pem);
        assert!(is_entrance_current(&secret, &names, &authority, NOW));
        let [one, other] = names.clone();
        assert!(is_entrance_current(&secret, &[other, one], &authority, NOW), "in the order of an issuer");
        assert!(!is_entrance_current(&secret, &names[..1], &authority, NOW));
        assert!(!is_entrance_current(&secret, &names, &authority, NOW + NODE_S * 7 / 10));
        assert!(!is_entrance_current(&Secret::default(), &names, &authority, NOW));
        assert!(!is_current(&secret, &id("user"), &authority, NOW), "it names nobody on the chain");
    }

    #[test]
    fn a_certificate_is_issued_again_when_other_authorities_are_trusted_beside_the_one_that_signs() {
        let authority = Authority::settled(new_authority("demo", NOW).expect("an authority"));
        let next = new_authority("demo", NOW + 1).expect("an authority");
        let names = ["localhost".to_string()];
        let leaf = secret(&issue(&authority, &id("user"), NOW, NODE_S).expect("a certificate"));
        let entrance = secret(&issue_entrance(&authority, &names, NOW, NODE_S).expect("a certificate"));
        let trusted = format!("{}{}", authority.trusted, next.certificate_pem());
        let both = Authority { trusted, ..authority.clone() };
        assert!(!is_current(&leaf, &id("user"), &both, NOW), "it does not know the other one");
        assert!(!is_entrance_current(&entrance, &names, &both, NOW));
        let leaf = secret(&issue(&both, &id("user"), NOW, NODE_S).expect("a certificate"));
        assert!(is_current(&leaf, &id("user"), &both, NOW));
        assert!(!is_current(&leaf, &id("user"), &authority, NOW), "it still trusts the other one");
    }
}
