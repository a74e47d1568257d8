//! Who a caller is, and what the caller may do: JSON web tokens, API keys, certificates of the chain, or nothing.

mod api_keys;
mod fetch;
mod jwks;
mod jwt;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::{HeaderMap, header};
use node_api::{
    gateway::{Authentication, Permission, RoleClass, RoleGrant},
    roles::{Role, SpiffeId},
};
use thiserror::Error;

pub use api_keys::ApiKeyError;
pub use jwks::IssuerError;

use super::refusal::Refusal;
use api_keys::ApiKeys;
use jwt::Tokens;

/// Largest credential that is looked at, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 8 << 10;

/// Which limit counts for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Showed nothing; counted by address.
    Anonymous,
    /// A user.
    User,
    /// A service.
    Service,
}

impl Class {
    /// For metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "ip",
            Self::User => "user",
            Self::Service => "service",
        }
    }
}

/// A caller whose credential is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Which limit counts.
    pub class: Class,
    /// Who it is, for limits and logs.
    pub name: Arc<str>,
    /// What it may do.
    pub permissions: BTreeSet<Permission>,
}

/// Why authentication could not be set up.
#[derive(Debug, Error)]
pub enum AuthError {
    /// The API keys are not usable.
    #[error("failed to load the API keys")]
    ApiKeys(#[from] ApiKeyError),
    /// An issuer cannot be asked.
    #[error("failed to set up an issuer")]
    Issuer(#[from] IssuerError),
}

/// The roles of the configuration.
#[derive(Clone, Debug)]
pub struct Roles(Arc<BTreeMap<String, RoleGrant>>);

impl Roles {
    /// Those of the configuration.
    pub fn new(roles: BTreeMap<String, RoleGrant>) -> Self {
        Self(Arc::new(roles))
    }

    /// The caller with these roles. A role that is not configured gives nothing.
    fn principal<'a>(&self, name: String, roles: impl IntoIterator<Item = &'a str>) -> Principal {
        let mut principal = Principal { class: Class::User, name: name.into(), permissions: BTreeSet::new() };
        for grant in roles.into_iter().filter_map(|role| self.0.get(role)) {
            principal.permissions.extend(&grant.permissions);
            if grant.class == RoleClass::Service {
                principal.class = Class::Service;
            }
        }
        principal
    }
}

/// Checks credentials.
#[derive(Debug)]
pub struct Authenticator {
    roles: Roles,
    anonymous_roles: Vec<String>,
    certificate_roles: Vec<String>,
    keys: Option<ApiKeys>,
    tokens: Tokens,
}

impl Authenticator {
    /// As configured; reads the API keys. The keys of issuers come with [`Authenticator::run`].
    pub fn new(authentication: &Authentication, roles: Roles) -> Result<Self, AuthError> {
        let Authentication { anonymous_roles, issuers, api_keys_file, certificate_roles } = authentication;
        Ok(Self {
            anonymous_roles: anonymous_roles.clone(),
            certificate_roles: certificate_roles.clone(),
            keys: api_keys_file.as_ref().map(|file| ApiKeys::load(file.clone())).transpose()?,
            tokens: Tokens::new(issuers)?,
            roles,
        })
    }

    /// Keeps the keys of issuers and the file of API keys fresh, until the future is dropped.
    pub async fn run(&self) {
        let keys = async {
            match &self.keys {
                Some(keys) => keys.watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(keys, self.tokens.refresh());
    }

    /// Who makes a request. A credential that is shown must be good, even where none is needed.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<&SpiffeId>,
    ) -> Result<Principal, Refusal> {
        match credential(headers)? {
            Some(Credential::Bearer(token)) => self.tokens.check(token, &self.roles).await,
            Some(Credential::ApiKey(key)) => match self.keys.as_ref().and_then(|keys| keys.check(key)) {
                Some(entry) => {
                    Ok(self.roles.principal(format!("key:{}", entry.id), entry.roles.iter().map(String::as_str)))
                }
                None => Err(Refusal::Unauthenticated("the API key is not known or no longer valid")),
            },
            None => self.without_credential(certificate),
        }
    }

    fn without_credential(&self, certificate: Option<&SpiffeId>) -> Result<Principal, Refusal> {
        let roles = |roles: &[String], name| self.roles.principal(name, roles.iter().map(String::as_str));
        match certificate {
            Some(id) if matches!(id.role(), Role::Client | Role::Operator) => {
                Ok(roles(&self.certificate_roles, format!("cert:{id}")))
            }
            _ if !self.anonymous_roles.is_empty() => {
                let principal = roles(&self.anonymous_roles, "anonymous".to_owned());
                Ok(Principal { class: Class::Anonymous, ..principal })
            }
            Some(_) => Err(Refusal::Unauthenticated("certificates of this role are not for clients")),
            None => Err(Refusal::Unauthenticated(
                "send a token (Authorization: Bearer), an API key (X-Api-Key) or a client certificate",
            )),
        }
    }
}

enum Credential<'a> {
    Bearer(&'a str),
    ApiKey(&'a str),
}

fn credential(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Refusal> {
    let mut found = headers.get_all(header::AUTHORIZATION).iter().chain(headers.get_all("x-api-key"));
    let Some(value) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(Refusal::Unauthenticated("send one credential, not several"));
    }
    let text = value.to_str().ok().filter(|text| text.len() <= CREDENTIAL_BYTES_MAX);
    let text = text.ok_or(Refusal::Unauthenticated("the credential is too long or has characters that none has"))?;
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(Some(Credential::ApiKey(text.trim())));
    }
    match text.trim().split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(Credential::Bearer(rest.trim()))),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("apikey") => Ok(Some(Credential::ApiKey(rest.trim()))),
        _ => Err(Refusal::Unauthenticated("the scheme of Authorization is Bearer or ApiKey")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};
    use node_api::{
        gateway::{Authentication, Permission, RoleClass, RoleGrant, default_roles},
        roles::SpiffeId,
    };

