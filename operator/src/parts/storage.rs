//! The volume claim of a node, made once.

use althing_crds::names;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::context::NodeContext;

/// The node's claim. It has no owner: it stays when the node is deleted.
#[must_use]
pub fn claim(node: &NodeContext) -> PersistentVolumeClaim {
    let size = Quantity(node.settings.storage_size.clone());
    PersistentVolumeClaim {
        metadata: node.metadata_kept(&names::claim(&node.name)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![node.settings.access_mode.as_str().to_string()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_string(), size)].into()),
                limits: None,
            }),
            storage_class_name: node.settings.template.storage.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
