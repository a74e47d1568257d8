//! The table of node calls that the gateway offers; a call that is not in it does not exist for clients.

use bytes::Bytes;
use node_api::{gateway::Permission, proto};
use prost::{DecodeError, Message};

/// A call of the node API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `Transactions.Submit`
    Submit,
    /// `Transactions.SubmitBatch`
    SubmitBatch,
    /// `Transactions.SubmitStream`
    SubmitStream,
    /// `Transactions.GetTransaction`
    GetTransaction,
    /// `Accounts.GetAccount`
    GetAccount,
    /// `Blocks.GetBlock`
    GetBlock,
    /// `Blocks.StreamBlocks`
    StreamBlocks,
    /// `Blocks.GetLightBlocks`
    GetLightBlocks,
    /// `Validators.GetValidators`
    GetValidators,
    /// `Validators.GetGovernance`
    GetGovernance,
    /// `Node.GetStatus`
    GetStatus,
}

/// Which nodes take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Validators.
    Submit,
    /// Observers, or the validators when there are none.
    Read,
}

impl Tier {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
        }
    }
}

/// When a failed call may be made again, at another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Always: it changes nothing.
    Always,
    /// Always: it has the same effect once and many times. What a later node refuses may be done already.
    Idempotent,
    /// Only when it is certain that it never left.
    IfUnsent,
}

/// How many messages come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One.
    Unary,
    /// Any number.
    ServerStream,
    /// Any number, for any number of requests.
    BothStreams,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRule {
    /// The call.
    pub call: Call,
    /// Path as in HTTP/2.
    pub path: &'static str,
    /// Who takes it.
    pub tier: Tier,
    /// What a caller must be allowed.
    pub permission: Permission,
    /// When it may be made again.
    pub retry: Retry,
    /// What comes back.
    pub shape: Shape,
}

const fn submit(call: Call, path: &'static str) -> CallRule {
    let (tier, permission) = (Tier::Submit, Permission::Submit);
    CallRule { call, path, tier, permission, retry: Retry::IfUnsent, shape: Shape::Unary }
}

const fn read(call: Call, path: &'static str) -> CallRule {
    let (tier, permission) = (Tier::Read, Permission::Read);
    CallRule { call, path, tier, permission, retry: Retry::Always, shape: Shape::Unary }
}

/// The table.
pub const CALLS: &[CallRule] = &[
    // A transaction is executed once, however often it is sent. The answer about a batch would call refused what the first
    // node took, so it is not sent again.
    CallRule { retry: Retry::Idempotent, ..submit(Call::Submit, "/althing.v1.Transactions/Submit") },
    submit(Call::SubmitBatch, "/althing.v1.Transactions/SubmitBatch"),
    CallRule { shape: Shape::BothStreams, ..submit(Call::SubmitStream, "/althing.v1.Transactions/SubmitStream") },
    read(Call::GetTransaction, "/althing.v1.Transactions/GetTransaction"),
    read(Call::GetAccount, "/althing.v1.Accounts/GetAccount"),
    read(Call::GetBlock, "/althing.v1.Blocks/GetBlock"),
    CallRule {
        permission: Permission::Stream,
        shape: Shape::ServerStream,
        ..read(Call::StreamBlocks, "/althing.v1.Blocks/StreamBlocks")
    },
    read(Call::GetLightBlocks, "/althing.v1.Blocks/GetLightBlocks"),
    read(Call::GetValidators, "/althing.v1.Validators/GetValidators"),
    read(Call::GetGovernance, "/althing.v1.Validators/GetGovernance"),
    CallRule { permission: Permission::Status, ..read(Call::GetStatus, "/althing.v1.Node/GetStatus") },
];

impl Call {
    /// Its row.
    pub fn rule(self) -> &'static CallRule {
        CALLS.iter().find(|rule| rule.call == self).expect("a test finds every call in the table")
    }

    /// Whether a node can read this request. One that it cannot read would come back as a fault of the node.
    pub fn check(self, request: &Bytes) -> Result<(), DecodeError> {
        fn decodes<M: Message + Default>(request: &Bytes) -> Result<(), DecodeError> {
            M::decode(request.clone()).map(drop)
        }
        match self {
            Self::Submit => decodes::<proto::SubmitRequest>(request),
            Self::SubmitBatch => decodes::<proto::SubmitBatchRequest>(request),
            Self::SubmitStream => decodes::<proto::SubmitStreamRequest>(request),
            Self::GetTransaction => decodes::<proto::GetTransactionRequest>(request),
            Self::GetAccount => decodes::<proto::GetAccountRequest>(request),
            Self::GetBlock => decodes::<proto::GetBlockRequest>(request),
            Self::StreamBlocks => decodes::<proto::StreamBlocksRequest>(request),
            Self::GetLightBlocks => decodes::<proto::GetLightBlocksRequest>(request),
            Self::GetValidators => decodes::<proto::GetValidatorsRequest>(request),
            Self::GetGovernance => decodes::<proto::GetGovernanceRequest>(request),
            Self::GetStatus => decodes::<proto::GetStatusRequest>(request),
        }
    }

    /// What this request needs beyond the row: a proof costs the node disk reads.
    pub fn permission(self, request: &Bytes) -> Permission {
        match self {
            Self::GetAccount => match proto::GetAccountRequest::decode(request.clone()) {
                Ok(request) if request.prove => Permission::Prove,
                _ => Permission::Read,
            },
            Self::Submit
            | Self::SubmitBatch
            | Self::SubmitStream
            | Self::GetTransaction
            | Self::GetBlock
            | Self::StreamBlocks
            | Self::GetLightBlocks
            | Self::GetValidators
            | Self::GetGovernance
            | Self::GetStatus => self.rule().permission,
        }
    }
}

#[cfg(test)]
mod tests {
    use node_api::roles::{Role, may_call};

    use super::{CALLS, Call};

    #[test]
    fn every_call_is_in_the_table_once_and_the_nodes_take_it_from_a_gateway() {
        let all = [
            Call::Submit,
            Call::SubmitBatch,
            Call::SubmitStream,
            Call::GetTransaction,
            Call::GetAccount,
            Call::GetBlock,
            Call::StreamBlocks,
            Call::GetLightBlocks,
            Call::GetValidators,
            Call::GetGovernance,
            Call::GetStatus,
        ];
        assert_eq!(all.len(), CALLS.len());
        for call in all {
            assert_eq!(CALLS.iter().filter(|rule| rule.call == call).count(), 1, "{call:?}");
            assert!(may_call(Role::Gateway, call.rule().path), "{call:?}");
        }
    }
}
