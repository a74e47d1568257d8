//! Two valid values for a leaf: from its schema, or by hand where the schema does not say what would be taken.

use serde_json::{Value, json};

use super::tables::matches;

/// Names that a spec may name: there are two Secrets and two PriorityClasses that are called so.
pub const NAMES: [&str; 2] = [FIRST, SECOND];
const FIRST: &str = "campaign-a";
const SECOND: &str = "campaign-b";

/// Values by hand: a part of the path, and both values as YAML.
pub(super) const BY_HAND: &[(&str, &str, &str)] = &[
    ("image", "docker.io/althing/node:two", "docker.io/althing/node:three"),
    ("resources.cpu", "100m", "200m"),
    ("resources.memory", "256Mi", "300Mi"),
    ("storage.size", "20Gi", "30Gi"),
    ("issuers[].url", "https://issuer.example/a", "https://issuer.example:8443/b"),
    ("jwksUrl", "https://issuer.example:9443/keys", "https://issuer.example/keys"),
    ("issuers[].defaultRoles", "[reader]", "[writer]"),
    ("certificateRoles", "[reader]", "[service]"),
    // Unset is the first of the choices.
    ("roles[].class", "service", "user"),
    ("redis.url", "redis://redis.example:6379/0", "redis://redis.example:6380/1"),
    ("trustedProxies", "[10.0.0.0/8]", "[10.0.0.0/8, 192.168.0.0/16]"),
    ("p2p.allowedCidrs", "[10.0.0.0/8]", "[192.168.0.0/16]"),
    ("clientCidrs", "[10.0.0.0/8]", "[192.168.0.0/16]"),
    ("corsOrigins", "['https://app.example']", "['*']"),
    ("autoscaling.minReplicas", "1", "2"),
    ("autoscaling.maxReplicas", "5", "6"),
    // The second is the number that there is at first, and it is kept once the spec says nothing.
    ("gateway.replicas", "3", "2"),
    ("observers.replicas", "3", "2"),
    ("gateway.group", "main", "side"),
    ("observers.group", "main", "side"),
    ("limits.timeoutMs", "2000", "3000"),
    ("limits.timeoutMsMax", "50000", "40000"),
    ("limits.connectionsMax", "5000", "6000"),
    ("limits.connectionsPerAddressMax", "50", "60"),
    ("limits.streamsMax", "500", "600"),
    ("limits.streamsPerCallerMax", "5", "6"),
    ("chain.genesisHash", HEX_A, HEX_B),
    ("accounts[].key", HEX_A, HEX_B),
    ("governance.threshold", "1", "2"),
    ("governance.keys", HEX_LIST_A, HEX_LIST_B),
    // Unset is the first of the choices.
    ("placement", "Required", "Preferred"),
    ("tolerations[].operator", "Exists", "Equal"),
    ("service.type", "NodePort", "LoadBalancer"),
];

const HEX_A: &str = "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'";
const HEX_B: &str = "'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'";
const HEX_LIST_A: &str = "[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, \
                          bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb]";
const HEX_LIST_B: &str = "[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, \
                          cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc]";

/// Two different values, the first not the one that an unset field has; none when there are no two.
pub fn two(path: &str, schema: &Value) -> Option<[Value; 2]> {
    let by_hand = BY_HAND.iter().find(|(pattern, _, _)| matches(path, pattern));
    match by_hand {
        Some((_, first, second)) => Some([serde_yaml::from_str(first).ok()?, serde_yaml::from_str(second).ok()?]),
        None => derived(schema),
    }
}

fn derived(schema: &Value) -> Option<[Value; 2]> {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let first = choices.iter().find(|choice| Some(*choice) != schema.get("default"))?;
        let second = choices.iter().find(|choice| *choice != first)?;
        return Some([first.clone(), second.clone()]);
    }
    match schema.get("type").and_then(Value::as_str)? {
        "boolean" => Some([json!(true), json!(false)]),
        "integer" => {
            // Bounds have a fraction, which is zero for integers.
            let least = schema.get("minimum").and_then(Value::as_f64).unwrap_or_default();
            let least: i64 = format!("{least:.0}").parse().ok()?;
            Some([json!(least + 1), json!(least + 2)])
        }
        "string" => Some([json!(FIRST), json!(SECOND)]),
        "array" => derived(schema.get("items")?).map(|values| values.map(|value| json!([value]))),
        "object" => {
            derived(schema.get("additionalProperties")?).map(|values| values.map(|value| json!({ "of": value })))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_derived_from_the_schema() {
        let table = [
            (json!({ "enum": ["a", "b"], "default": "a" }), Some([json!("b"), json!("a")])),
            (json!({ "enum": ["a"], "default": "a" }), None),
            (json!({ "type": "integer", "minimum": 128.0 }), Some([json!(129), json!(130)])),
            (json!({ "type": "array", "items": { "type": "boolean" } }), Some([json!([true]), json!([false])])),
            (
                json!({ "type": "object", "additionalProperties": { "type": "string" } }),
                Some([json!({ "of": FIRST }), json!({ "of": SECOND })]),
            ),
        ];
        for (schema, expected) in table {
            assert_eq!(two("somewhere", &schema), expected, "{schema}");
        }
    }
}
