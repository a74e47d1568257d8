//! The leaves of a schema, and documents that hold them.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::values;

/// One step on the way to a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A field of an object.
    Field {
        /// Its name.
        name: String,
        /// The object is not valid without it.
        is_required: bool,
    },
    /// The first item of a list.
    Item,
}

/// One leaf of a spec: what has no fields of its own. A list of leaves and a map are one leaf each.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Kind whose spec it is in.
    pub kind: &'static str,
    /// The way to it from `spec`.
    pub steps: Vec<Step>,
    /// What the API server accepts there.
    pub schema: Value,
}

impl Leaf {
    /// `BlockchainNetwork/gateway.pod.tolerations[].key`
    pub fn name(&self) -> String {
        format!("{}/{}", self.kind, path(&self.steps))
    }
}

/// `gateway.pod.tolerations[].key`
pub(super) fn path(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Field { name, .. } if text.is_empty() => text.push_str(name),
            Step::Field { name, .. } => {
                text.push('.');
                text.push_str(name);
            }
            Step::Item => text.push_str("[]"),
        }
    }
    text
}

/// All leaves below the schema of a spec.
pub fn leaves(kind: &'static str, spec: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    walk(kind, spec, &mut Vec::new(), &mut found);
    found
}

fn walk(kind: &'static str, schema: &Value, steps: &mut Vec<Step>, found: &mut Vec<Leaf>) {
    if let Some(fields) = fields(schema) {
        for (name, field) in fields {
            steps.push(Step::Field { name: name.clone(), is_required: requires(schema, name) });
            walk(kind, field, steps, found);
            steps.pop();
        }
        return;
    }
    match schema.get("items").filter(|items| fields(items).is_some()) {
        Some(items) => {
            steps.push(Step::Item);
            walk(kind, items, steps, found);
            steps.pop();
        }
        None => found.push(Leaf { kind, steps: steps.clone(), schema: schema.clone() }),
    }
}

fn fields(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn requires(schema: &Value, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.into_iter().flatten().any(|one| one.as_str() == Some(name))
}

/// The schema one step further.
fn next<'a>(schema: &'a Value, step: &Step) -> Result<&'a Value> {
    let found = match step {
        Step::Field { name, .. } => fields(schema).and_then(|fields| fields.get(name)),
        Step::Item => schema.get("items"),
    };
    found.with_context(|| format!("the schema has no {step:?}"))
}

/// Puts a value into a document, and above it what is needed for it to be valid.
///
/// # Errors
/// When the schema has no such place, or asks for a leaf that has no value.
pub(super) fn put(schema: &Value, document: &mut Value, steps: &[Step], value: Option<Value>) -> Result<()> {
    fill(schema, document, steps, &[], value)
}

fn fill(schema: &Value, document: &mut Value, steps: &[Step], above: &[Step], value: Option<Value>) -> Result<()> {
    let Some((step, further)) = steps.split_first() else {
        match value {
            Some(value) => *document = value,
            None if document.is_null() => *document = least(schema, above)?,
            None => {}
        }
        return Ok(());
    };
    if document.is_null() {
        *document = least(schema, above)?;
    }
    let below = next(schema, step)?;
    let here: Vec<Step> = above.iter().cloned().chain([step.clone()]).collect();
    let place = match (step, document) {
        (Step::Field { name, .. }, Value::Object(fields)) => fields.entry(name.clone()).or_insert(Value::Null),
        (Step::Item, Value::Array(items)) => {
            if items.is_empty() {
                items.push(Value::Null);
            }
            items.first_mut().context("an item was put there")?
        }
        (step, _) => anyhow::bail!("{} is no place for {step:?}", path(above)),
    };
    fill(below, place, further, &here, value)
}

/// The smallest valid value: objects with what they require, lists with one item.
fn least(schema: &Value, at: &[Step]) -> Result<Value> {
    if let Some(fields) = fields(schema) {
        let mut object = Map::new();
        for (name, field) in fields.iter().filter(|(name, _)| requires(schema, name)) {
            let step = Step::Field { name: name.clone(), is_required: true };
            let here: Vec<Step> = at.iter().cloned().chain([step]).collect();
            object.insert(name.clone(), least(field, &here)?);
        }
        return Ok(Value::Object(object));
    }
    if let Some(items) = schema.get("items").filter(|items| fields(items).is_some()) {
        let here: Vec<Step> = at.iter().cloned().chain([Step::Item]).collect();
        return Ok(Value::Array(vec![least(items, &here)?]));
    }
    let [first, _] = values::two(&path(at), schema).with_context(|| format!("{} has no value", path(at)))?;
    Ok(first)
}

/// Takes away what is at this place.
pub(super) fn take(document: &mut Value, steps: &[Step]) {
    let Some((last, above)) = steps.split_last() else { return };
    let mut place = document;
    for step in above {
        let found = match step {
            Step::Field { name, .. } => place.get_mut(name),
            Step::Item => place.get_mut(0),
        };
        let Some(found) = found else { return };
        place = found;
    }
    if let (Step::Field { name, .. }, Some(fields)) = (last, place.as_object_mut()) {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({ "type": "object", "required": ["name"], "properties": {
            "name": { "type": "string", "maxLength": 20 },
            "door": { "type": "object", "required": ["width"], "properties": {
                "width": { "type": "integer", "minimum": 1 },
                "bells": { "type": "array", "items": { "type": "object", "required": ["tone"], "properties": {
                    "tone": { "type": "string" }, "loud": { "type": "boolean" } } } },
            } },
            "words": { "type": "array", "items": { "type": "string" } },
        } })
    }

    #[test]
    fn a_leaf_has_no_fields_of_its_own() {
        let names: Vec<String> = leaves("House", &schema()).iter().map(Leaf::name).collect();
        let expected =
            ["House/door.bells[].loud", "House/door.bells[].tone", "House/door.width", "House/name", "House/words"];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_a_leaf_needs_is_made_above_it() {
        let loud = leaves("House", &schema()).swap_remove(0);
        let mut document = json!({ "name": "a" });
        put(&schema(), &mut document, &loud.steps, Some(json!(true))).expect("put");
        let expected =
            json!({ "name": "a", "door": { "width": 2, "bells": [{ "tone": "campaign-a", "loud": true }] } });
        assert_eq!(document, expected);
        take(&mut document, &loud.steps);
        assert_eq!(document.pointer("/door/bells/0"), Some(&json!({ "tone": "campaign-a" })));
    }
}
