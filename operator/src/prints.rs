//! Hashes of children: what is wanted of them, and what there is of them as far as it matters.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use crate::kinds::{Child, Kind};

/// A child, the hash of what is wanted of it and the hash of what is there.
pub type Record<'a> = (&'a Child, [u8; 32], [u8; 32]);

/// Secrets are no part of the hash: what is wanted of a certificate is another one with each issue. Kinds that a cluster may
/// lack are none either: nobody waits until it is known what there is of them.
pub fn hashed(children: &[Child]) -> impl Iterator<Item = &Child> {
    children.iter().filter(|child| child.kind != Kind::Secret && !Kind::OPTIONAL.contains(&child.kind))
}

/// One hash over what is wanted and what is there of every child; none when one is not known.
pub fn all_hash<'a>(records: impl Iterator<Item = Option<Record<'a>>>) -> Option<String> {
    let mut hasher = Sha256::new();
    for record in records {
        let (child, wanted, found) = record?;
        for part in [child.kind.as_str(), &child.name] {
            hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
        hasher.update(wanted);
        hasher.update(found);
    }
    Some(hex::encode(hasher.finalize()))
}

/// What changes when somebody changes a child. Kinds without a generation change with every write; of the others, a
/// write to the status alone is no change. An autoscaler has none and writes its status all the time: of it counts who wrote
/// the rest, and when.
pub fn fingerprint(kind: Kind, meta: &ObjectMeta) -> [u8; 32] {
    let version = match (meta.generation, kind) {
        (Some(generation), _) => generation.to_string(),
        (None, Kind::HorizontalPodAutoscaler) => writers(meta),
        (None, _) => meta.resource_version.clone().unwrap_or_default(),
    };
    digest(&serde_json::json!([
        meta.uid,
        version,
        meta.labels,
        meta.annotations,
        meta.owner_references,
        meta.deletion_timestamp
    ]))
}

/// Who wrote an object apart from its status, and when.
fn writers(meta: &ObjectMeta) -> String {
    let entries = meta.managed_fields.iter().flatten().filter(|entry| entry.subresource.is_none());
    let mut writers: Vec<String> = entries
        .map(|entry| format!("{:?} {:?} {:?}", entry.manager, entry.operation, entry.time.as_ref().map(|time| time.0)))
        .collect();
    writers.sort();
    writers.join(", ")
}

pub fn digest(body: &serde_json::Value) -> [u8; 32] {
    Sha256::digest(body.to_string().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn a_status_is_no_change_of_a_child_and_an_annotation_is() {
        let meta = |version: &str, generation: Option<i64>| ObjectMeta {
            uid: Some("u".to_string()),
            resource_version: Some(version.to_string()),
            generation,
            ..ObjectMeta::default()
        };
        let fingerprint = |meta: &ObjectMeta| super::fingerprint(Kind::Service, meta);
        assert_eq!(fingerprint(&meta("1", Some(1))), fingerprint(&meta("2", Some(1))));
        assert_ne!(fingerprint(&meta("1", Some(1))), fingerprint(&meta("2", Some(2))));
        assert_ne!(fingerprint(&meta("1", None)), fingerprint(&meta("2", None)));
        let mut edited = meta("2", Some(1));
        edited.annotations = Some([("a".to_string(), "b".to_string())].into());
        assert_ne!(fingerprint(&meta("1", Some(1))), fingerprint(&edited));
    }

    #[test]
    fn of_an_autoscaler_counts_who_wrote_it_and_not_its_status() {
        let entry = |manager: &str, second: i64, subresource: Option<&str>| ManagedFieldsEntry {
            manager: Some(manager.to_string()),
            time: Some(Time(Timestamp::from_second(second).expect("a time"))),
            subresource: subresource.map(str::to_string),
            ..ManagedFieldsEntry::default()
        };
        let of = |version: &str, entries: Vec<ManagedFieldsEntry>| {
            let resource_version = Some(version.to_string());
            let meta = ObjectMeta { resource_version, managed_fields: Some(entries), ..ObjectMeta::default() };
            fingerprint(Kind::HorizontalPodAutoscaler, &meta)
        };
        let before = of("1", vec![entry("althing-network", 5, None)]);
        let scaled = vec![entry("controller", 9, Some("status")), entry("althing-network", 5, None)];
        assert_eq!(before, of("2", scaled));
        assert_ne!(before, of("2", vec![entry("althing-network", 5, None), entry("kubectl-edit", 9, None)]));
    }

    #[test]
    fn the_hash_of_children_is_another_one_when_a_wish_or_an_object_changes() {
        let child = Child { kind: Kind::Service, name: "a".to_string(), body: serde_json::json!({}) };
        let hash = |wanted: u8, found: u8| all_hash([Some((&child, [wanted; 32], [found; 32]))].into_iter());
        assert_eq!(hash(1, 2), hash(1, 2));
        assert_ne!(hash(1, 2), hash(2, 2));
        assert_ne!(hash(1, 2), hash(1, 1));
        assert_eq!(all_hash([None].into_iter()), None, "a child that is not known may be anything");
    }
}
