//! The role table, compared whole and in both directions, and the form of ids.

use std::collections::BTreeSet;

use node_api::{
    proto::FILE_DESCRIPTOR_SET,
    roles::{METHODS, ROLES, Role, SpiffeId, may_call},
};
use node_core::types::ChainId;
use prost_types::FileDescriptorSet;
use tonic_prost::prost::Message;

/// Each call and, for V(alidator) O(bserver) G(ateway) o(P)erator C(lient), whether it is allowed.
const EXPECTED: &str = "
VOGPC
..+++ /althing.v1.Transactions/Submit
..+++ /althing.v1.Transactions/SubmitBatch
..+++ /althing.v1.Transactions/SubmitStream
.++++ /althing.v1.Transactions/GetTransaction
.++++ /althing.v1.Accounts/GetAccount
.++++ /althing.v1.Blocks/GetBlock
.++++ /althing.v1.Blocks/StreamBlocks
.++++ /althing.v1.Blocks/GetLightBlocks
.++++ /althing.v1.Events/StreamEvents
.++++ /althing.v1.Validators/GetValidators
.++++ /althing.v1.Validators/GetGovernance
.++++ /althing.v1.Node/GetStatus
...+. /althing.v1.Lifecycle/GetStartRequest
...+. /althing.v1.Lifecycle/GrantStart
...+. /althing.v1.Lifecycle/GetGenesisReport
...+. /althing.v1.Lifecycle/AcceptGenesis
...+. /althing.v1.Lifecycle/DropGenesis
...+. /althing.v1.Lifecycle/StartChain
...+. /althing.v1.Lifecycle/GetVoterReport
...+. /althing.v1.Lifecycle/GetRecoveryReport
...+. /althing.v1.Lifecycle/AcceptRecovery
...+. /althing.v1.Lifecycle/CompleteRecovery
.+.+. /althing.v1.Votes/StreamVotes
++... /althing.v1.Peer/Connect
+++++ /grpc.health.v1.Health/Check
+++++ /grpc.health.v1.Health/Watch
..+++ /grpc.reflection.v1.ServerReflection/ServerReflectionInfo
";

#[test]
fn every_role_may_make_exactly_the_calls_of_the_table() {
    let mut actual = String::from("\nVOGPC\n");
    for rule in METHODS {
        let marks: String = ROLES.iter().map(|role| if may_call(*role, rule.path) { '+' } else { '.' }).collect();
        actual.push_str(&format!("{marks} {}\n", rule.path));
    }
    assert_eq!(actual, EXPECTED);
}

#[test]
fn every_method_of_the_descriptors_is_in_the_table_and_the_table_names_no_other() {
    let mut described = BTreeSet::new();
    for bytes in
        [FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET]
    {
        let set = FileDescriptorSet::decode(bytes).expect("descriptors decode");
        for file in set.file {
            for service in &file.service {
                for method in &service.method {
                    described.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
    }
    let table: BTreeSet<String> = METHODS.iter().map(|rule| rule.path.to_owned()).collect();
    assert_eq!(table.len(), METHODS.len(), "a path stands twice in the table");
    assert_eq!(table, described);
}

#[test]
fn a_call_that_is_not_in_the_table_is_refused_to_every_role() {
    for path in ["", "/", "/althing.v1.Lifecycle", "/althing.v1.Lifecycle/startChain", "/althing.v1.Node/GetStatus/"] {
        for role in ROLES {
            assert!(!may_call(role, path), "{role} may call {path:?}");
        }
    }
}

#[test]
fn an_id_reads_back_as_it_was_written() {
    let identity = "ab".repeat(32);
    for (role, name) in
        [(Role::Validator, identity.as_str()), (Role::Observer, &identity), (Role::Client, "demo.user_1-a")]
    {
        let chain_id = ChainId::new("demo-main").expect("a chain id");
        let id = SpiffeId::new(&chain_id, role, name).expect("valid");
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_eq!((id.chain_id(), id.role(), id.name()), (&chain_id, role, name));
    }
}

#[test]
fn an_id_of_another_form_is_refused_with_the_reason() {
    let cases = [
        ("https://demo/client/a", "\"https://demo/client/a\" is not of the form spiffe://<chain id>/<role>/<id>"),
        ("spiffe://demo/client", "\"spiffe://demo/client\" is not of the form spiffe://<chain id>/<role>/<id>"),
        ("spiffe://demo/client/a/b", "\"spiffe://demo/client/a/b\" is not of the form spiffe://<chain id>/<role>/<id>"),
        (
            "spiffe://Demo/client/a",
            "\"Demo\" is not a chain id: 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends",
        ),
        ("spiffe://demo/root/a", "\"root\" is not a role: validator, observer, gateway, operator, client"),
        ("spiffe://demo/client/", "\"\" is not a name: 1 to 128 of a-z, A-Z, 0-9, '.', '_' and '-'"),
        ("spiffe://demo/client/a%2fb", "\"a%2fb\" is not a name: 1 to 128 of a-z, A-Z, 0-9, '.', '_' and '-'"),
        ("spiffe://demo/validator/a", "\"a\" is not the identity of a validator: 64 lower-case hex digits"),
    ];
    for (uri, reason) in cases {
        assert_eq!(uri.parse::<SpiffeId>().expect_err(uri).to_string(), reason);
    }
}
