//! Every reason that a condition can have; a reason that stalls is a refusal of the operator.

macro_rules! reasons {
    ($($(#[doc = $text:literal])+ $name:ident $(= $stalls:ident)?,)+) => {
        /// Why a condition is what it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $text])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in `status.conditions[].reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// True for the reasons with which `Stalled` is true: only a person can help.
            #[must_use]
            pub fn stalls(self) -> bool {
                match self {
                    $(Self::$name => reasons!(@stalls $($stalls)?),)+
                }
            }

            /// What the reason means, for documentation.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($text),+).trim_ascii(),)+
                }
            }
        }
    };
    (@stalls stalls) => { true };
    (@stalls) => { false };
}

reasons! {
    // Refusals: the spec cannot be carried out, and nothing of it is written.
    /// The spec contradicts itself in a way that the API server cannot see.
    InvalidSpec = stalls,
    /// An object of a name that the operator needs belongs to somebody else; it is never adopted.
    NameTaken = stalls,
    /// Another group of this namespace already has this chain id.
    ChainIdTaken = stalls,
    /// The BlockchainNetwork that the spec names does not exist.
    NetworkMissing = stalls,
    /// The ConsensusGroup that the spec names does not exist.
    GroupMissing = stalls,
    /// The node's network or chain id is not that of its group.
    GroupMismatch = stalls,
    /// The StorageClass does not exist, or none is named and the cluster has no default.
    StorageClassMissing = stalls,
    /// The volume would have to shrink.
    StorageShrunk = stalls,
    /// The volume would have to grow, and its StorageClass does not let it, or the API server refuses.
    StorageFixed = stalls,
    /// The PriorityClass does not exist.
    PriorityClassMissing = stalls,
    /// A Secret of `imagePullSecrets` does not exist.
    PullSecretMissing = stalls,
    /// A Secret that `spec.gateway` names does not exist or lacks an entry.
    GatewaySecretMissing = stalls,
    /// `spec.gateway.route` is set and the cluster has no TLSRoute of the Gateway API.
    RouteKindMissing = stalls,
    /// `spec.certificates` is set and the cluster has no CertificateRequest of cert-manager.
    IssuerKindMissing = stalls,
    /// A CertificateRequest was denied or failed; the message has the words of cert-manager. It is asked again after a while.
    IssuerRefused = stalls,
    /// What the issuer answered is not what was asked: another name, key, use or life. It is not used.
    IssuedOtherwise = stalls,
    /// What the issuer answered is of an authority that the nodes of this network do not trust. It is not used.
    IssuerChanged = stalls,
    /// A Secret of `identitySecrets` does not exist.
    IdentitySecretMissing = stalls,
    /// An identity Secret holds no ed25519 key in PKCS#8 under `identity.pem`.
    IdentityInvalid = stalls,
    /// Two nodes would have the same identity.
    IdentityReused = stalls,
    /// The chain cannot come to this number of voters: one of a single voter stays one.
    MembershipFixed = stalls,
    /// The genesis is not the one that `chain.genesisHash` or `external.genesis.hash` names.
    GenesisMismatch = stalls,
    /// The ConfigMap that `external.genesis` names does not exist or holds no genesis.
    GenesisMissing = stalls,
    /// A ConfigMap of `trustedAuthorities` does not exist or holds no certificates.
    TrustedAuthorityMissing = stalls,
    /// The API server refuses what this object needs: by a quota, an admission policy, a missing right or its own rules.
    ChildRefused = stalls,
    // What is made once is gone or is another.
    /// The identity that this node had is gone or is another; a new one is never made.
    IdentityLost = stalls,
    /// The volume that this node had is gone or is another; a new one is never made.
    VolumeLost = stalls,
    /// The certificate authority of the network is gone or is another; a new one is never made.
    CertificateAuthorityLost = stalls,
    /// The governance key of the chain is gone or is another; a new one is never made.
    GovernanceKeyLost = stalls,
    /// The genesis of the started chain is gone or is another; a new one is never made.
    GenesisLost = stalls,
    /// Kept data of the same name belongs to another genesis.
    RetainedDataMismatch = stalls,
    // The chain needs a person.
    /// More voters than the chain tolerates wait for proof that their former owner has ended.
    SignersWaiting = stalls,
    /// The session key of this node was replaced by a rotation that it did not make.
    IdentityContested = stalls,
    /// A node stopped itself because of a broken invariant; its logs say which.
    NodeHalted = stalls,
    /// A voter's machine was drained or is full, and the voter may run on no other one.
    DrainBlocked = stalls,
    /// A child of this object is stalled.
    ChildStalled = stalls,
    /// The voter that was restarted first does not come to sign; no other one is restarted until it does or the spec changes.
    RolloutPaused = stalls,
    // Nothing stalls.
    /// Nothing needs a person.
    NotStalled,
    // Reconciling.
    /// Everything is as the spec says.
    UpToDate,
    /// The spec has not been looked at yet.
    Pending,
    /// Children are being made or changed.
    ApplyingChildren,
    /// The group that had this chain id before is not gone yet.
    AwaitingChainId,
    /// The voters agree on a genesis.
    GenesisCeremony,
    /// Nodes are being started.
    StartingNodes,
    /// The volume is smaller than it shall be: the storage makes it larger.
    VolumeGrowing,
    /// Nodes are restarted one after the other.
    RestartingNodes,
    /// A voter joins or leaves the chain.
    ChangingVoters,
    /// A change of the voters waits for signatures of governance keys that the operator does not have.
    AwaitingGovernance,
    /// Observers or gateways are not all ready; the chain does not depend on them.
    StartingTiers,
    /// The certificate authority is being replaced; the message says by which step, and for whom it waits.
    RollingAuthority,
    /// The next certificate authority waits until a person says that everybody outside trusts it.
    AwaitingConfirmation,
    /// A CertificateRequest waits for its approval or its issuer; the message has the words of cert-manager.
    AwaitingIssuer,
    /// A step fails again and again, as while an admission webhook is away; the message says which. It is tried again.
    StepFailed,
    /// The annotation `althing.dev/pause` is set.
    Paused,
    // Ready.
    /// All nodes do their work.
    NodesReady,
    /// The pod is not there or not started.
    PodNotRunning,
    /// The pod cannot start; the message says why.
    PodFailing,
    // Available.
    /// A quorum signs and the last block is young.
    QuorumSigning,
    /// Less than a quorum signs.
    QuorumLost,
    /// The last block is too old.
    BlocksStopped,
    /// The chain has not started.
    NotStarted,
    /// Too few voters answer to say it.
    ChainUnknown,
    // QuorumAtRisk.
    /// At least one more voter may fail.
    MarginLeft,
    /// No further voter may fail.
    NoMarginLeft,
    /// One machine or zone holds more voters than may fail.
    CoLocated,
    /// A chain with one voter has no margin.
    SingleVoter,
    // Synced and Signing.
    /// The node has the chain's last blocks.
    CaughtUp,
    /// The node is fetching blocks.
    CatchingUp,
    /// The node does not answer.
    Unreachable,
    /// The others see its votes.
    VotesSeen,
    /// The others do not see its votes.
    VotesMissing,
    /// The node waits for proof that the former owner of its key has ended.
    WaitingForGrant,
    /// The node has no power on the chain.
    NotAVoter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning_and_a_name_that_fits() {
        for reason in Reason::ALL {
            assert!(reason.meaning().ends_with('.'), "{reason:?}: {}", reason.meaning());
            assert!(reason.as_str().len() <= 64);
        }
    }
}
