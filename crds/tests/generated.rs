//! The committed definitions are those of the types, small enough, documented and bounded everywhere.

use std::fs;
use std::path::Path;

use althing_crds::definitions::{self, FILE_BYTES_MAX};
use serde_json::Value;

#[test]
fn the_committed_files_are_those_of_the_types() {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chart = crds.join("../charts/althing/templates/crds");
    for definition in definitions::all().expect("definitions") {
        let files = [
            (crds.join(&definition.file), definition.yaml().expect("YAML")),
            (chart.join(&definition.file), definition.chart_template().expect("YAML")),
        ];
        for (path, text) in files {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} differs from the types: run `make gen`", path.display());
            assert!(text.len() <= FILE_BYTES_MAX, "{} has {} bytes", path.display(), text.len());
        }
    }
}

#[test]
fn every_field_is_documented_and_bounded() {
    let mut complaints = vec![];
    for definition in definitions::all().expect("definitions") {
        for part in ["spec", "status"] {
            let pointer = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{part}");
            let schema = definition.value.pointer(&pointer).expect("a schema");
            check(schema, &format!("{} {part}", definition.file), &mut complaints);
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn check(schema: &Value, path: &str, complaints: &mut Vec<String>) {
    let mut complain = |what: &str| complaints.push(format!("{path}: {what}"));
    if schema.get("nullable").is_some() {
        complain("may be null");
    }
    let is_number_or_text = schema.get("x-kubernetes-int-or-string").is_some();
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if schema.get("enum").is_none() && schema.get("maxLength").is_none() => {
            complain("text without maxLength");
        }
        Some("array") if schema.get("maxItems").is_none() => complain("list without maxItems"),
        Some("object") if schema.get("additionalProperties").is_some() && schema.get("maxProperties").is_none() => {
            complain("map without maxProperties");
        }
        Some(_) => {}
        None if is_number_or_text && schema.get("maxLength").is_some() => {}
        None => complain("no type"),
    }
    if let Some(items) = schema.get("items") {
        check(items, &format!("{path}[]"), complaints);
    }
    if let Some(values) = schema.get("additionalProperties") {
        check(values, &format!("{path}{{}}"), complaints);
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if field.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
            complaints.push(format!("{path}.{name}: no description"));
        }
        check(field, &format!("{path}.{name}"), complaints);
    }
}

#[test]
fn an_object_that_nobody_has_seen_is_not_current() {
    for definition in definitions::all().expect("definitions") {
        let default = "/spec/versions/0/schema/openAPIV3Schema/properties/status/default";
        assert_eq!(definition.value.pointer(default), Some(&serde_json::json!({ "observedGeneration": -1 })));
    }
}

#[test]
fn a_group_scales_without_a_selector_so_that_no_autoscaler_takes_it() {
    let groups = definitions::all()
        .expect("definitions")
        .into_iter()
        .find(|definition| definition.file == "consensusgroups.yaml")
        .expect("the group's definition");
    let scale = groups.value.pointer("/spec/versions/0/subresources/scale").expect("scale");
    assert_eq!(
        scale,
        &serde_json::json!({ "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" })
    );
}
