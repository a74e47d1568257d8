//! Every example is understood by the types without a field too many, and every mistake says what is expected of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use althing_crds::{BlockchainNetwork, ConsensusGroup, Reason, ValidatorNode, definitions};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn documents(path: &Path) -> Result<Vec<Value>, String> {
    let say = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| say(&error))?;
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).map_err(|error| say(&error))).collect()
}

/// Fields of our own kinds that the definition does not know.
fn unknown_fields(document: &Value) -> Vec<String> {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
    let all = definitions::all().expect("definitions");
    let Some(definition) =
        all.iter().find(|one| one.value.pointer("/spec/names/kind").and_then(Value::as_str) == Some(kind))
    else {
        return vec![];
    };
    let schema = definition.value.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").expect("a spec");
    let mut unknown = vec![];
    walk(document.get("spec").unwrap_or(&Value::Null), schema, "spec", &mut unknown);
    unknown
}

fn walk(value: &Value, schema: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let known =
                    schema.pointer(&format!("/properties/{name}")).or_else(|| schema.get("additionalProperties"));
                match known {
                    Some(known) => walk(field, known, &format!("{path}.{name}"), unknown),
                    None => unknown.push(format!("{path}.{name}")),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                walk(item, schema.get("items").unwrap_or(&Value::Null), &format!("{path}[]"), unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn parse<T: DeserializeOwned>(document: &Value) -> Result<(), String> {
    serde_json::from_value::<T>(document.clone()).map(|_| ()).map_err(|error| error.to_string())
}

fn understood(document: &Value) -> Result<(), String> {
    match document.get("kind").and_then(Value::as_str) {
        Some("BlockchainNetwork") => parse::<BlockchainNetwork>(document),
        Some("ConsensusGroup") => parse::<ConsensusGroup>(document),
        Some("ValidatorNode") => parse::<ValidatorNode>(document),
        Some("ConfigMap" | "Issuer" | "Namespace" | "PriorityClass" | "ResourceQuota" | "Secret" | "Service") => Ok(()),
        kind => Err(format!("kind {kind:?} is not expected in an example")),
    }
}

#[test]
fn the_good_examples_are_understood_to_the_last_field() {
    let files = [
        ("archive.yaml", "ValidatorNode"),
        ("devnet.yaml", "BlockchainNetwork"),
        ("external.yaml", "BlockchainNetwork"),
        ("gateway.yaml", "BlockchainNetwork"),
        ("issuer.yaml", "BlockchainNetwork"),
        ("production.yaml", "BlockchainNetwork"),
    ];
    for (file, kind) in files {
        let documents = documents(&examples().join(file)).expect("YAML");
        assert!(documents.iter().any(|document| document["kind"] == kind), "{file} has no {kind}");
        for document in &documents {
            assert_eq!(understood(document), Ok(()), "{file}");
            assert_eq!(unknown_fields(document), Vec::<String>::new(), "{file}");
        }
    }
}

#[test]
fn each_mistake_says_what_happens() {
    let mut reasons = BTreeSet::new();
    let mut count = 0;
    for entry in fs::read_dir(examples().join("invalid")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).expect("readable");
        let first = text.lines().next().unwrap_or_default();
        let documents = documents(&path).expect("YAML");
        let (last, before) = documents.split_last().expect("a document");
        for document in before {
            assert_eq!(understood(document), Ok(()), "{}", path.display());
        }
        if let Some(reason) = first.strip_prefix("# expect: stalled: ") {
            assert_eq!(understood(last), Ok(()), "{}", path.display());
            assert_eq!(unknown_fields(last), Vec::<String>::new(), "{}", path.display());
            let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
            assert!(known.is_some_and(|known| known.stalls()), "{}: {reason} stalls nothing", path.display());
            reasons.insert(reason.to_string());
        } else {
            let refused = first.strip_prefix("# expect: refused: ").is_some_and(|text| !text.is_empty());
            assert!(refused, "{} expects nothing", path.display());
        }
    }
    assert!(count >= 25, "only {count} mistakes");
    assert!(reasons.len() >= 10, "only {reasons:?}");
}

#[test]
fn every_rule_of_the_definitions_has_its_mistake() {
    let mistakes: Vec<String> = fs::read_dir(examples().join("invalid"))
        .expect("a folder")
        .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("readable"))
        .filter_map(|text| {
            text.lines().next().and_then(|first| first.strip_prefix("# expect: refused: ")).map(String::from)
        })
        .collect();
    let mut messages = BTreeSet::new();
    for definition in definitions::all().expect("definitions") {
        collect_messages(&definition.value, &mut messages);
    }
    // An enum with one value cannot change to another one that the schema knows.
    messages.remove("chain.protocol cannot be changed");
    let uncovered: Vec<&String> =
        messages.iter().filter(|message| !mistakes.iter().any(|mistake| message.contains(mistake.as_str()))).collect();
    assert!(uncovered.is_empty(), "no mistake shows: {uncovered:#?}");
}

fn collect_messages(value: &Value, messages: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                let message = rule.get("message").and_then(Value::as_str).unwrap_or("a rule without a message");
                messages.insert(message.to_string());
            }
            fields.values().for_each(|field| collect_messages(field, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(item, messages)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
