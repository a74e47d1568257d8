//! The objects of a case: a network, where needed a second object, and the spec in which the leaf stands.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::schema::{self, Leaf, Step};
use super::tables::{self, matches};
use super::values;

/// The kinds whose leaves are tried, with the name of the object in which that is done.
pub const SUBJECTS: [(&str, &str); 3] =
    [("BlockchainNetwork", "alpha"), ("ConsensusGroup", "beta"), ("ValidatorNode", "watcher")];

/// The specs of a case.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Specs {
    /// Without the leaf; none when the object is not valid without it.
    pub unset: Option<Value>,
    /// With its first value.
    pub set: Value,
    /// With its second value.
    pub change: Value,
}

/// An object of ours.
pub(super) fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "althing.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The network that every case has; one voter is enough to see what becomes of a spec.
pub(super) fn network() -> Value {
    json!({ "groups": [{ "name": "main", "replicas": 1 }] })
}

fn base(kind: &str) -> Result<Value> {
    Ok(match kind {
        "BlockchainNetwork" => network(),
        "ConsensusGroup" => json!({ "network": "alpha", "replicas": 1 }),
        // Voters come by their group; what a person makes alone is an observer.
        "ValidatorNode" => {
            json!({ "network": "alpha", "group": "alpha-main", "chainId": "alpha-main", "role": "Observer" })
        }
        other => bail!("there is no spec to begin with for {other}"),
    })
}

/// The specs in which a leaf is set, changed and unset.
///
/// # Errors
/// When a leaf has no two values.
pub(super) fn specs(leaf: &Leaf, schema: &Value) -> Result<Specs> {
    let name = leaf.name();
    let mut before = base(leaf.kind)?;
    for (_, pointer, text) in tables::BEFORE.iter().filter(|(part, _, _)| matches(&name, part)) {
        add(&mut before, pointer, serde_yaml::from_str(text)?)?;
    }
    schema::take(&mut before, &leaf.steps);
    let counts_as_required = tables::REQUIRED_HERE.iter().any(|part| matches(&name, part));
    let anchor = anchor(&leaf.steps, counts_as_required);
    if let Some((_, above)) = anchor.and_then(<[Step]>::split_last) {
        schema::put(schema, &mut before, above, None)?;
    }
    let [first, second] = values::two(&schema::path(&leaf.steps), &leaf.schema)
        .with_context(|| format!("{name} has no two values: give them by hand"))?;
    let mut set = before.clone();
    for (_, other) in tables::TOGETHER.iter().filter(|(part, _)| matches(&name, part)) {
        let mut steps = leaf.steps.clone();
        steps.pop();
        steps.push(Step::Field { name: (*other).to_string(), is_required: false });
        schema::put(schema, &mut set, &steps, None)?;
    }
    let mut change = set.clone();
    schema::put(schema, &mut set, &leaf.steps, Some(first))?;
    schema::put(schema, &mut change, &leaf.steps, Some(second))?;
    Ok(Specs { unset: anchor.map(|_| before), set, change })
}

/// The nearest thing above the leaf, or itself, that may be absent; none when there is none.
fn anchor(steps: &[Step], counts_as_required: bool) -> Option<&[Step]> {
    let may_be_absent = |step: &Step| matches!(step, Step::Field { is_required: false, .. });
    let among = if counts_as_required { steps.split_last()?.1 } else { steps };
    let last = among.iter().rposition(may_be_absent)?;
    steps.get(..=last)
}

fn add(document: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (above, name) = pointer.rsplit_once('/').context("a JSON pointer begins with /")?;
    match document.pointer_mut(above) {
        Some(Value::Array(items)) => items.push(value),
        Some(Value::Object(fields)) => drop(fields.insert(name.to_string(), value)),
        _ => bail!("{above} is no place"),
    }
    Ok(())
}
