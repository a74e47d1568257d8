//! Certificates that somebody else issues: what an issuer is asked, and the check of what it answers.

use std::collections::BTreeSet;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::{
    EntranceFacts, PkiError, blocks, common_name, first_certificate, is_entrance_issued_by, is_issued_by, parse,
    purposes, spiffe_id_of, validity_of,
};
use crate::roles::SpiffeId;

/// Shortest life of a certificate: files need minutes to reach a process.
pub const LIFE_S_MIN: u64 = 3_600;
/// Longest answer that is looked at.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Issuers count times in their own way: their certificates may live this much longer than asked.
const LIFE_EXCESS_S_MAX: u64 = 24 * 60 * 60;
/// Clocks of machines may differ by this much.
const SKEW_S: u64 = 300;

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Somebody on a chain.
    Id(SpiffeId),
    /// A public entrance under these host names.
    Hosts(Vec<String>),
}

/// What an issuer is asked, with the key that it never sees.
pub struct Asked {
    subject: Subject,
    request_pem: String,
    key_pem: Zeroizing<String>,
    public_key: Vec<u8>,
}

/// Why an answer is not what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Flaw {
    /// It has more bytes than a chain of certificates needs.
    #[error("the answer has {0} bytes, at most {ANSWER_BYTES_MAX}")]
    Large(usize),
    /// It cannot be read, or lacks a name of ours.
    #[error(transparent)]
    Form(#[from] PkiError),
    /// It names somebody else, or others too.
    #[error("it names {found}, asked was {asked}")]
    Name {
        /// In the certificate.
        found: String,
        /// What was asked.
        asked: String,
    },
    /// It is for a key that the operator did not make.
    #[error("it is for another key")]
    Key,
    /// Its owner could issue certificates.
    #[error("it is the certificate of an authority")]
    Authority,
    /// It cannot be used for what it is needed for.
    #[error("it may not be used for {0}")]
    Usage(&'static str),
    /// It does not count now.
    #[error("it counts from {not_before_s} to {not_after_s} (Unix seconds), not now")]
    NotNow {
        /// First second.
        not_before_s: u64,
        /// Last second.
        not_after_s: u64,
    },
    /// It ends before it can be renewed in peace.
    #[error("it ends in {0} s, at least {LIFE_S_MIN} s are needed")]
    Short(u64),
    /// It lives longer than whoever asked wants a key to count.
    #[error("it ends in {found_s} s, asked were {asked_s} s")]
    Long {
        /// What is left of its life.
        found_s: u64,
        /// What was asked.
        asked_s: u64,
    },
}

impl Subject {
    /// Uses that the certificate needs, in the words of Kubernetes and in the order of the request.
    pub fn usages(&self) -> Vec<&'static str> {
        let word = |purpose: &ExtendedKeyUsagePurpose| match purpose {
            ExtendedKeyUsagePurpose::ServerAuth => Some("server auth"),
            ExtendedKeyUsagePurpose::ClientAuth => Some("client auth"),
            _ => None,
        };
        let extended = self.purposes();
        std::iter::once("digital signature").chain(extended.iter().filter_map(word)).collect()
    }

    fn purposes(&self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Id(id) => purposes(id.role()),
            Self::Hosts(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(formatter),
            Self::Hosts(names) => formatter.write_str(&names.join(", ")),
        }
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Asked").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Asked {
    /// A new key, and the request for a certificate of it.
    pub fn new(subject: Subject) -> Result<Self, PkiError> {
        let failed = |error: rcgen::Error| PkiError::Issue { subject: subject.to_string(), reason: error.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = CertificateParams::default();
        let (name, names) = match &subject {
            Subject::Id(id) => (common_name(id), vec![SanType::URI(id.to_string().try_into().map_err(failed)?)]),
            Subject::Hosts(hosts) => {
                let name = hosts.first().map_or("", String::as_str).chars().take(64).collect();
                let host = |host: &String| host.as_str().try_into().map(SanType::DnsName).map_err(failed);
                (name, hosts.iter().map(host).collect::<Result<_, _>>()?)
            }
        };
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.subject_alt_names = names;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = subject.purposes();
        let request_pem = parameters.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
        let public_key = rcgen::PublicKeyData::subject_public_key_info(&key);
        Ok(Self { subject, request_pem, key_pem: Zeroizing::new(key.serialize_pem()), public_key })
    }

    /// Whom the certificate is for.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The request, PKCS#10 as PEM.
    pub fn request_pem(&self) -> &str {
        &self.request_pem
    }

    /// The key, PKCS#8 as PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Whether an answer is what was asked: for this subject and no other, for this key, of use, alive and not for longer
    /// than `life_s`. Who issued it is another question: [`Asked::anchor`].
    pub fn check(&self, answer_pem: &str, life_s: u64, now_s: u64) -> Result<(), Flaw> {
        if answer_pem.len() > ANSWER_BYTES_MAX {
            return Err(Flaw::Large(answer_pem.len()));
        }
        let der = first_certificate(answer_pem)?;
        let certificate = parse(&der)?;
        self.check_name(&certificate, answer_pem)?;
        if certificate.public_key().raw != self.public_key {
            return Err(Flaw::Key);
        }
        if certificate.is_ca() {
            return Err(Flaw::Authority);
        }
        self.check_usage(&certificate)?;
        let validity = validity_of(&certificate)?;
        let (not_before_s, not_after_s) = (validity.not_before_s(), validity.not_after_s());
        if not_before_s > now_s.saturating_add(SKEW_S) || not_after_s <= now_s {
            return Err(Flaw::NotNow { not_before_s, not_after_s });
        }
        match not_after_s - now_s {
            left if left < LIFE_S_MIN => Err(Flaw::Short(left)),
            left if left > life_s.saturating_add(LIFE_EXCESS_S_MAX) => {
                Err(Flaw::Long { found_s: left, asked_s: life_s })
            }
            _ => Ok(()),
        }
    }

    /// The one of these authorities by which an answer counts now, as PEM.
    pub fn anchor(&self, answer_pem: &str, authorities_pem: &str, now_s: u64) -> Option<String> {
        let counts = |authority: &String| match &self.subject {
            Subject::Id(_) => is_issued_by(answer_pem, authority, now_s).unwrap_or(false),
            Subject::Hosts(_) => is_entrance_issued_by(answer_pem, authority, now_s).unwrap_or(false),
        };
        blocks(authorities_pem).into_iter().find(counts)
    }

    fn check_name(&self, certificate: &X509Certificate<'_>, answer_pem: &str) -> Result<(), Flaw> {
        let found = match &self.subject {
            Subject::Id(_) => Subject::Id(spiffe_id_of(certificate)?),
            Subject::Hosts(_) => Subject::Hosts(EntranceFacts::from_pem(answer_pem)?.names),
        };
        if is_same(&found, &self.subject) {
            return Ok(());
        }
        Err(Flaw::Name { found: found.to_string(), asked: self.subject.to_string() })
    }

    /// Issuers add uses of their own; what is needed must be there.
    fn check_usage(&self, certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
        let form = |error: x509_parser::error::X509Error| PkiError::Certificate { reason: error.to_string() };
        let signs = certificate.key_usage().map_err(form)?.is_none_or(|usage| usage.value.digital_signature());
        if !signs {
            return Err(Flaw::Usage("signatures"));
        }
        let extended = certificate.extended_key_usage().map_err(form)?;
        for purpose in self.subject.purposes() {
            let (word, may): (&str, fn(&x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool) = match purpose {
                ExtendedKeyUsagePurpose::ServerAuth => ("servers", |usage| usage.server_auth),
                _ => ("clients", |usage| usage.client_auth),
            };
            // Without the extension a certificate is good for all of them.
            if !extended.as_ref().is_none_or(|extended| may(extended.value)) {
                return Err(Flaw::Usage(word));
            }
        }
        Ok(())
    }
}

/// Issuers put host names in an order of their own.
fn is_same(found: &Subject, asked: &Subject) -> bool {
    match (found, asked) {
        (Subject::Hosts(found), Subject::Hosts(asked)) => are_same_hosts(found, asked),
        (Subject::Id(_), _) | (_, Subject::Id(_)) => found == asked,
    }
}

/// Whether these are the same host names, in whatever order.
#[must_use]
pub fn are_same_hosts(some: &[String], others: &[String]) -> bool {
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<String>>();
    set(some) == set(others)
}

#[cfg(test)]
mod tests {
    use node_core::types::ChainId;
    use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer};
    use time::OffsetDateTime;

    use super::*;
    use crate::roles::Role;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 24 * 60 * 60;

    /// An authority as others have it, and what it does to a request.
    struct Signer(Issuer<'static, KeyPair>, String);

    impl Signer {
        fn new(name: &str) -> Self {
            Self::of(name, None)
        }

        fn of(name: &str, above: Option<&Self>) -> Self {
            let key = KeyPair::generate().expect("a key");
            let mut parameters = CertificateParams::default();
            parameters.distinguished_name.push(DnType::CommonName, name);
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (parameters.not_before, parameters.not_after) = (at(0), at(4_000_000_000));
            let made = match above {
                None => parameters.self_signed(&key),
                Some(above) => parameters.signed_by(&key, &above.0),
            };
            let pem = made.expect("an authority").pem();
            Self(Issuer::new(parameters, key), pem)
        }

        fn sign(&self, asked: &Asked, change: impl FnOnce(&mut CertificateParams)) -> String {
            let mut request = CertificateSigningRequestParams::from_pem(asked.request_pem()).expect("a request");
            (request.params.not_before, request.params.not_after) = (at(NOW), at(NOW + 30 * DAY));
            change(&mut request.params);
            request.signed_by(&self.0).expect("a certificate").pem()
        }
    }

    fn at(seconds: u64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).expect("small")).expect("a time")
    }

    fn asked(role: Role) -> Asked {
        let chain = ChainId::new("demo-main").expect("a chain id");
        let name = if role.is_node() { "ab".repeat(32) } else { "somebody".to_string() };
        Asked::new(Subject::Id(SpiffeId::new(&chain, role, &name).expect("an id"))).expect("a request")
    }

    fn check(asked: &Asked, change: impl FnOnce(&mut CertificateParams)) -> Result<(), Flaw> {
        asked.check(&Signer::new("a").sign(asked, change), 30 * DAY, NOW)
    }

    #[test]
    fn what_was_asked_is_taken_for_every_role_and_for_an_entrance() {
        for role in crate::roles::ROLES {
            let asked = asked(role);
            assert_eq!(check(&asked, |_| {}), Ok(()), "{role}");
        }
        let hosts = Asked::new(Subject::Hosts(vec!["a.example".to_string(), "b.example".to_string()]));
        let hosts = hosts.expect("a request");
        assert_eq!(check(&hosts, |_| {}), Ok(()));
        assert_eq!(hosts.subject().usages(), ["digital signature", "server auth"]);
        assert_eq!(asked(Role::Validator).subject().usages(), ["digital signature", "server auth", "client auth"]);
        assert_eq!(asked(Role::Client).subject().usages(), ["digital signature", "client auth"]);
    }

    #[test]
    fn another_name_is_refused_and_so_is_a_second_one() {
        let asked = asked(Role::Validator);
        let uri = |name: &str| SanType::URI(name.try_into().expect("ASCII"));
        let other = format!("spiffe://demo-main/operator/{}", "x");
        let flaw = check(&asked, |leaf| leaf.subject_alt_names = vec![uri(&other)]).expect_err("refused");
        assert!(matches!(flaw, Flaw::Name { .. }), "{flaw}");
        let flaw = check(&asked, |leaf| leaf.subject_alt_names.push(uri(&other))).expect_err("refused");
        assert!(matches!(flaw, Flaw::Form(PkiError::UriNames { count: 2 })), "{flaw}");
        let flaw = check(&asked, |leaf| leaf.subject_alt_names.clear()).expect_err("refused");
        assert!(matches!(flaw, Flaw::Form(PkiError::UriNames { count: 0 })), "{flaw}");
        let hosts = Asked::new(Subject::Hosts(vec!["a.example".to_string()])).expect("a request");
        let more = SanType::DnsName("b.example".try_into().expect("ASCII"));
        assert!(matches!(check(&hosts, |leaf| leaf.subject_alt_names.push(more)), Err(Flaw::Name { .. })));
    }

    #[test]
    fn an_issuer_may_put_host_names_in_its_own_order_and_none_may_come_or_go() {
        let hosts = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            Asked::new(Subject::Hosts(names)).expect("a request")
        };
        let asked = hosts(&["b.example", "a.example", "a.example"]);
        let name = |name: &str| SanType::DnsName(name.try_into().expect("ASCII"));
        let with = |names: &[&str]| {
            let names = names.iter().map(|one| name(one)).collect();
            check(&asked, |leaf| leaf.subject_alt_names = names)
        };
        assert_eq!(with(&["a.example", "b.example"]), Ok(()));
        assert!(matches!(with(&["a.example"]), Err(Flaw::Name { .. })), "one is missing");
        let more = with(&["a.example", "b.example", "c.example"]);
        assert!(matches!(more, Err(Flaw::Name { .. })), "one was not asked for");
    }

    #[test]
    fn the_answer_to_somebody_else_is_for_another_key() {
        let (one, other) = (asked(Role::Validator), asked(Role::Validator));
        let answer = Signer::new("a").sign(&other, |_| {});
        assert_eq!(one.check(&answer, 30 * DAY, NOW), Err(Flaw::Key));
        assert_eq!(other.check(&answer, 30 * DAY, NOW), Ok(()));
    }

    #[test]
    fn a_use_that_is_needed_must_be_there_and_an_authority_is_never_taken() {
        let node = asked(Role::Validator);
        let only = |purpose| move |leaf: &mut CertificateParams| leaf.extended_key_usages = vec![purpose];
        assert_eq!(check(&node, only(ExtendedKeyUsagePurpose::ClientAuth)), Err(Flaw::Usage("servers")));
        assert_eq!(check(&node, only(ExtendedKeyUsagePurpose::ServerAuth)), Err(Flaw::Usage("clients")));
        assert_eq!(check(&asked(Role::Client), only(ExtendedKeyUsagePurpose::ClientAuth)), Ok(()));
        let agree = |leaf: &mut CertificateParams| leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        assert_eq!(check(&node, agree), Err(Flaw::Usage("signatures")));
        let more = |leaf: &mut CertificateParams| leaf.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        assert_eq!(check(&node, more), Ok(()), "issuers add uses of their own");
        let authority = |leaf: &mut CertificateParams| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(check(&node, authority), Err(Flaw::Authority));
    }

    #[test]
    fn a_life_that_has_not_begun_is_over_too_short_or_too_long_is_refused() {
        let asked = asked(Role::Validator);
        let lives = |from: u64, to: u64| check(&asked, |leaf| (leaf.not_before, leaf.not_after) = (at(from), at(to)));
        assert!(matches!(lives(NOW + SKEW_S + 1, NOW + DAY), Err(Flaw::NotNow { .. })));
        assert_eq!(lives(NOW + SKEW_S, NOW + DAY), Ok(()));
        assert!(matches!(lives(NOW - DAY, NOW), Err(Flaw::NotNow { .. })));
        assert_eq!(lives(NOW - DAY, NOW + LIFE_S_MIN - 1), Err(Flaw::Short(LIFE_S_MIN - 1)));
        assert_eq!(lives(NOW - DAY, NOW + LIFE_S_MIN), Ok(()));
        assert_eq!(lives(NOW, NOW + 31 * DAY), Ok(()));
        assert!(matches!(lives(NOW, NOW + 31 * DAY + 1), Err(Flaw::Long { .. })));
    }

    #[test]
    fn what_is_no_certificate_or_too_much_is_refused() {
        let asked = asked(Role::Client);
        assert!(matches!(asked.check("nothing", DAY, NOW), Err(Flaw::Form(_))));
        let long = format!("{}{}", Signer::new("a").sign(&asked, |_| {}), " ".repeat(ANSWER_BYTES_MAX));
        assert!(matches!(asked.check(&long, 30 * DAY, NOW), Err(Flaw::Large(_))));
    }

    #[test]
    fn the_anchor_is_the_authority_by_which_the_chain_counts() {
        let (root, stranger) = (Signer::new("root"), Signer::new("stranger"));
        let between = Signer::of("between", Some(&root));
        let trusted = format!("{}\n# a remark\n{}", stranger.1, root.1);
        for asked in [
            asked(Role::Validator),
            asked(Role::Client),
            Asked::new(Subject::Hosts(vec!["a.example".to_string()])).expect("a request"),
        ] {
            let leaf = root.sign(&asked, |_| {});
            assert_eq!(asked.anchor(&leaf, &trusted, NOW), blocks(&root.1).pop());
            assert_eq!(asked.anchor(&leaf, &stranger.1, NOW), None);
            assert_eq!(asked.anchor(&leaf, &trusted, NOW + 31 * DAY), None, "it is over");
            let leaf = between.sign(&asked, |_| {});
            assert_eq!(asked.anchor(&leaf, &trusted, NOW), None, "the one between is missing");
            assert_eq!(asked.anchor(&format!("{leaf}{}", between.1), &trusted, NOW), blocks(&root.1).pop());
        }
        assert_eq!(blocks(&trusted).len(), 2);
    }
}
