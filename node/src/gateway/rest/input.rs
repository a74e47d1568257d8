//! The parameters of a request, checked against the table of routes.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use http_body_util::BodyExt;

use crate::gateway::{
    bodies::{BodyError, Metered},
    entrance::Caller,
    json,
    refusal::Refusal,
    routes::{Kind, Place, Route},
    state::Gateway,
};

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8 << 10;
/// Longest wait for a body.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Parameters that have the types of the table.
#[derive(Debug)]
pub struct Input {
    values: Vec<(String, String)>,
}

impl Input {
    /// Checks the path and the query. A parameter that the route does not have is refused.
    pub fn new(route: &Route, path: Vec<(String, String)>, parts: &Parts) -> Result<Self, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(Refusal::Invalid(format!("the query has more than {QUERY_BYTES_MAX} bytes")));
        }
        let mut values = Vec::new();
        let in_path = path.into_iter().map(|(name, value)| (Place::Path, name, value));
        let in_query = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (Place::Query, name.into_owned(), value.into_owned()));
        for (place, name, value) in in_path.chain(in_query) {
            let known = route.parameters.iter().find(|known| known.name == name && known.place == place);
            let Some(known) = known else {
                return Err(Refusal::Invalid(format!("there is no parameter {:?} here", cut(&name))));
            };
            if !known.many && values.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::Invalid(format!("{name} is given twice")));
            }
            check(known.name, known.kind, &value)?;
            values.push((name, value));
        }
        Ok(Self { values })
    }

    /// The value of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a number; `latest` is none.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|value| value.parse().ok())
    }

    /// Whether a flag is set.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// The 32 bytes of a key.
    pub fn key(&self, name: &str) -> Option<[u8; 32]> {
        self.text(name).and_then(json::key)
    }

    /// All keys of a parameter that may come more than once.
    pub fn keys(&self, name: &str) -> Vec<[u8; 32]> {
        self.values.iter().filter(|(known, _)| known == name).filter_map(|(_, value)| json::key(value)).collect()
    }
}

fn check(name: &str, kind: Kind, value: &str) -> Result<(), Refusal> {
    let expected = match kind {
        Kind::Key if json::key(value).is_some() => return Ok(()),
        Kind::Key => "64 hex digits, or base64 of 32 bytes".to_owned(),
        Kind::Height if value == "latest" || number(value).is_some_and(|height| height > 0) => return Ok(()),
        Kind::Height => "a height from 1".to_owned(),
        Kind::Count { least, most } if number(value).is_some_and(|count| (least..=most).contains(&count)) => {
            return Ok(());
        }
        Kind::Count { least, most } => format!("a number in {least} to {most}"),
        Kind::Flag if matches!(value, "true" | "false") => return Ok(()),
        Kind::Flag => "true or false".to_owned(),
        Kind::Word(words) if words.contains(&value) => return Ok(()),
        Kind::Word(words) => format!("one of {}", words.join(", ")),
        Kind::Cursor if cursor(value).is_some() => return Ok(()),
        Kind::Cursor => "the `next` of an earlier page".to_owned(),
    };
    Err(Refusal::Invalid(format!("{name}: {:?} is not {expected}", cut(value))))
}

/// A number without sign and leading zeros.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// The height after which a page begins.
pub fn cursor(text: &str) -> Option<u64> {
    number(text.strip_prefix("h")?)
}

/// The cursor of a page that ends at this height.
pub fn cursor_after(height: u64) -> String {
    format!("h{height}")
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// JSON.
    Json,
    /// Bytes.
    Bytes,
}

/// What the `Content-Type` says; nothing for a type that is not taken.
pub fn body_kind(headers: &HeaderMap) -> Option<BodyKind> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Some(BodyKind::Json),
        "application/octet-stream" => Some(BodyKind::Bytes),
        _ => None,
    }
}

/// The whole body, in the bounds of the gateway.
pub async fn body(gateway: &Gateway, caller: &Caller, body: Body) -> Result<Bytes, Refusal> {
    let most = gateway.config.gateway.limits.body_bytes_max;
    let metered = Metered::new(body, std::sync::Arc::clone(&caller.room), most);
    match tokio::time::timeout(BODY_TIME_MAX, metered.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(BodyError::TooLarge { most })) => Err(Refusal::TooLarge { most }),
        Ok(Err(BodyError::NoRoom)) => Err(Refusal::Overloaded("too many bodies at one time")),
        Ok(Err(BodyError::Read(_))) => Err(Refusal::Invalid("the body ended early".to_owned())),
        Err(_) => Err(Refusal::SlowBody),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::{Input, cursor};
    use crate::gateway::{refusal::Refusal, routes::ROUTES};

    fn input(name: &str, query: &str) -> Result<Input, Refusal> {
        let route = ROUTES.iter().find(|route| route.name == name).expect("a route");
        let (parts, ()) = Request::get(format!("http://h/x?{query}")).body(()).expect("a request").into_parts();
        Input::new(route, vec![], &parts)
    }

    #[test]
    fn parameters_have_the_types_of_the_table() {
        for (route, query, good) in [
            ("listBlocks", "limit=100&after=h7", true),
            ("listBlocks", "", true),
            ("listBlocks", "limit=101", false),
            ("listBlocks", "limit=0", false),
            ("listBlocks", "limit=+5", false),
            ("listBlocks", "limit=5&limit=5", false),
            ("listBlocks", "after=7", false),
            ("listBlocks", "page=2", false),
            ("getTransaction", "wait=final&timeoutMs=100", true),
            ("getTransaction", "wait=soon", false),
            ("getAccount", "prove=yes", false),
            ("streamBlocks", "from=0", false),
            ("streamBlocks", "from=18446744073709551616", false),
        ] {
            assert_eq!(input(route, query).is_ok(), good, "{route}?{query}");
        }
        let accounts = format!("account={0}&account={0}", "ab".repeat(32));
        assert_eq!(input("streamTransactions", &accounts).expect("is good").keys("account").len(), 2);
    }

    #[test]
    fn rubbish_in_queries_is_refused_and_never_breaks_anything() {
        let mut state = 3_u64;
        for _ in 0..20_000 {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize
            };
            let alphabet = b"limitafter=&%0123456789hfF+;,/?:@-._~!$'()*";
            let query: String = (0..next() % 40).map(|_| char::from(alphabet[next() % alphabet.len()])).collect();
            let _ = input("listBlocks", &query);
            let _ = cursor(&query);
        }
    }
}
