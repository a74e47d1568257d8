//! The table of REST routes; the router and the OpenAPI document are both made from it.

use node_api::gateway::Permission;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The versions that exist.
    Versions,
    /// The OpenAPI document.
    OpenApi,
    /// Submit one transaction.
    Submit,
    /// Submit many.
    SubmitMany,
    /// What became of a transaction.
    Transaction,
    /// An account.
    Account,
    /// Several blocks.
    Blocks,
    /// One block.
    Block,
    /// The way of a light client.
    LightBlocks,
    /// The voters.
    Validators,
    /// Who may change the chain.
    Governance,
    /// A node's status.
    Status,
    /// Blocks as they are finalised.
    BlockEvents,
    /// Transactions of accounts as they are finalised.
    TransactionEvents,
    /// Both kinds of events over a WebSocket.
    Socket,
}

/// The method of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET
    Get,
    /// POST
    Post,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32 bytes: 64 hex digits, or base64.
    Key,
    /// A height, from 1; in a path also `latest`.
    Height,
    /// A number of things or milliseconds.
    Count {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text that an earlier answer gave.
    Cursor,
}

/// A parameter of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Its type.
    pub kind: Kind,
    /// What it means.
    pub about: &'static str,
    /// Whether it may come more than once.
    pub many: bool,
}

/// What a route answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// A message of the node API, as JSON.
    Message(&'static str),
    /// A schema that only REST has.
    Schema(&'static str),
    /// Server-sent events.
    Events,
    /// A WebSocket.
    Socket,
}

/// What a route takes in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// One transaction: a `SubmitRequest` as JSON, or the transaction's bytes.
    Transaction,
    /// A list of transactions.
    Transactions,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What it does.
    pub target: Target,
    /// Its name in metrics and as `operationId`.
    pub name: &'static str,
    /// Its method.
    pub verb: Verb,
    /// Its path.
    pub path: &'static str,
    /// What the caller must be allowed; nothing: anybody may.
    pub permission: Option<Permission>,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Its body.
    pub takes: Takes,
    /// Its answer.
    pub answers: Answers,
    /// What it is for.
    pub about: &'static str,
}

/// Most blocks in one page.
pub const PAGE_MAX: u64 = 100;
/// Most transactions in one batch.
pub const BATCH_MAX: usize = 1_000;
/// Most accounts that one stream follows.
pub const ACCOUNTS_MAX: usize = 16;

const TIMEOUT: Parameter = Parameter {
    name: "timeoutMs",
    place: Place::Query,
    kind: Kind::Count { least: 1, most: 600_000 },
    about: "Longest wait in milliseconds; the gateway has a maximum of its own.",
    many: false,
};
const FROM: Parameter = Parameter {
    name: "from",
    place: Place::Query,
    kind: Kind::Height,
    about: "First height; without it, the next block to be finalised. `Last-Event-ID` wins over it.",
    many: false,
};
const ACCOUNT: Parameter = Parameter {
    name: "account",
    place: Place::Query,
    kind: Kind::Key,
    about: "Follow transactions that this account sends or receives; at most 16.",
    many: true,
};

const fn path(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, kind, about, many: false }
}

const fn query(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, kind, about, many: false }
}

const fn get(target: Target, name: &'static str, path: &'static str, answers: Answers, about: &'static str) -> Route {
    let permission = Some(Permission::Read);
    Route { target, name, verb: Verb::Get, path, permission, parameters: &[], takes: Takes::Nothing, answers, about }
}

