//! The certificate authorities of a network: which one signs, which ones are trusted, and when the next step is safe. Pure.
//!
//! All of it lies in one Secret, so that each step is one write, and a copy of the Secret is a whole state:
//!
//! | stage | entries | signs | trusted |
//! |---|---|---|---|
//! | settled | `tls.*` | `tls` | `tls` |
//! | trusting | `tls.*`, `next.*` | `tls` | `tls`, `next` |
//! | signing | `tls.*` (was `next`), `former.*` (was `tls`) | `tls` | `tls`, `former` |
//!
//! `ca.crt` holds what is trusted. A stage ends when every process has taken up what it means: so each certificate that
//! somebody presents is at any time of an authority that everybody trusts.

mod outside;
mod secret;
mod signer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use node_api::pki::CertificateAuthority;

pub use outside::{Outside, outside};
pub use secret::{begun, signed, withdrawn};
pub use signer::{Named, Signer, Source, entries};

/// A network's authority, and the one that comes or went.
#[derive(Clone)]
pub struct Authority {
    /// Issues certificates.
    pub issuer: Signer,
    /// SHA-256 of its certificate, hexadecimal.
    pub hash: String,
    /// Every authority that is to be trusted, as PEM; the one that signs comes first.
    pub trusted: String,
    /// How far the replacement is.
    pub stage: Stage,
    /// The wish for a replacement that was met last.
    pub served: Option<String>,
}

/// How far the replacement of an authority is.
#[derive(Clone)]
pub enum Stage {
    /// There is one authority.
    Settled,
    /// The next one is told to everybody, and signs nothing yet.
    Trusting {
        /// The next one.
        next: Arc<CertificateAuthority>,
        /// Hash of its certificate.
        hash: String,
    },
    /// Every certificate is issued anew; the former one is still trusted, and signs nothing any more.
    Signing {
        /// Hash of the certificate of the former one.
        hash: String,
    },
}

/// Somebody who has not taken up what the stage means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// A ValidatorNode or a pod.
    pub who: String,
    /// Why it does not count as having taken it up.
    pub why: &'static str,
}

/// What decides about the next step.
pub struct Seen<'a> {
    /// How far it is.
    pub stage: &'a Stage,
    /// The authority is late in its life.
    pub is_due: bool,
    /// A person asks for another one.
    pub is_asked: bool,
    /// Those who have not taken up what the stage means.
    pub behind: &'a [Behind],
    /// Those who have to be told by a person.
    pub outside: &'a Outside,
    /// Hash of the authority that a person has spoken of.
    pub confirmed: Option<&'a str>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Make the next authority and have it trusted.
    Begin,
    /// Wait for those who are behind.
    Wait,
    /// Wait until a person says that everybody outside trusts the next authority.
    AskBeforeSigning,
    /// Let the next authority sign.
    Sign,
    /// Trust the former authority until a person says that nobody outside needs it.
    AskBeforeWithdrawal,
    /// Trust the former authority no more.
    Withdraw,
}

/// The next step that cuts nobody off.
pub fn decide(seen: &Seen<'_>) -> Step {
    let says = |hash: &str| seen.confirmed == Some(hash);
    match seen.stage {
        Stage::Settled if seen.is_due || seen.is_asked => Step::Begin,
        Stage::Settled => Step::Rest,
        Stage::Trusting { .. } | Stage::Signing { .. } if !seen.behind.is_empty() => Step::Wait,
        Stage::Trusting { hash, .. } if !seen.outside.verify.is_empty() && !says(hash) => Step::AskBeforeSigning,
        Stage::Trusting { .. } => Step::Sign,
        Stage::Signing { hash } if !seen.outside.present.is_empty() && !says(hash) => Step::AskBeforeWithdrawal,
        Stage::Signing { .. } => Step::Withdraw,
    }
}

impl Authority {
    /// Whether this is what a network had when it recorded this hash: the step to another authority is recorded after it
    /// was made. What is older than the record is none of it.
    pub fn answers_to(&self, recorded: &str) -> bool {
        let was = match &self.stage {
            Stage::Signing { hash } => Some(hash.as_str()),
            Stage::Settled | Stage::Trusting { .. } => None,
        };
        let is_former = |pem: &String| crate::certificates::hash(pem) == recorded;
        self.hash == recorded || was == Some(recorded) || self.former().iter().any(is_former)
    }

    /// As whom one asks a process for proof that it has taken up what the stage means. Who lets the next authority in
    /// trusts it; whom one lets in that trusts nothing but the new authority presents a certificate of that one.
    pub fn proof(&self) -> Option<Self> {
        let (issuer, hash, trusted) = match &self.stage {
            Stage::Settled => return None,
            Stage::Trusting { next, hash } => (Signer::Own(Arc::clone(next)), hash.clone(), self.trusted.clone()),
            Stage::Signing { .. } => {
                (self.issuer.clone(), self.hash.clone(), self.issuer.certificate_pem().to_string())
            }
        };
        Some(Self { issuer, hash, trusted, stage: Stage::Settled, served: None })
    }
}

/// The first few of those who are behind, for a person.
pub fn named(behind: &[Behind]) -> String {
    const NAMED_MAX: usize = 5;
    let first: Vec<String> = behind.iter().take(NAMED_MAX).map(|one| format!("{} ({})", one.who, one.why)).collect();
    let more = behind.len().saturating_sub(NAMED_MAX);
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}
