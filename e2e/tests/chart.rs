//! The chart as helm renders it: it lints, refuses wrong values, gives the least rights and keeps the definitions.
//!
//! `ALTHING_HELM` is the path of helm; the cluster tool builds one (`cluster build --print helm`).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/althing")
}

/// Standard output, or standard error if helm failed.
fn helm(arguments: &[&str]) -> Result<String, String> {
    let program = std::env::var("ALTHING_HELM").map_err(|_| "ALTHING_HELM is not set".to_string())?;
    let output = Command::new(&program)
        .arg(arguments.first().copied().unwrap_or_default())
        .args(arguments.get(1..).unwrap_or_default())
        .output()
        .map_err(|error| format!("failed to run {program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn template(values: &[&str]) -> Result<Vec<Value>, String> {
    let chart = chart();
    let mut arguments = vec!["template", "althing", chart.to_str().ok_or("path is not UTF-8")?];
    arguments.extend(["--namespace", "althing-system"]);
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    let rendered = helm(&arguments)?;
    rendered
        .split("\n---\n")
        .map(|document| serde_yaml::from_str::<Value>(document).map_err(|error| format!("{error}\n{document}")))
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Resource, verbs of all rules of this object.
fn rights(role: &Value) -> Vec<(String, Vec<String>)> {
    let words = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_string).collect()
    };
    let rules = role["rules"].as_array().into_iter().flatten();
    rules
        .flat_map(|rule| {
            let verbs = words(rule.get("verbs"));
            words(rule.get("resources")).into_iter().map(move |resource| (resource, verbs.clone()))
        })
        .collect()
}

#[test]
fn the_chart_lints() {
    let chart = chart();
    let path = chart.to_str().expect("path is UTF-8");
    let said = helm(&["lint", "--strict", path]).expect("helm lint");
    assert!(said.contains("0 chart(s) failed"), "{said}");
}

#[test]
fn values_that_nobody_reads_are_refused() {
    for wrong in ["replicas=2", "replicaCount=0", "image.tag=latest", "watchNamespaces=althing-demo", "crds.keep=true"]
    {
        let answer = template(&[wrong]);
        assert!(answer.is_err(), "{wrong} was taken");
    }
}

#[test]
fn the_definitions_outlive_the_release() {
    let objects = template(&[]).expect("renders");
    let definitions = of_kind(&objects, "CustomResourceDefinition");
    assert_eq!(definitions.len(), 3);
    for definition in definitions {
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    assert!(of_kind(&template(&["crds.install=false"]).expect("renders"), "CustomResourceDefinition").is_empty());
}

#[test]
fn the_operator_runs_twice_and_without_privileges() {
    let objects = template(&["watchNamespaces={a,b}"]).expect("renders");
    let deployment = of_kind(&objects, "Deployment").pop().expect("a Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(of_kind(&objects, "PodDisruptionBudget").len(), 1);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    assert_eq!(container["args"][0], "--watch-namespaces=a,b");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/name"], althing_crds::names::MANAGED_BY, "nodes let the operator in by it");
    let lease = of_kind(&objects, "Role").into_iter().find(|role| text(role, "/metadata/name").ends_with("-lease"));
    assert_eq!(lease.expect("a Role for the lease")["metadata"]["namespace"], "althing-system");
}

#[test]
fn in_named_namespaces_no_right_to_write_reaches_further() {
    let objects = template(&["watchNamespaces={a,b}"]).expect("renders");
    for role in of_kind(&objects, "ClusterRole") {
        for (resource, verbs) in rights(role) {
            let reads = verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str()));
            assert!(reads && resource != "secrets", "{resource}: {verbs:?} in the whole cluster");
        }
    }
    let places: Vec<&str> = of_kind(&objects, "Role")
        .into_iter()
        .filter(|role| rights(role).iter().any(|(resource, _)| resource == "secrets"))
        .map(|role| text(role, "/metadata/namespace"))
        .collect();
    assert_eq!(places, ["a", "b"]);
}

#[test]
fn no_right_to_secrets_is_bound_in_the_whole_cluster() {
    let objects = template(&["secretNamespaces={x}"]).expect("renders");
    let with_secrets: Vec<&str> = of_kind(&objects, "ClusterRole")
        .into_iter()
        .filter(|role| rights(role).iter().any(|(resource, _)| resource == "secrets"))
        .map(|role| text(role, "/metadata/name"))
        .collect();
    assert_eq!(with_secrets.len(), 1);
    for binding in of_kind(&objects, "ClusterRoleBinding") {
        assert!(!with_secrets.contains(&text(binding, "/roleRef/name")), "Secrets are bound in the whole cluster");
    }
    let bound: Vec<&str> = of_kind(&objects, "RoleBinding")
        .into_iter()
        .filter(|binding| with_secrets.contains(&text(binding, "/roleRef/name")))
        .map(|binding| text(binding, "/metadata/namespace"))
        .collect();
    assert_eq!(bound, ["x"]);
}

#[test]
fn secrets_are_never_listed_and_nothing_is_a_wildcard() {
    for values in [&["watchNamespaces={a}"][..], &["secretNamespaces={x}"][..]] {
        let objects = template(values).expect("renders");
        for role in of_kind(&objects, "Role").into_iter().chain(of_kind(&objects, "ClusterRole")) {
            for (resource, verbs) in rights(role) {
                assert!(resource != "*" && !verbs.iter().any(|verb| verb == "*"), "{resource}: {verbs:?}");
                if resource == "secrets" {
                    assert_eq!(verbs, ["get", "create", "patch"], "Secrets");
                }
            }
        }
    }
}

#[test]
fn the_right_to_ask_issuers_is_given_only_when_it_is_asked_for() {
    let given = |values: &[&str]| -> Vec<Vec<String>> {
        let objects = template(values).expect("renders");
        let roles = of_kind(&objects, "Role").into_iter().chain(of_kind(&objects, "ClusterRole"));
        let requests = roles.flat_map(rights).filter(|(resource, _)| resource == "certificaterequests");
        requests.map(|(_, verbs)| verbs).collect()
    };
    for scope in ["watchNamespaces={a}", "secretNamespaces={x}"] {
        assert!(given(&[scope]).is_empty(), "{scope}");
        assert_eq!(given(&[scope, "certManager.enabled=true"]), [["get", "create", "delete"]], "{scope}");
    }
    assert!(template(&["certManager.enable=true"]).is_err(), "a misspelt value");
}