/// The table.
pub const ROUTES: &[Route] = &[
    Route {
        permission: None,
        ..get(Target::Versions, "versions", "/api", Answers::Schema("Versions"), "The versions that exist.")
    },
    Route {
        permission: None,
        ..get(Target::OpenApi, "openapi", "/api/v1/openapi.json", Answers::Schema("OpenApi"), "This document.")
    },
    Route {
        verb: Verb::Post,
        permission: Some(Permission::Submit),
        takes: Takes::Transaction,
        parameters: &[
            query(
                "wait",
                Kind::Word(&["accepted", "durable", "final"]),
                "Which answer to wait for, when the body is the bytes.",
            ),
            TIMEOUT,
        ],
        ..get(
            Target::Submit,
            "submit",
            "/api/v1/transactions",
            Answers::Message("SubmitResponse"),
            "Submit one signed transaction. The same bytes may be submitted again without harm.",
        )
    },
    Route {
        verb: Verb::Post,
        permission: Some(Permission::Submit),
        takes: Takes::Transactions,
        parameters: &[TIMEOUT],
        ..get(
            Target::SubmitMany,
            "submitMany",
            "/api/v1/transactions/batch",
            Answers::Schema("SubmitManyResponse"),
            "Submit up to 1000 signed transactions; each has its own result, in the same order.",
        )
    },
    Route {
        parameters: &[
            path("id", Kind::Key, "Hash of the transaction."),
            query(
                "wait",
                Kind::Word(&["none", "final"]),
                "`final`: answer when it is final or expired, or time is up.",
            ),
            TIMEOUT,
        ],
        ..get(
            Target::Transaction,
            "getTransaction",
            "/api/v1/transactions/{id}",
            Answers::Message("GetTransactionResponse"),
            "What became of a transaction, with its receipt.",
        )
    },
    Route {
        parameters: &[
            path("account", Kind::Key, "Public key of the account."),
            query("prove", Kind::Flag, "Add a proof against the state root; needs the permission prove."),
        ],
        ..get(
            Target::Account,
            "getAccount",
            "/api/v1/accounts/{account}",
            Answers::Message("GetAccountResponse"),
            "Nonce and balance of an account.",
        )
    },
    Route {
        parameters: &[
            query(
                "after",
                Kind::Cursor,
                "The `next` of an earlier page; without it, the page ends at the newest block.",
            ),
            query("limit", Kind::Count { least: 1, most: PAGE_MAX }, "Most blocks in the page; 20 without it."),
        ],
        ..get(
            Target::Blocks,
            "listBlocks",
            "/api/v1/blocks",
            Answers::Schema("BlockPage"),
            "Final blocks from older to newer, without their bodies.",
        )
    },
    Route {
        parameters: &[path("height", Kind::Height, "Height of the block, or `latest`.")],
        ..get(
            Target::Block,
            "getBlock",
            "/api/v1/blocks/{height}",
            Answers::Message("Block"),
            "One final block with the certificate that proves it.",
        )
    },
    Route {
        parameters: &[
            query("trusted", Kind::Height, "Height that the client trusts; without it, genesis."),
            query("height", Kind::Height, "Height that it wants to trust; without it, the newest."),
        ],
        ..get(
            Target::LightBlocks,
            "getLightBlocks",
            "/api/v1/light-blocks",
            Answers::Message("GetLightBlocksResponse"),
            "The way of a light client to a later height, at most 64 steps at a time.",
        )
    },
    get(
        Target::Validators,
        "getValidators",
        "/api/v1/validators",
        Answers::Message("GetValidatorsResponse"),
        "Who votes, as one node sees it. May be up to 60 s old.",
    ),
    get(
        Target::Governance,
        "getGovernance",
        "/api/v1/governance",
        Answers::Message("GetGovernanceResponse"),
        "Who may change the chain, and its parameters.",
    ),
    Route {
        permission: Some(Permission::Status),
        ..get(
            Target::Status,
            "getStatus",
            "/api/v1/status",
            Answers::Message("GetStatusResponse"),
            "Status of one of the nodes that answer reads.",
        )
    },
    Route {
        permission: Some(Permission::Stream),
        parameters: &[FROM],
        ..get(
            Target::BlockEvents,
            "streamBlocks",
            "/api/v1/stream/blocks",
            Answers::Events,
            "Final blocks without their bodies, each as an event `block` whose id is its height.",
        )
    },
    Route {
        permission: Some(Permission::Stream),
        parameters: &[ACCOUNT, FROM],
        ..get(
            Target::TransactionEvents,
            "streamTransactions",
            "/api/v1/stream/transactions",
            Answers::Events,
            "Final transactions of the named accounts, each as an event `transaction` with the id `height-index`.",
        )
    },
    Route {
        permission: Some(Permission::Stream),
        parameters: &[ACCOUNT, FROM],
        ..get(
            Target::Socket,
            "socket",
            "/api/v1/socket",
            Answers::Socket,
            "The same events as JSON texts over a WebSocket: blocks, or with `account` the transactions of accounts.",
        )
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Place, ROUTES};

    #[test]
    fn names_and_paths_are_unique_and_path_parameters_stand_in_the_path() {
        let names: BTreeSet<&str> = ROUTES.iter().map(|route| route.name).collect();
        assert_eq!(names.len(), ROUTES.len());
        for route in ROUTES {
            for parameter in route.parameters {
                let in_path = route.path.contains(&format!("{{{}}}", parameter.name));
                assert_eq!(in_path, parameter.place == Place::Path, "{} {}", route.name, parameter.name);
            }
        }
    }
}
