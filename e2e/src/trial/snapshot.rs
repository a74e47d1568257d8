//! The end state of a namespace, without what differs from run to run: keys, hashes, times, addresses.

use std::collections::BTreeMap;

use althing_crds::names::ANNOTATION_RECOUNT;
use anyhow::Result;
use base64::prelude::{BASE64_STANDARD, Engine};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt};
use node_api::pki::EntranceFacts;
use serde_json::Value;

use super::ledger::KINDS;

/// Fields that the API server gives, or that move by themselves.
const LEFT_OUT: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "observedGeneration",
    "creationTimestamp",
    "managedFields",
    "lastTransitionTime",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "healthCheckNodePort",
    "height",
    "blockAge",
    "observedAt",
    "certificateExpires",
    "certificateAuthorityExpires",
    "timeMs",
    "selfLink",
    ANNOTATION_RECOUNT,
];

/// Everything in a namespace by kind and name.
///
/// # Errors
/// When the API server does not answer.
pub async fn snapshot(client: &Client, namespace: &str) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    // The stand-in makes pods; what it writes into them is not the operator's.
    for (group, version, kind) in KINDS.iter().filter(|(_, _, kind)| *kind != "Pod") {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        for object in api.list(&ListParams::default()).await? {
            let name = format!("{kind}/{}", object.name_any());
            let mut value = serde_json::to_value(&object)?;
            reduce(&mut value, *kind == "Secret", namespace);
            found.insert(name, value);
        }
    }
    Ok(found)
}

fn reduce(value: &mut Value, is_secret: bool, namespace: &str) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
            for (name, field) in fields.iter_mut() {
                if is_secret && name == "data" {
                    // Of a Secret only the names of its entries are compared, and for whom its certificates are.
                    for (_, entry) in field.as_object_mut().into_iter().flatten() {
                        let hosts = entry.as_str().and_then(host_names).unwrap_or_default().join(", ");
                        *entry = Value::String(plain(&format!("<secret> {hosts}"), namespace));
                    }
                } else {
                    reduce(field, is_secret, namespace);
                }
            }
            let is_empty = |field: &Value| field.as_object().is_some_and(serde_json::Map::is_empty);
            fields.retain(|name, field| name != "annotations" || !is_empty(field));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| reduce(item, is_secret, namespace)),
        Value::String(text) => *text = plain(text, namespace),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The names of hosts in an entry that is a certificate.
fn host_names(entry: &str) -> Option<Vec<String>> {
    let text = String::from_utf8(BASE64_STANDARD.decode(entry).ok()?).ok()?;
    Some(EntranceFacts::from_pem(&text).ok()?.names)
}

/// Keys, hashes and UIDs give way to one word, and so does the namespace.
fn plain(text: &str, namespace: &str) -> String {
    let text = text.replace(namespace, "<namespace>");
    let mut words: Vec<String> = Vec::new();
    let mut run = String::new();
    let mut flush = |run: &mut String| {
        let is_uid = run.len() == 36 && run.matches('-').count() == 4;
        let is_hash = run.len() >= 32 && !run.contains('-');
        words.push(if is_uid || is_hash { "<key>".to_string() } else { run.clone() });
        run.clear();
    };
    let mut result = Vec::new();
    for letter in text.chars() {
        if letter.is_ascii_hexdigit() || letter == '-' {
            run.push(letter);
        } else {
            flush(&mut run);
            result.push(letter);
        }
    }
    flush(&mut run);
    let mut plain = String::new();
    for (index, word) in words.iter().enumerate() {
        plain.push_str(word);
        plain.extend(result.get(index));
    }
    // A genesis holds keys in an order that depends on them, signatures and a time.
    if plain.contains("ceremony") && plain.contains('{') { "<genesis>".to_string() } else { sorted_lines(&plain) }
}

/// Peers are in the order of their keys.
fn sorted_lines(text: &str) -> String {
    if !text.contains('\n') {
        return text.to_string();
    }
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The first difference in words; empty when there is none.
pub fn difference(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> String {
    for name in expected.keys().chain(found.keys()) {
        match (expected.get(name), found.get(name)) {
            (Some(shall), Some(is)) if shall == is => {}
            (Some(shall), Some(is)) => return format!("{name} differs at {}", place(shall, is)),
            (Some(_), None) => return format!("{name} is missing"),
            (None, _) => return format!("{name} is too much"),
        }
    }
    String::new()
}

/// The path of the first difference with both values.
fn place(shall: &Value, is: &Value) -> String {
    match (shall, is) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys());
            let differs = |name: &&String| left.get(*name) != right.get(*name);
            let Some(name) = names.into_iter().find(differs) else { return String::new() };
            let none = Value::Null;
            format!(".{name}{}", place(left.get(name).unwrap_or(&none), right.get(name).unwrap_or(&none)))
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let differs = left.iter().zip(right).enumerate().find(|(_, (left, right))| left != right);
            differs.map_or_else(String::new, |(index, (left, right))| format!("[{index}]{}", place(left, right)))
        }
        _ => format!(": {shall} was expected, {is} is there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_names_that_change_from_run_to_run_are_left_out() {
        let hash = "ab".repeat(32);
        assert_eq!(plain(&format!("peer {hash} in trial-1"), "trial-1"), "peer <key> in <namespace>");
        assert_eq!(plain("3f2504e0-4f89-11d3-9a0c-0305e82c3301", "x"), "<key>");
        assert_eq!(plain("alpha-main-0.face", "x"), "alpha-main-0.face");
    }

    #[test]
    fn the_first_difference_is_named() {
        let state = |text: &str| -> BTreeMap<String, Value> {
            [("a".to_string(), serde_json::from_str(text).expect("JSON"))].into()
        };
        let shall = state(r#"{"spec":{"ports":[1,2]}}"#);
        assert_eq!(difference(&shall, &shall), "");
        let is = state(r#"{"spec":{"ports":[1,3]}}"#);
        assert_eq!(difference(&shall, &is), "a differs at .spec.ports[1]: 2 was expected, 3 is there");
        assert_eq!(difference(&shall, &BTreeMap::new()), "a is missing");
    }
}
