//! The operator's own certificates of a network where an issuer issues them, and whom the network trusts.

use althing_crds::{Reason, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use node_api::pki;
use node_api::roles::{Role, SpiffeId};

use super::observe::{AuthorityRead, Observed};
use super::status::Progress;
use super::{desired, taken};
use crate::apply::Outcome;
use crate::certificates;
use crate::config::SETTLED;
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::issuer::{self, Issuance, Issuer, Obtained, Said, Trust, Wanted};
use crate::kinds::{Child, Owner};
use crate::parts::secrets::{self, CertificatePem};
use crate::references;
use crate::refusal::Refusal;
use crate::rollover::{self, Authority, Named, Signer};
use crate::validator::now_s;

/// Name that the operator's certificates carry.
const OPERATOR: &str = "althing-operator";
/// Most former authorities that are trusted.
const FORMER_MAX: usize = 8;

/// Asks for the operator's certificates when they are not there, are late in their life, or another authority shall be
/// trusted. How far it came when the network cannot do without them.
pub async fn ensure(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Option<Progress>, Error> {
    let Some(spec) = observed.network.spec.certificates.clone() else { return Ok(None) };
    let network = desired::network_context(observed)?;
    let ids: Vec<SpiffeId> =
        desired::ids(observed, &network, Role::Operator, OPERATOR)?.into_iter().map(|(_, id)| id).collect();
    // Who cannot be read goes on being trusted, and is said all the same.
    let unreadable = observed.bundle.as_ref().err().and_then(|why| references::refuse(&[why.clone().into()]));
    observed.issuance = unreadable.map(|refusal| Issuance { said: Said::Refused(refusal), again: SETTLED });
    if is_current(observed, &ids, now_s()) {
        return Ok(None);
    }
    let wanted = wanted(observed, &ids);
    let issuer = Issuer { named: &spec.issuer_ref, owner, metadata: &|name: &str| network.metadata(name) };
    let mut obtained = issuer::obtain(context, &issuer, &wanted, &trust(observed), now_s()).await?;
    let written = match secret(observed, &wanted, &mut obtained, now_s())? {
        Some(data) => {
            let metadata = network.metadata(&names::operator_secret(&network.name));
            let secret = Secret { metadata, ..data };
            let child = Child::of(&secret)?;
            if context.shared.writer.apply(owner, &child, None).await? == Outcome::Taken {
                return Ok(Some(Progress::Refused(taken(&child.what(&owner.namespace)))));
            }
            context.shared.requests.taken(&owner.namespace, wanted.iter().map(|one| &one.name));
            context.shared.memories.authorities.forget(&owner.uid, &child.name);
            context.shared.authorities.forget(&owner.namespace, &owner.name);
            Some(secret)
        }
        None => None,
    };
    observed.issuance = obtained.issuance.or_else(|| observed.issuance.take());
    if let Some(secret) = written {
        let authority = Authority::named(&owner.name, &secret)?;
        tell(context, observed, &authority).await;
        observed.authority = AuthorityRead::Present(authority);
    }
    Ok(match (&observed.authority, &observed.issuance) {
        (AuthorityRead::Present(_), _) | (_, None) => None,
        (_, Some(Issuance { said: Said::Awaited(_), .. })) => Some(Progress::Unchanged),
        (_, Some(Issuance { said: Said::Refused(refusal), .. })) => Some(Progress::Refused(refusal.clone())),
    })
}

async fn tell(context: &Context, observed: &Observed, authority: &Authority) {
    let former = named(observed).map(|(former, _)| former.hash.as_str());
    if former == Some(&authority.hash) {
        return;
    }
    let note = format!("certificates are of authority {}, which the issuer answers with", authority.hash);
    context.publish(&observed.network.object_ref(&()), &[Draft::normal("AuthorityLearned", note)]).await;
}

/// What an issuer has given before.
fn named(observed: &Observed) -> Option<(&Authority, &Named)> {
    match &observed.authority {
        AuthorityRead::Present(authority) => match &authority.issuer {
            Signer::Named(named) => Some((authority, named)),
            Signer::Own(_) => None,
        },
        AuthorityRead::Missing | AuthorityRead::Foreign | AuthorityRead::Invalid(_) => None,
    }
}

fn wanted(observed: &Observed, ids: &[SpiffeId]) -> Vec<Wanted> {
    let secret = names::operator_secret(&observed.network.name_any());
    let groups = observed.network.spec.groups.iter().zip(ids);
    let wanted = groups.map(|(group, id)| Wanted {
        name: format!("{secret}-{}", group.name),
        subject: pki::Subject::Id(id.clone()),
        life_s: certificates::NODE_S,
    });
    wanted.collect()
}

/// Whether the certificates are there, and what is trusted is what shall be.
pub(super) fn is_current(observed: &Observed, ids: &[SpiffeId], now_s: u64) -> bool {
    named(observed).is_some_and(|(authority, named)| {
        let shall = shall(observed, authority.issuer.certificate_pem(), now_s);
        named.covers(ids, now_s) && authority.trusted == shall.trusted && named.former() == shall.former
    })
}

/// An answer must be of an authority that is trusted already; the first one, and one after the Secret was lost, of the one that
/// the issuer itself names.
fn trust(observed: &Observed) -> Trust {
    let bundle = observed.bundle.as_deref().unwrap_or_default();
    Trust::Learned { known: format!("{}\n{bundle}", kept(observed)), recorded: recorded(observed).cloned() }
}

fn recorded(observed: &Observed) -> Option<&String> {
    observed.network.status.as_ref()?.certificate_authority_hash.as_ref()
}

/// Whom everybody trusts by now: as the operator's Secret says. When that is lost, the client's has the same bundle.
fn kept(observed: &Observed) -> String {
    match named(observed) {
        Some((authority, _)) => authority.trusted.clone(),
        None => observed.client.as_ref().and_then(|secret| certificates::text(secret, "ca.crt")).unwrap_or_default(),
    }
}

/// Those that issued before, the last one first. Of a lost Secret that is who is trusted and not for the spec's sake.
fn issued_before(observed: &Observed) -> Vec<String> {
    if let Some((authority, named)) = named(observed) {
        let last = authority.issuer.certificate_pem().to_string();
        return std::iter::once(last).chain(named.former().iter().cloned()).collect();
    }
    let in_spec = observed.bundle.as_ref().map(|bundle| pki::blocks(bundle)).unwrap_or_default();
    let has_issued = |pem: &String| recorded(observed) == Some(&certificates::hash(pem)) || !in_spec.contains(pem);
    pki::blocks(&kept(observed)).into_iter().filter(has_issued).collect()
}

/// Whom everybody shall trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shall {
    /// All of them; the one that issued the operator's certificate first.
    pub trusted: String,
    /// Those that issued before.
    pub former: Vec<String>,
}

/// Whom everybody shall trust when this authority has issued the operator's certificate. One that issued before stays until it
/// ends or a person says that nobody needs it: certificates of it are in use.
pub(super) fn shall(observed: &Observed, issued_by: &str, now_s: u64) -> Shall {
    let confirmed = observed.network.annotations().get(names::ANNOTATION_CONFIRM);
    let is_needed = |pem: &String| {
        let lives = pki::validity(pem).is_ok_and(|validity| now_s < validity.not_after_s());
        lives && pem != issued_by && confirmed != Some(&certificates::hash(pem))
    };
    let former: Vec<String> = issued_before(observed).into_iter().filter(is_needed).take(FORMER_MAX).collect();
    // What cannot be read now goes on being trusted as it was.
    let named_in_spec = pki::blocks(observed.bundle.as_ref().unwrap_or(&kept(observed)));
    let mut trusted: Vec<String> = Vec::new();
    for pem in std::iter::once(issued_by.to_string()).chain(former.iter().cloned()).chain(named_in_spec) {
        if !trusted.contains(&pem) {
            trusted.push(pem);
        }
    }
    Shall { trusted: trusted.concat(), former }
}

/// The Secret when every certificate is there, each by an authority that everybody will trust.
pub(super) fn secret(
    observed: &Observed,
    wanted: &[Wanted],
    obtained: &mut Obtained,
    now_s: u64,
) -> Result<Option<Secret>, Error> {
    let issued: Vec<&CertificatePem> = wanted.iter().filter_map(|one| obtained.issued.get(&one.name)).collect();
    let (Some(first), true) = (issued.first(), issued.len() == wanted.len()) else { return Ok(None) };
    let shall = shall(observed, &first.authorities, now_s);
    let trusted = pki::blocks(&shall.trusted);
    if let Some(other) = issued.iter().find(|one| !trusted.contains(&one.authorities)) {
        let hash = certificates::hash(&other.authorities);
        let note = format!("the issuer answers by two authorities, one of which ({hash}) is not trusted");
        let said = Said::Refused(Refusal::new(Reason::IssuerChanged, note));
        obtained.issuance = Some(Issuance { said, again: SETTLED });
        return Ok(None);
    }
    let mut entries = Authority::named_entries(&shall.trusted, &shall.former);
    for (number, pem) in issued.iter().enumerate() {
        let [certificate, key] = rollover::entries(number);
        entries.extend([(certificate, pem.certificate.clone()), (key, pem.key.clone())]);
    }
    let data = entries.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect();
    Ok(Some(Secret { type_: Some(secrets::TYPE_TLS.to_string()), data: Some(data), ..Secret::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundles::Unusable;
    use crate::issuer::tests::{Signer as Company, anchor};
    use crate::network::tests;

    const SPEC: &str = "  certificates: {issuerRef: {name: company}}";

    fn observed(authority: Authority, bundle: &str) -> Observed {
        let authority = AuthorityRead::Present(authority);
        Observed { authority, bundle: Ok(bundle.to_string()), ..tests::observed(SPEC) }
    }

    fn confirm(observed: &mut Observed, hash: &str) {
        let annotations = [(names::ANNOTATION_CONFIRM.to_string(), hash.to_string())].into();
        observed.network.metadata.annotations = Some(annotations);
    }

    fn ids(observed: &Observed) -> Vec<SpiffeId> {
        let network = desired::network_context(observed).expect("a network");
        let ids = desired::ids(observed, &network, Role::Operator, OPERATOR).expect("ids");
        ids.into_iter().map(|(_, id)| id).collect()
    }

    #[test]
    fn a_former_authority_is_trusted_until_a_person_says_that_nobody_needs_it() {
        let [old, new] = ["old", "new"].map(Company::new);
        let [old_pem, new_pem] = [&old, &new].map(|company| anchor(&company.1));
        let mut seen = observed(old.authority(&old_pem, &[]), "");
        assert_eq!(shall(&seen, &old_pem, now_s()), Shall { trusted: old_pem.clone(), former: vec![] });
        let both = Shall { trusted: format!("{new_pem}{old_pem}"), former: vec![old_pem.clone()] };
        assert_eq!(shall(&seen, &new_pem, now_s()), both, "certificates of it are in use");
        seen.authority = AuthorityRead::Present(new.authority(&both.trusted, &both.former));
        assert_eq!(shall(&seen, &new_pem, now_s()), both, "and stay in use");
        confirm(&mut seen, &certificates::hash(&new_pem));
        assert_eq!(shall(&seen, &new_pem, now_s()), both, "that is the one that issues");
        confirm(&mut seen, &certificates::hash(&old_pem));
        assert_eq!(shall(&seen, &new_pem, now_s()), Shall { trusted: new_pem.clone(), former: vec![] });
        confirm(&mut seen, "ask");
        let ends_s = pki::validity(&old_pem).expect("a certificate").not_after_s();
        assert_eq!(shall(&seen, &new_pem, ends_s).former, Vec::<String>::new(), "it has ended");
    }

    #[test]
    fn who_was_trusted_is_still_known_when_the_secret_is_lost() {
        let [old, new] = ["old", "new"].map(Company::new);
        let [old_pem, new_pem] = [&old, &new].map(|company| anchor(&company.1));
        let both = format!("{old_pem}{new_pem}");
        let mut seen = observed(old.authority(&both, &[]), &new_pem);
        seen.authority = AuthorityRead::Missing;
        seen.client = serde_json::from_value(serde_json::json!({
            "data": { "ca.crt": ByteString(both.clone().into_bytes()) }
        }))
        .expect("a Secret");
        let certificate_authority_hash = Some(certificates::hash(&old_pem));
        seen.network.status =
            Some(althing_crds::BlockchainNetworkStatus { certificate_authority_hash, ..Default::default() });
        let shall = shall(&seen, &new_pem, now_s());
        assert_eq!(shall, Shall { trusted: format!("{new_pem}{old_pem}"), former: vec![old_pem.clone()] });
        let Trust::Learned { known, .. } = trust(&seen) else { panic!("it is learned") };
        assert!(known.contains(old_pem.trim()) && known.contains(new_pem.trim()));
    }

    #[test]
    fn what_the_spec_names_is_trusted_too_and_what_cannot_be_read_stays_trusted() {
        let [one, two] = ["one", "two"].map(Company::new);
        let [one_pem, two_pem] = [&one, &two].map(|company| anchor(&company.1));
        let bundle = format!("{}{}", two.1, one.1);
        let mut seen = observed(one.authority(&one_pem, &[]), &bundle);
        let both = format!("{one_pem}{two_pem}");
        assert_eq!(shall(&seen, &one_pem, now_s()).trusted, both, "each once, the one that issues first");
        assert!(!is_current(&seen, &ids(&seen), now_s()), "everybody has to be told");
        seen.authority = AuthorityRead::Present(one.authority(&both, &[]));
        assert!(is_current(&seen, &ids(&seen), now_s()));
        assert!(!is_current(&seen, &ids(&seen), now_s() + certificates::NODE_S * 7 / 10), "late in its life");
        seen.bundle = Err(Unusable { config_map: "a".to_string(), why: "it does not exist".to_string() });
        assert_eq!(shall(&seen, &one_pem, now_s()).trusted, both);
        seen.bundle = Ok(String::new());
        assert_eq!(shall(&seen, &one_pem, now_s()).trusted, one_pem);
        seen.authority = AuthorityRead::Missing;
        assert!(!is_current(&seen, &ids(&seen), now_s()));
    }

    #[test]
    fn a_group_that_is_new_needs_a_certificate_of_its_own() {
        let company = Company::new("a");
        let mut seen = observed(company.authority(&anchor(&company.1), &[]), "");
        assert!(is_current(&seen, &ids(&seen), now_s()));
        seen.network.spec.groups.push(serde_yaml::from_str("{name: side}").expect("a group"));
        assert!(!is_current(&seen, &ids(&seen), now_s()));
        let names: Vec<String> = wanted(&seen, &ids(&seen)).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["demo-operator-main", "demo-operator-side"]);
    }

    #[test]
    fn the_secret_is_written_when_all_certificates_are_there_by_authorities_that_are_trusted() {
        let [one, two] = ["one", "two"].map(Company::new);
        let mut seen = observed(one.authority(&anchor(&one.1), &[]), "");
        seen.network.spec.groups.push(serde_yaml::from_str("{name: side}").expect("a group"));
        let wanted = wanted(&seen, &ids(&seen));
        let mut obtained = Obtained::default();
        obtained.issued.insert(wanted[0].name.clone(), one.operator_pem());
        assert!(secret(&seen, &wanted, &mut obtained, now_s()).expect("no error").is_none(), "one is missing");
        assert_eq!(obtained.issuance, None);
        obtained.issued.insert(wanted[1].name.clone(), two.operator_pem());
        assert!(secret(&seen, &wanted, &mut obtained, now_s()).expect("no error").is_none(), "one is a stranger's");
        let refusal = obtained.issuance.as_ref().and_then(Issuance::refusal).expect("a refusal");
        assert_eq!(refusal.reason, Reason::IssuerChanged);
        seen.bundle = Ok(two.1.clone());
        let made = secret(&seen, &wanted, &mut obtained, now_s()).expect("no error").expect("all are there");
        let entries: Vec<&String> = made.data.iter().flatten().map(|(entry, _)| entry).collect();
        assert_eq!(entries, ["ca.crt", "tls.1.crt", "tls.1.key", "tls.crt", "tls.key"]);
        assert_eq!(certificates::text(&made, "ca.crt"), Some(format!("{}{}", anchor(&one.1), anchor(&two.1))));
    }

    #[test]
    fn the_record_of_the_former_authority_is_answered_until_the_new_one_is_recorded() {
        let [old, new] = ["old", "new"].map(Company::new);
        let [old_pem, new_pem] = [&old, &new].map(|company| anchor(&company.1));
        let both = format!("{new_pem}{old_pem}");
        let authority = new.authority(&both, std::slice::from_ref(&old_pem));
        assert!([&old_pem, &new_pem].iter().all(|pem| authority.answers_to(&certificates::hash(pem))));
        assert!(!new.authority(&both, &[]).answers_to(&certificates::hash(&old_pem)));
    }

    #[test]
    fn a_former_authority_stands_in_the_status_and_the_network_is_ready() {
        let [old, new] = ["old", "new"].map(Company::new);
        let [old_pem, new_pem] = [&old, &new].map(|company| anchor(&company.1));
        let seen = observed(new.authority(&format!("{new_pem}{old_pem}"), std::slice::from_ref(&old_pem)), "");
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::now());
        let status = crate::network::status::next(&seen, &Progress::Unchanged, &now);
        let hash = certificates::hash(&old_pem);
        assert_eq!(status.former_certificate_authority_hash.as_ref(), Some(&hash));
        assert!(status.operator_certificate_expires.is_some() && status.certificate_authority_expires.is_some());
        let found = |kind| althing_crds::conditions::find(&status.conditions, kind).expect("a condition").clone();
        let reconciling = found(althing_crds::ConditionType::Reconciling);
        assert!(reconciling.reason == "UpToDate" && reconciling.message.contains(&hash), "{reconciling:?}");
        assert!(crate::network::status::is_settled(&status));
    }
}
