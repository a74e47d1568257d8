//! The documented rules for autoscaling have the form that their readers take, and name metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use althing_crds::scaling::{METRIC_CONNECTIONS, METRIC_LABEL_NETWORK, METRIC_QUEUE, METRIC_REQUESTS};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).expect("readable")
}

fn documents<T: DeserializeOwned>(path: &str) -> Vec<T> {
    text(path).split("\n---\n").map(|document| serde_yaml::from_str(document).expect(path)).collect()
}

/// `rules` of prometheus-adapter: its configuration (pkg/config) under the names of its chart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    rules: Rules,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    custom: Vec<DiscoveryRule>,
    external: Vec<DiscoveryRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DiscoveryRule {
    series_query: String,
    resources: ResourceMapping,
    name: NameMapping,
    metrics_query: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceMapping {
    overrides: std::collections::BTreeMap<String, GroupResource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupResource {
    resource: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameMapping {
    matches: String,
    r#as: String,
}

/// A ScaledObject of KEDA (keda.sh/v1alpha1) with triggers of Prometheus.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScaledObject {
    api_version: String,
    kind: String,
    metadata: Value,
    spec: ScaledObjectSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScaledObjectSpec {
    scale_target_ref: ScaleTarget,
    min_replica_count: u32,
    max_replica_count: u32,
    polling_interval: Option<u32>,
    cooldown_period: Option<u32>,
    triggers: Vec<Trigger>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScaleTarget {
    api_version: String,
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Trigger {
    r#type: String,
    metric_type: String,
    metadata: PrometheusTrigger,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PrometheusTrigger {
    server_address: String,
    query: String,
    threshold: String,
}

/// Names of metrics in a query that docs/metrics.md does not list.
fn undocumented(query: &str) -> Vec<String> {
    let listed = text("docs/metrics.md");
    let words: BTreeSet<&str> = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    let ours = words.into_iter().filter(|word| word.starts_with("althing_") && *word != METRIC_LABEL_NETWORK);
    ours.filter(|word| !listed.contains(&format!("| `{word}` |"))).map(String::from).collect()
}

#[test]
fn the_rules_of_prometheus_adapter_make_the_metrics_that_autoscalers_ask_for() {
    let values: Vec<Values> = documents("examples/autoscaling/prometheus-adapter.yaml");
    let rules = &values.first().expect("a document").rules;
    let names = |rules: &[DiscoveryRule]| rules.iter().map(|rule| rule.name.r#as.clone()).collect::<Vec<_>>();
    assert_eq!(names(&rules.custom), [METRIC_REQUESTS, METRIC_CONNECTIONS]);
    assert_eq!(names(&rules.external), [METRIC_QUEUE]);
    for rule in rules.custom.iter().chain(&rules.external) {
        assert_eq!(undocumented(&rule.series_query), Vec::<String>::new());
        let series = rule.series_query.split('{').next().unwrap_or_default();
        assert_eq!(rule.name.matches, format!("^{series}$"));
        assert!(rule.metrics_query.contains("<<.Series>>{<<.LabelMatchers>>}"), "{}", rule.metrics_query);
        assert!(rule.metrics_query.ends_with("by (<<.GroupBy>>)"), "{}", rule.metrics_query);
        assert!(rule.resources.overrides.iter().all(|(label, to)| *label == to.resource));
    }
    assert!(rules.custom.iter().all(|rule| rule.resources.overrides.contains_key("pod")));
    assert!(rules.external.iter().all(|rule| rule.series_query.contains(METRIC_LABEL_NETWORK)));
}

#[test]
fn the_scaled_objects_of_keda_ask_for_metrics_that_there_are() {
    let objects: Vec<ScaledObject> = documents("examples/autoscaling/keda.yaml");
    let targets: Vec<_> = objects.iter().map(|object| object.spec.scale_target_ref.kind.as_str()).collect();
    assert_eq!(targets, ["Deployment", "StatefulSet"]);
    for ScaledObject { api_version, kind, metadata, spec } in &objects {
        assert_eq!((api_version.as_str(), kind.as_str()), ("keda.sh/v1alpha1", "ScaledObject"));
        assert_eq!(metadata["name"], spec.scale_target_ref.name);
        assert_eq!(spec.scale_target_ref.api_version, "apps/v1");
        assert!(spec.min_replica_count <= spec.max_replica_count);
        assert!(spec.polling_interval.is_none_or(|seconds| seconds > 0));
        assert!(spec.cooldown_period.is_none_or(|seconds| seconds > 0));
        for Trigger { r#type, metric_type, metadata } in &spec.triggers {
            assert_eq!((r#type.as_str(), metric_type.as_str()), ("prometheus", "AverageValue"));
            assert!(metadata.query.contains("althing_") && metadata.server_address.starts_with("http"));
            assert_eq!(undocumented(&metadata.query), Vec::<String>::new());
            assert!(metadata.threshold.parse::<u32>().is_ok_and(|threshold| threshold > 0));
        }
    }
}

#[test]
fn a_metric_that_does_not_exist_is_noticed() {
    assert_eq!(undocumented("sum(rate(althing_gateway_request_total[1m]))"), ["althing_gateway_request_total"]);
}
