//! Certificates from an issuer of cert-manager: what is wanted, what it is asked, and what of its answers is used.
//!
//! Builders of Secrets ask a [`Desk`]. With an authority of the operator's own it issues at once. With an issuer it gives what
//! the issuer has answered, and writes down what is still wanted; [`obtain`] asks for that by CertificateRequests. A key is in
//! this process alone until its certificate is there: an operator that is started again asks again, with another key.

mod obtain;
mod request;

#[cfg(test)]
pub mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use althing_crds::Reason;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use node_api::pki::Subject;

use crate::certificates;
use crate::error::Error;
use crate::parts::secrets::CertificatePem;
use crate::refusal::Refusal;
use crate::rollover::{Authority, Signer};

pub use obtain::{Issuer, Requests, Trust, obtain};
pub use request::{Answer, Ask, answer, request, resource};

/// A certificate that an issuer shall be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the CertificateRequest.
    pub name: String,
    /// Whom it is for.
    pub subject: Subject,
    /// Life in seconds.
    pub life_s: u64,
}

/// Gives certificates to builders of Secrets.
pub struct Desk<'a> {
    authority: &'a Authority,
    answered: &'a BTreeMap<String, CertificatePem>,
    now_s: u64,
    /// What an issuer has to be asked for.
    pub wanted: Vec<Wanted>,
    /// Names of the requests whose certificates were given.
    pub taken: Vec<String>,
}

/// What came of asking.
#[derive(Clone, Default)]
pub struct Obtained {
    /// Certificates by the names of their requests.
    pub issued: BTreeMap<String, CertificatePem>,
    /// What is to be said of the others; the worst of it.
    pub issuance: Option<Issuance>,
}

/// Certificates are not all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuance {
    /// Why not.
    pub said: Said,
    /// When to look again.
    pub again: Duration,
}

/// Why a certificate is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is on its way.
    Awaited(String),
    /// A person has to help.
    Refused(Refusal),
}

impl<'a> Desk<'a> {
    /// Issues by this authority, or has these answers of an issuer.
    pub fn new(authority: &'a Authority, answered: &'a BTreeMap<String, CertificatePem>, now_s: u64) -> Self {
        Self { authority, answered, now_s, wanted: Vec::new(), taken: Vec::new() }
    }

    /// The authority of the network.
    pub const fn authority(&self) -> &Authority {
        self.authority
    }

    /// Unix seconds.
    pub const fn now_s(&self) -> u64 {
        self.now_s
    }

    /// A certificate, or none while an issuer has yet to answer.
    pub fn issue(&mut self, name: &str, subject: Subject, life_s: u64) -> Result<Option<CertificatePem>, Error> {
        match &self.authority.issuer {
            Signer::Own(_) => certificates::issue_for(self.authority, &subject, self.now_s, life_s).map(Some),
            Signer::Named(_) => {
                let answered = self.answered.get(name).cloned();
                match &answered {
                    Some(_) => self.taken.push(name.to_string()),
                    None => self.wanted.push(Wanted { name: name.to_string(), subject, life_s }),
                }
                Ok(answered)
            }
        }
    }
}

/// Which of these requests the Secrets hold the certificates of: a request has the name of its Secret, and a Secret of several
/// certificates is written when all are there.
pub fn taken_by<'a>(secrets: impl Iterator<Item = &'a Secret>, mut requests: Vec<String>) -> Vec<String> {
    let names: Vec<String> = secrets.map(ResourceExt::name_any).collect();
    requests.retain(|request| {
        let is_of = |rest: &str| rest.is_empty() || rest.starts_with('-');
        names.iter().any(|name| request.strip_prefix(name.as_str()).is_some_and(is_of))
    });
    requests
}

impl Obtained {
    /// One more is not there: what a person has to do is said before what comes by itself.
    fn lacks(&mut self, said: Said, again: Duration) {
        let again = self.issuance.as_ref().map_or(again, |before| before.again.min(again));
        let said = match self.issuance.take().map(|before| before.said) {
            Some(before @ Said::Refused(_)) => before,
            Some(Said::Awaited(_)) if matches!(said, Said::Refused(_)) => said,
            Some(before @ Said::Awaited(_)) => before,
            None => said,
        };
        self.issuance = Some(Issuance { said, again });
    }
}

impl Issuance {
    /// What only a person can change.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match &self.said {
            Said::Refused(refusal) => Some(refusal),
            Said::Awaited(_) => None,
        }
    }

    /// What comes by itself.
    pub fn awaited(&self) -> Option<(Reason, String)> {
        match &self.said {
            Said::Awaited(why) => Some((Reason::AwaitingIssuer, why.clone())),
            Said::Refused(_) => None,
        }
    }
}
