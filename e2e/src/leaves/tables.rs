//! What a schema does not say of a leaf: which cannot be changed, which are not tried and why, and what a comparison with
//! a fresh object leaves out. The first entry that fits a leaf counts.

/// A step of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The leaf gets a value.
    Set,
    /// It gets another one.
    Change,
    /// It has none any more.
    Unset,
}

impl Moment {
    /// As it is called in the name of a case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Change => "change",
            Self::Unset => "unset",
        }
    }
}

/// Leaves that the API server lets nobody change: part of the path.
pub(super) const IMMUTABLE: &[&str] = &[
    "chain.id",
    "chain.genesisHash",
    "chain.accounts[]",
    "chain.parameters",
    "chain.governance",
    "identitySecrets",
    "storage.storageClassName",
    "storage.accessMode",
    "ConsensusGroup/network",
    "ValidatorNode/network",
    "ValidatorNode/group",
    "ValidatorNode/chainId",
    "ValidatorNode/role",
    "ValidatorNode/identitySecret",
];

/// What the API server says when somebody tries.
pub(super) const IMMUTABLE_MESSAGE: &str = "cannot be changed";

/// Leaves that are in a schema because it is shared, and that the API server refuses there: part of the path, and what
/// it says.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("gateway.autoscaling.targetQueueDepth", "autoscaling.targetQueueDepth is for observers"),
    ("observers.autoscaling.targetRequestsPerSecond", "targetConnections are for the gateway"),
    ("observers.autoscaling.targetConnections", "targetConnections are for the gateway"),
];

/// Leaves that are not tried: part of the path, and why.
pub(super) const EXEMPT: &[(&str, &str)] = &[
    ("chain.protocol", "there is one protocol, so that there is no other value"),
    ("groups[].replicas", VOTERS),
    ("ConsensusGroup/replicas", VOTERS),
    ("retired", VOTERS),
    ("external", "the nodes of a chain elsewhere: the cluster case a_group_in_another_namespace_joins_a_chain"),
    (
        "p2p.trustedAuthorities[]",
        "bundles of certificates, which only that case has; golden files show what they change",
    ),
    ("certificates", "an issuer of cert-manager, which nobody plays here: the case certificates_come_from_an_issuer"),
    ("p2p.expose", "a load balancer, which nobody plays here; golden files show the Service and the address"),
    ("groups[].name", "what a removed group leaves is collected by Kubernetes; a case of its own plays that: rename/"),
];

const VOTERS: &str = "voters come and go by transactions of a chain, and keep what they had: the scenarios grow, shrink and \
                      replace";

/// Leaves that change no child that is compared: part of the path, and where they act.
pub(super) const ACTS_ELSEWHERE: &[(&str, &str)] = &[
    ("observers.node.storage.fencing", "it means nothing for an observer, and its documentation says so"),
    ("storage.fencing", "it decides whether a start is granted: operator/src/chain/grants.rs"),
];

/// What a comparison leaves out: part of the path, when, names of fields, and why.
pub(super) const LEFT_OUT: &[(&str, &[Moment], &[&str], &str)] = &[
    ("observers.node.storage.size", &[], &[], "these volumes go with their pods"),
    ("storage.size", &[Moment::Unset], &["storage"], "a volume never shrinks"),
    (
        "autoscaling.minReplicas",
        &[Moment::Set, Moment::Change],
        NUMBERS,
        "the number belongs to the autoscaler: here the one that there was, in a new workload 1",
    ),
    ("autoscaling.maxReplicas", &[Moment::Set, Moment::Change], NUMBERS, "the same"),
];

const NUMBERS: &[&str] = &["replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "desired", "ready"];

/// Leaves that are set and unset together with others: part of the path, and the name of the other.
pub(super) const TOGETHER: &[(&str, &str)] = &[("podsMax", "periodSeconds"), ("periodSeconds", "podsMax")];

/// Leaves that count as required, because the others of the document make them so: part of the path.
pub(super) const REQUIRED_HERE: &[&str] = &["gateway.group", "observers.group"];

/// What a document holds before a leaf is set in it: part of the leaf's path, another path from `spec` (JSON pointer),
/// and what is there, as YAML.
pub(super) const BEFORE: &[(&str, &str, &str)] = &[
    ("gateway.group", "/groups/-", "{name: side, replicas: 1}"),
    ("observers.group", "/groups/-", "{name: side, replicas: 1}"),
    ("redis.caSecret", "/gateway", "{limits: {redis: {url: 'rediss://redis.example:6379/0'}}}"),
];

/// Whether a part of a path is in a name of a leaf: the same segments in the same order.
pub(super) fn matches(name: &str, part: &str) -> bool {
    let segments = |text: &str| -> Vec<String> { text.split(['.', '/']).map(str::to_string).collect() };
    let (name, part) = (segments(name), segments(part));
    name.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_are_compared() {
        assert!(matches("BlockchainNetwork/groups[].chain.id", "chain.id"));
        assert!(matches("BlockchainNetwork/groups[].chain.parameters.blockBytesMax", "chain.parameters"));
        assert!(!matches("ValidatorNode/chainId", "chain"));
        assert!(!matches("BlockchainNetwork/groups[].chain.identity", "chain.id"));
    }
}
