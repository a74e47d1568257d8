//! What shall come of each leaf.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::documents::{self, SUBJECTS, object};
use super::schema::{Leaf, leaves};
use super::tables::{self, Moment, matches};

/// What shall come of a leaf.
#[derive(Clone, Debug, PartialEq)]
pub enum Shall {
    /// Children follow it.
    BeFollowed {
        /// It changes none that is compared: it acts elsewhere.
        acts_elsewhere: bool,
        /// Fields that a comparison with a fresh object leaves out, by moment.
        left_out: Vec<(Moment, &'static str)>,
    },
    /// The API server says this to who changes it.
    BeKept(&'static str),
    /// The API server says this to who sets it.
    BeRefused(&'static str),
}

/// A leaf with the objects in which it is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafCase {
    /// `BlockchainNetwork/gateway.replicas`
    pub leaf: String,
    /// What shall come of it.
    pub shall: Shall,
    /// Objects that are there before.
    pub others: Vec<Value>,
    /// The object without the leaf; none when it is not valid without it.
    pub unset: Option<Value>,
    /// The object with its first value.
    pub set: Value,
    /// The object with its second value.
    pub change: Value,
}

impl LeafCase {
    /// Fields that the comparison at this moment leaves out.
    pub fn left_out(&self, at: Moment) -> Vec<&'static str> {
        match &self.shall {
            Shall::BeFollowed { left_out, .. } => {
                left_out.iter().filter(|(moment, _)| *moment == at).map(|(_, field)| *field).collect()
            }
            Shall::BeKept(_) | Shall::BeRefused(_) => Vec::new(),
        }
    }
}

/// The cases of all leaves of the generated definitions.
///
/// # Errors
/// When a leaf has neither values nor a reason to be exempt.
pub fn cases() -> Result<Vec<LeafCase>> {
    let mut found = Vec::new();
    for (leaf, schema) in all()? {
        let name = leaf.name();
        if tables::EXEMPT.iter().any(|(part, _)| matches(&name, part)) {
            continue;
        }
        found.push(case(&leaf, &schema).with_context(|| name)?);
    }
    Ok(found)
}

/// Every leaf with the schema of its spec.
fn all() -> Result<Vec<(Leaf, Value)>> {
    let definitions = althing_crds::definitions::all()?;
    let mut found = Vec::new();
    for (kind, _) in SUBJECTS {
        let of_kind = |value: &&Value| value.pointer("/spec/names/kind").and_then(Value::as_str) == Some(kind);
        let definition = definitions.iter().map(|definition| &definition.value).find(of_kind);
        let schema = definition
            .and_then(|value| value.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec"))
            .with_context(|| format!("{kind} has no schema"))?;
        found.extend(leaves(kind, schema).into_iter().map(|leaf| (leaf, schema.clone())));
    }
    ensure!(!found.is_empty(), "there are no leaves");
    Ok(found)
}

fn case(leaf: &Leaf, schema: &Value) -> Result<LeafCase> {
    let (_, subject) = SUBJECTS.iter().find(|(kind, _)| *kind == leaf.kind).context("a kind of ours")?;
    let specs = documents::specs(leaf, schema)?;
    let made = |spec: &Value| object(leaf.kind, subject, spec);
    let others = if *subject == "alpha" {
        Vec::new()
    } else {
        vec![object("BlockchainNetwork", "alpha", &documents::network())]
    };
    Ok(LeafCase {
        leaf: leaf.name(),
        shall: shall(&leaf.name()),
        others,
        unset: specs.unset.as_ref().map(made),
        set: made(&specs.set),
        change: made(&specs.change),
    })
}

fn shall(name: &str) -> Shall {
    if let Some((_, message)) = tables::REFUSED.iter().find(|(part, _)| matches(name, part)) {
        return Shall::BeRefused(message);
    }
    if tables::IMMUTABLE.iter().any(|part| matches(name, part)) {
        return Shall::BeKept(tables::IMMUTABLE_MESSAGE);
    }
    let entry = tables::LEFT_OUT.iter().find(|(part, ..)| matches(name, part));
    let left_out = entry.into_iter().flat_map(|(_, moments, fields, _)| {
        moments.iter().flat_map(|moment| fields.iter().map(|field| (*moment, *field)))
    });
    Shall::BeFollowed {
        acts_elsewhere: tables::ACTS_ELSEWHERE.iter().any(|(part, _)| matches(name, part)),
        left_out: left_out.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::values::BY_HAND;
    use super::*;

    fn names() -> Vec<String> {
        all().expect("definitions").iter().map(|(leaf, _)| leaf.name()).collect()
    }

    /// Entries of a table that come first for no leaf.
    fn stale<'a>(parts: &[&'a str], names: &[String]) -> Vec<&'a str> {
        let first = |name: &String| parts.iter().position(|part| matches(name, part));
        let used: BTreeSet<usize> = names.iter().filter_map(first).collect();
        parts.iter().enumerate().filter(|(place, _)| !used.contains(place)).map(|(_, part)| *part).collect()
    }

    #[test]
    fn every_leaf_has_a_case_or_a_reason_to_have_none() {
        let (names, cases) = (names(), cases().expect("every leaf has two values or a reason"));
        let exempt = names.iter().filter(|name| tables::EXEMPT.iter().any(|(part, _)| matches(name, part))).count();
        assert_eq!(cases.len() + exempt, names.len());
        for case in &cases {
            assert_ne!(case.set, case.change, "{}", case.leaf);
            assert_ne!(case.unset.as_ref(), Some(&case.set), "{}", case.leaf);
        }
    }

    #[test]
    fn no_table_has_an_entry_that_no_leaf_needs() {
        let names = names();
        let first =
            |entries: &[(&'static str, &'static str)]| entries.iter().map(|(part, _)| *part).collect::<Vec<_>>();
        let tables = [
            ("immutable", tables::IMMUTABLE.to_vec()),
            ("refused", first(tables::REFUSED)),
            ("exempt", first(tables::EXEMPT)),
            ("acts elsewhere", first(tables::ACTS_ELSEWHERE)),
            ("left out", tables::LEFT_OUT.iter().map(|(part, ..)| *part).collect()),
            ("together", first(tables::TOGETHER)),
            ("required here", tables::REQUIRED_HERE.to_vec()),
            ("before", tables::BEFORE.iter().map(|(part, ..)| *part).collect()),
            ("values by hand", BY_HAND.iter().map(|(part, ..)| *part).collect()),
        ];
        for (table, parts) in tables {
            assert_eq!(stale(&parts, &names), Vec::<&str>::new(), "stale in `{table}`");
        }
        assert_eq!(stale(&["gone.leaf"], &names), ["gone.leaf"], "a stale entry is found");
    }

    #[test]
    fn a_required_leaf_is_set_and_unset_with_what_it_belongs_to() {
        let cases = cases().expect("cases");
        let case = cases.iter().find(|case| case.leaf == "BlockchainNetwork/node.resources.cpu").expect("there");
        let node = |object: &Value| object.pointer("/spec/node").cloned();
        assert_eq!(case.unset.as_ref().and_then(node), Some(serde_json::json!({})));
        let set = serde_json::json!({ "resources": { "cpu": "100m", "memory": "256Mi" } });
        assert_eq!(node(&case.set), Some(set));
        let case = cases.iter().find(|case| case.leaf == "ValidatorNode/network").expect("there");
        assert_eq!(case.unset, None);
    }
}
