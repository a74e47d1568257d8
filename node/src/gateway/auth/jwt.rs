//! JSON web tokens: signature by a key of the named issuer, audience, times; then roles from a claim.

use std::sync::Arc;

use jsonwebtoken::{Validation, dangerous::insecure_decode_claims, decode, decode_header, errors::ErrorKind};
use node_api::gateway::Issuer;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Principal, Roles,
    jwks::{IssuerError, IssuerKey, Provider},
};
use crate::gateway::refusal::Refusal;

/// Most roles that are taken from one token.
const ROLES_MAX: usize = 64;
/// Longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 256;

/// All issuers.
#[derive(Debug)]
pub(super) struct Tokens {
    providers: Vec<Arc<Provider>>,
}

/// The part of a token that says whose key checks it; believed only once that key did.
#[derive(Deserialize)]
struct Unchecked {
    iss: String,
}

impl Tokens {
    pub(super) fn new(issuers: &[Issuer]) -> Result<Self, IssuerError> {
        let providers = issuers.iter().map(|issuer| Provider::new(issuer.clone()).map(Arc::new));
        Ok(Self { providers: providers.collect::<Result<_, _>>()? })
    }

    pub(super) async fn refresh(&self) {
        futures::future::join_all(self.providers.iter().map(|provider| provider.refresh())).await;
    }

    /// The caller that a good token names.
    pub(super) async fn check(&self, token: &str, roles: &Roles) -> Result<Principal, Refusal> {
        let refused = Refusal::Unauthenticated;
        let header = decode_header(token).map_err(|_| refused("the token is not a signed JSON web token"))?;
        let unchecked = insecure_decode_claims::<Unchecked>(token).map_err(|_| refused("the token names no issuer"))?;
        let provider = self.providers.iter().find(|provider| provider.issuer.url == unchecked.iss);
        let provider = provider.ok_or(refused("tokens of this issuer are not accepted"))?;
        let key = provider.key(header.kid.as_deref()).await.ok_or(refused("the key of the token is not known"))?;
        if !key.algorithms.contains(&header.alg) {
            return Err(refused("the token is signed by an algorithm that its key is not for"));
        }
        let claims = verify(token, &key, &provider.issuer, header.alg).map_err(|kind| refused(reason(&kind)))?;
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
            return Err(refused("the token names no subject, or a very long one"));
        }
        let mut names = claimed_roles(&claims, &provider.issuer.roles_claim);
        names.extend(provider.issuer.default_roles.iter().cloned());
        let name = format!("oidc:{}#{subject}", provider.issuer.url);
        Ok(roles.principal(name, names.iter().map(String::as_str)))
    }
}

fn verify(
    token: &str,
    key: &IssuerKey,
    issuer: &Issuer,
    algorithm: jsonwebtoken::Algorithm,
) -> Result<Map<String, Value>, ErrorKind> {
    let mut validation = Validation::new(algorithm);
    validation.leeway = issuer.clock_skew_s;
    validation.validate_nbf = true;
    validation.set_issuer(&[&issuer.url]);
    validation.set_audience(&issuer.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    match decode::<Map<String, Value>>(token, &key.key, &validation) {
        Ok(token) => Ok(token.claims),
        Err(error) => Err(error.into_kind()),
    }
}

/// What a caller is told; enough to mend a setup, nothing that helps to forge.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of exp, iss, aud, sub",
        _ => "the token is not valid",
    }
}

/// The texts at `path` in the claims.
fn claimed_roles(claims: &Map<String, Value>, path: &str) -> Vec<String> {
    let mut parts = path.split('.');
    let mut found = parts.next().and_then(|part| claims.get(part));
    for part in parts {
        found = found.and_then(|value| value.get(part));
    }
    let texts: Vec<String> = match found {
        Some(Value::String(text)) => text.split_whitespace().take(ROLES_MAX).map(str::to_owned).collect(),
        Some(Value::Array(values)) => {
            values.iter().take(ROLES_MAX).filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => vec![],
    };
    texts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::claimed_roles;

    #[test]
    fn roles_are_found_in_texts_lists_and_nested_objects() {
        let claims = json!({"roles": ["a", 1, "b"], "scope": "c d", "realm": {"access": {"roles": ["e"]}}, "n": 5});
        let claims = claims.as_object().expect("an object");
        for (path, expected) in [
            ("roles", vec!["a", "b"]),
            ("scope", vec!["c", "d"]),
            ("realm.access.roles", vec!["e"]),
            ("n", vec![]),
            ("realm.nothing.roles", vec![]),
            ("roles.x", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(claimed_roles(claims, path), expected, "{path}");
        }
    }
}
