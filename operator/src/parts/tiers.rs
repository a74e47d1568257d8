//! What builders need to know of a tier: the observers or the gateways of one network.

use std::collections::BTreeMap;

use althing_crds::names;
use althing_crds::network::NetworkAccess;
use althing_crds::scaling::Autoscaling;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::context::NetworkContext;
use super::labels;
use super::settings::NodeSettings;

/// A tier as builders see it.
#[derive(Clone, Debug, PartialEq)]
pub struct TierContext {
    /// The network that it belongs to.
    pub network: NetworkContext,
    /// Which tier: [`names::COMPONENT_GATEWAY`] or [`names::COMPONENT_OBSERVERS`].
    pub component: &'static str,
    /// Name of its workload, Service, policy and budget.
    pub name: String,
    /// Name of the ConsensusGroup whose chain it serves.
    pub group: String,
    /// Name of that chain.
    pub chain_id: String,
    /// How its pods are made, decided.
    pub settings: NodeSettings,
    /// Number of pods, where the operator owns it.
    pub replicas: Option<i32>,
    /// Bounds of the HorizontalPodAutoscaler, where that owns the number.
    pub autoscaling: Option<Autoscaling>,
    /// Who may talk to nodes.
    pub access: NetworkAccess,
    /// Namespace that the operator runs in.
    pub operator_namespace: String,
}

impl TierContext {
    /// Metadata of a child, which goes when the network goes.
    #[must_use]
    pub fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta { labels: Some(self.labels()), ..self.network.metadata(name) }
    }

    /// Labels of its children and pods. They carry no group: a Service of the chain's validators never selects them.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = labels::network_labels(&self.network);
        labels.insert(names::LABEL_APP_INSTANCE.to_string(), self.name.clone());
        labels.insert(names::LABEL_APP_COMPONENT.to_string(), self.component.to_string());
        labels
    }

    /// Finds its pods.
    #[must_use]
    pub fn selector(&self) -> BTreeMap<String, String> {
        labels::tier_selector(&self.network.name, self.component)
    }

    /// Metadata of its pods; a change of `config_hash` replaces them.
    #[must_use]
    pub fn pod_metadata(&self, config_hash: &str) -> ObjectMeta {
        let mut pod_labels = self.settings.template.pod_labels.clone();
        pod_labels.extend(self.labels());
        let mut annotations = self.settings.template.pod_annotations.clone();
        annotations.insert(names::ANNOTATION_CONFIG_HASH.to_string(), config_hash.to_string());
        ObjectMeta { labels: Some(pod_labels), annotations: Some(annotations), ..ObjectMeta::default() }
    }

    /// `<service>.<namespace>.svc:<port>`.
    #[must_use]
    pub fn address(&self, service: &str, port: u16) -> String {
        format!("{service}.{}.svc:{port}", self.network.namespace)
    }

    /// A name without any permission and without a token.
    #[must_use]
    pub fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.metadata(&self.name),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }
}