    use super::{Authenticator, Class, Roles};

    fn authenticator(anonymous: &[&str]) -> Authenticator {
        let anonymous_roles = anonymous.iter().map(|role| (*role).to_owned()).collect();
        let authentication = Authentication { anonymous_roles, ..Authentication::default() };
        Authenticator::new(&authentication, Roles::new(default_roles())).expect("is set up")
    }

    fn id(text: &str) -> SpiffeId {
        text.parse().expect("an id")
    }

    #[tokio::test]
    async fn nobody_reads_without_a_credential_unless_configured() {
        let none = HeaderMap::new();
        assert!(authenticator(&[]).authenticate(&none, None).await.is_err());
        let anonymous = authenticator(&["reader"]).authenticate(&none, None).await.expect("is let in");
        assert_eq!(anonymous.class, Class::Anonymous);
        assert!(anonymous.permissions.contains(&Permission::Read));
        assert!(!anonymous.permissions.contains(&Permission::Submit));
    }

    #[tokio::test]
    async fn certificates_of_clients_count_and_those_of_nodes_do_not() {
        let none = HeaderMap::new();
        let client = authenticator(&[]).authenticate(&none, Some(&id("spiffe://demo/client/tool"))).await;
        assert!(client.expect("is let in").permissions.contains(&Permission::Submit));
        let node = format!("spiffe://demo/validator/{}", "ab".repeat(32));
        assert!(authenticator(&[]).authenticate(&none, Some(&id(&node))).await.is_err());
    }

    #[test]
    fn roles_add_up_and_one_that_nobody_defined_grants_nothing() {
        let grant =
            |permissions: &[Permission], class| RoleGrant { permissions: permissions.iter().copied().collect(), class };
        let mut roles = default_roles();
        roles.insert("auditor".to_owned(), grant(&[Permission::Read, Permission::Status], RoleClass::Service));
        let roles = Roles::new(roles);
        let of = |names: &[&str]| {
            let principal = roles.principal("test".to_owned(), names.iter().copied());
            (principal.class, principal.permissions.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(of(&["auditor"]), (Class::Service, vec![Permission::Read, Permission::Status]));
        for unknown in ["nobody", "", "Auditor", "auditor ", "admin"] {
            assert_eq!(of(&[unknown]), (Class::User, vec![]), "{unknown:?}");
            assert_eq!(of(&[unknown, "auditor"]), of(&["auditor"]), "{unknown:?}");
        }
        let (class, both) = of(&["reader", "auditor"]);
        assert_eq!((class, both.len()), (Class::Service, 4), "{both:?}");
        assert!(!both.contains(&Permission::Submit));
    }

    #[tokio::test]
    async fn a_bad_credential_is_refused_even_where_none_is_needed() {
        let open = authenticator(&["reader"]);
        let long = "Bearer ".to_owned() + &"a".repeat(100_000);
        for value in ["Bearer x", "Bearer a.b.c", "ApiKey y", "Basic dTpw", "Bearer", "", &long] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
            assert!(open.authenticate(&headers, None).await.is_err(), "{value:.20}");
        }
        let mut both = HeaderMap::new();
        both.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
        both.insert("x-api-key", HeaderValue::from_static("k"));
        assert!(open.authenticate(&both, None).await.is_err());
    }
}
