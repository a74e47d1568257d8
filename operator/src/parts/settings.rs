//! A node's template with every value decided: the spec's own, or the operator's default.

use althing_crds::NodeTemplate;
use althing_crds::quantity::Quantity;
use althing_crds::template::{AccessMode, DefaultImage, LogLevel, Placement};
use sha2::{Digest, Sha256};

/// CPU of a node when nobody says how much.
pub const CPU_DEFAULT: &str = "500m";
/// Memory of a node when nobody says how much.
pub const MEMORY_DEFAULT: &str = "512Mi";
/// Size of a volume when nobody says how large.
pub const STORAGE_SIZE_DEFAULT: &str = "10Gi";

/// CPU that a gateway requests when nobody says how much.
pub const GATEWAY_CPU_DEFAULT: &str = "250m";
/// Memory of a gateway when nobody says how much.
pub const GATEWAY_MEMORY_DEFAULT: &str = "256Mi";

/// The image of nodes whose spec names none, to be written down: what is written down already, until a new restart is
/// asked for, else what this operator brings. So a newer operator restarts nobody.
#[must_use]
pub fn default_image(
    template: &NodeTemplate,
    recorded: Option<&DefaultImage>,
    restart: Option<&String>,
    brought: &str,
) -> Option<DefaultImage> {
    if template.image.is_some() {
        return None;
    }
    let restart_hash = restart.map(|value| hex::encode(Sha256::digest(value)));
    let kept = recorded.filter(|recorded| recorded.restart_hash == restart_hash);
    Some(kept.cloned().unwrap_or_else(|| DefaultImage { image: brought.to_string(), restart_hash }))
}

/// What a pod and a volume are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    /// Image of the node.
    pub image: String,
    /// Requests and limits for CPU.
    pub cpu: String,
    /// Requests and limits for memory.
    pub memory: String,
    /// Size of the volume.
    pub storage_size: String,
    /// Access mode of the volume.
    pub access_mode: AccessMode,
    /// True if the user declared that the storage fences.
    pub fencing: bool,
    /// How strictly nodes are kept apart.
    pub placement: Placement,
    /// How much the node logs.
    pub log_level: LogLevel,
    /// The rest, where unset means absent.
    pub template: NodeTemplate,
}

impl NodeSettings {
    /// Fills what the template leaves open; `image_default` is the image where it names none.
    #[must_use]
    pub fn resolve(template: &NodeTemplate, image_default: &str) -> Self {
        let amount = |quantity: Option<&Quantity>, default: &str| {
            quantity.map_or_else(|| default.to_string(), |quantity| quantity.as_str().to_string())
        };
        let resources = template.resources.as_ref();
        Self {
            image: template.image.clone().unwrap_or_else(|| image_default.to_string()),
            cpu: amount(resources.map(|resources| &resources.cpu), CPU_DEFAULT),
            memory: amount(resources.map(|resources| &resources.memory), MEMORY_DEFAULT),
            storage_size: amount(template.storage.size.as_ref(), STORAGE_SIZE_DEFAULT),
            access_mode: template.storage.access_mode.unwrap_or_default(),
            fencing: template.storage.fencing.unwrap_or_default(),
            placement: template.placement.unwrap_or_default(),
            log_level: template.log_level.unwrap_or_default(),
            template: template.clone(),
        }
    }

    /// The same for a gateway, which needs less.
    #[must_use]
    pub fn resolve_gateway(template: &NodeTemplate, image_default: &str) -> Self {
        let mut settings = Self::resolve(template, image_default);
        if template.resources.is_none() {
            settings.cpu = GATEWAY_CPU_DEFAULT.to_string();
            settings.memory = GATEWAY_MEMORY_DEFAULT.to_string();
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: Option<&str>) -> NodeTemplate {
        NodeTemplate { image: image.map(str::to_string), ..NodeTemplate::default() }
    }

    #[test]
    fn a_newer_operator_changes_the_image_of_nobody_who_did_not_ask() {
        let unset = template(None);
        let first = default_image(&unset, None, None, "node:1").expect("it is needed");
        assert_eq!(first.image, "node:1");
        assert_eq!(default_image(&unset, Some(&first), None, "node:2").as_ref(), Some(&first));
        let restart = "now".to_string();
        let second = default_image(&unset, Some(&first), Some(&restart), "node:2").expect("it is needed");
        assert_eq!(second.image, "node:2", "a restart was asked for");
        assert_eq!(default_image(&unset, Some(&second), Some(&restart), "node:3").as_ref(), Some(&second), "once");
        let again = default_image(&unset, Some(&second), Some(&"later".to_string()), "node:3");
        assert_eq!(again.map(|default| default.image).as_deref(), Some("node:3"));
    }

    #[test]
    fn what_was_written_down_ends_when_the_spec_names_an_image() {
        let first = default_image(&template(None), None, None, "node:1");
        assert_eq!(default_image(&template(Some("own:1")), first.as_ref(), None, "node:2"), None);
        let after = default_image(&template(None), None, None, "node:2").map(|default| default.image);
        assert_eq!(after.as_deref(), Some("node:2"), "as for nodes that are made now");
    }
}
