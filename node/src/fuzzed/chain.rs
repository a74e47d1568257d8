//! Everything in the fixed layout: what travels between nodes, what is hashed and signed, what the state holds.

use std::sync::LazyLock;

use node_api::{genesis, governance::TransactionDocument, proto, recovery::RecoveryDocument};
use node_core::{
    codec::Decode,
    consensus::LogEntry,
    crypto::{verify_batch, verify_genesis, verify_peer_record, verify_transaction, verify_transactions},
    ledger::{Account, Chain, PendingParameters, PendingRotations, Progress},
    light::{LightBlock, LightClient},
    session::{KeyList, SigningRecord},
    sync::StateManifest,
    types::{
        Batch, Block, CommitCertificate, Genesis, Header, Parameters, PeerMessage, PendingSets, Receipt, Recovery,
        Results, SignedPeerRecord, Transaction, Vote, VoterSet,
    },
};
use prost::Message as _;

use super::Target;

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", frozen: "", run: frame },
    Target { name: "message", frozen: "message", run: message },
    Target { name: "transaction", frozen: "transaction", run: transaction },
    Target { name: "batch", frozen: "batch", run: batch },
    Target { name: "block", frozen: "block", run: canonical::<Block> },
    Target { name: "header", frozen: "header", run: canonical::<Header> },
    Target { name: "certificate", frozen: "certificate", run: canonical::<CommitCertificate> },
    Target { name: "vote", frozen: "vote", run: canonical::<Vote> },
    Target { name: "voter-set", frozen: "voter-set", run: canonical::<VoterSet> },
    Target { name: "pending-sets", frozen: "pending-sets", run: canonical::<PendingSets> },
    Target { name: "genesis", frozen: "genesis", run: genesis_bytes },
    Target { name: "parameters", frozen: "parameters", run: canonical::<Parameters> },
    Target { name: "results", frozen: "results", run: canonical::<Results> },
    Target { name: "receipt", frozen: "receipt", run: canonical::<Receipt> },
    Target { name: "light-block", frozen: "light-block", run: light_block },
    Target { name: "state-manifest", frozen: "state-manifest", run: state_manifest },
    Target { name: "recovery", frozen: "recovery", run: recovery },
    Target { name: "peer-record", frozen: "peer-record", run: peer_record },
    Target { name: "key-list", frozen: "key-list", run: canonical::<KeyList> },
    Target { name: "signing-record", frozen: "signing-record", run: canonical::<SigningRecord> },
    Target { name: "log-entry", frozen: "", run: canonical::<LogEntry> },
    Target { name: "state-account", frozen: "state-account", run: canonical::<Account> },
    Target { name: "state-chain", frozen: "state-chain", run: canonical::<Chain> },
    Target { name: "state-parameters", frozen: "state-parameters", run: canonical::<PendingParameters> },
    Target { name: "state-progress", frozen: "state-progress", run: canonical::<Progress> },
    Target { name: "state-rotations", frozen: "state-rotations", run: canonical::<PendingRotations> },
];

/// The genesis that the frozen light block and manifest belong to.
static GENESIS: LazyLock<Option<Genesis>> = LazyLock::new(|| {
    let text: String = include_str!("../../core/testdata/genesis.hex").split_whitespace().collect();
    Genesis::decode(&hex::decode(text).ok()?).ok()
});

/// The frozen record, which is signed.
static RECORD: LazyLock<Option<SignedPeerRecord>> = LazyLock::new(|| {
    let text: String = include_str!("../../core/testdata/peer-record.hex").split_whitespace().collect();
    SignedPeerRecord::decode(&hex::decode(text).ok()?).ok()
});

/// Whatever decodes is the one encoding of what it decodes to.
fn read<T: Decode>(input: &[u8]) -> Option<T> {
    let value = T::decode(input).ok()?;
    assert!(value.encode() == input, "{} has two encodings", std::any::type_name::<T>());
    Some(value)
}

fn canonical<T: Decode>(input: &[u8]) {
    read::<T>(input);
}

/// What carries a message: protobuf has many encodings of one frame, so only the frame is compared.
fn frame(input: &[u8]) {
    let Ok(frame) = proto::Frame::decode(input) else { return };
    let again = proto::Frame::decode(frame.encode_to_vec().as_slice()).expect("what was written is read");
    assert_eq!(frame, again);
    message(&frame.body);
}

fn message(input: &[u8]) {
    let Some(message) = read::<PeerMessage>(input) else { return };
    match message {
        PeerMessage::Transactions(transactions) => drop(verify_transactions(transactions)),
        PeerMessage::Batch(batch) => drop(verify_batch(batch)),
        PeerMessage::StateManifest(bytes) => state_manifest(&bytes),
        _ => {}
    }
}

fn transaction(input: &[u8]) {
    let Some(transaction) = read::<Transaction>(input) else { return };
    let verified = verify_transaction(transaction.clone());
    let Ok(document) = TransactionDocument::new(&transaction) else { return };
    let shown = TransactionDocument::read(&document.to_json());
    assert!(verified.is_err() || shown.is_ok_and(|shown| shown == transaction), "its document says something else");
}

fn batch(input: &[u8]) {
    let Some(batch) = read::<Batch>(input) else { return };
    let digest = batch.digest();
    let verified = verify_batch(batch.into());
    assert!(verified.is_err() || verified.is_ok_and(|verified| verified.batch().digest() == digest));
}

fn genesis_bytes(input: &[u8]) {
    let Some(found) = read::<Genesis>(input) else { return };
    if verify_genesis(&found).is_ok() {
        let document = genesis::from_json(&genesis::to_json(&found));
        assert!(document.is_ok_and(|document| document == found), "its document says something else");
    }
}

/// Nobody can show a light client a header that the voters of its genesis did not sign.
fn light_block(input: &[u8]) {
    let (Some(block), Some(genesis)) = (read::<LightBlock>(input), &*GENESIS) else { return };
    let mut client = LightClient::new(genesis).expect("the frozen genesis holds together");
    assert!(client.advance(block).is_err(), "a header without signatures is believed");
}

fn state_manifest(input: &[u8]) {
    let (Some(manifest), Some(genesis)) = (read::<StateManifest>(input), &*GENESIS) else { return };
    let trusted = LightClient::new(genesis).expect("the frozen genesis holds together");
    let verified = manifest.verify(&genesis.chain_id, genesis.hash(), trusted);
    assert!(verified.is_err(), "a state without signatures is believed");
}

/// Whatever else the bytes of the frozen record can be made to say, nobody has signed that.
fn peer_record(input: &[u8]) {
    let Some(signed) = read::<SignedPeerRecord>(input) else { return };
    assert!(
        verify_peer_record(&signed).is_err() || Some(&signed) == RECORD.as_ref(),
        "a record that nobody signed counts"
    );
}

fn recovery(input: &[u8]) {
    let Some(found) = read::<Recovery>(input) else { return };
    let document = RecoveryDocument::read(&RecoveryDocument::new(&found).to_json());
    assert!(document.is_ok_and(|document| document == found), "its document says something else");
}
