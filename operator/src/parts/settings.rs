//! A node's template with every value decided: the spec's own, or the operator's default.

use althing_crds::NodeTemplate;
use althing_crds::quantity::Quantity;
use althing_crds::template::{AccessMode, LogLevel, Placement};

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
    /// Fills what the template leaves open; `image_default` is the image that this operator was released with.
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
