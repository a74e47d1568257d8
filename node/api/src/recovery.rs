//! Recovery manifests between people: what the nodes report, what governance signs, what the nodes accept.

use std::collections::BTreeMap;

use node_core::{
    codec::{Decode, DecodeError, Encode},
    crypto::{KeyPair, SigningBytes},
    types::{
        ChainId, Epoch, Height, Identity, Incarnation, InvalidIdentifier, ManifestSignature, RecoveredVoter, Recovery,
        RecoveryError, RecoveryManifest, Signature,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    fields::{self, FieldError},
    proto,
};

/// Largest document that is read.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Why reports or a document are no recovery.
#[derive(Debug, Error)]
pub enum RecoveryDocumentError {
    /// It is not JSON of the right form.
    #[error("not a recovery document: {0}")]
    Json(#[from] serde_json::Error),
    /// The bytes in it are not hexadecimal.
    #[error("the recovery is not hexadecimal")]
    Hex,
    /// The bytes in it are no recovery.
    #[error("the recovery cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// A node's answer has another form.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A node's answer has another form.
    #[error(transparent)]
    Identifier(#[from] InvalidIdentifier),
    /// The parts do not make a recovery.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// Two nodes say different things.
    #[error(
        "node {first} and node {second} differ in {what}: wait until all nodes hold the same last block, then collect again"
    )]
    Differ {
        /// One node.
        first: Identity,
        /// Another.
        second: Identity,
        /// In what.
        what: &'static str,
    },
    /// Nobody was asked.
    #[error("no node was asked")]
    NoReports,
}

/// Makes a manifest of what the nodes report.
pub fn collect(reports: &[proto::RecoveryReport]) -> Result<Recovery, RecoveryDocumentError> {
    let first = reports.first().ok_or(RecoveryDocumentError::NoReports)?;
    let mut voters = BTreeMap::new();
    for report in reports {
        check_same(first, report)?;
        if report.session_key.is_empty() {
            continue;
        }
        let identity = fields::identity("identity", &report.identity)?;
        let voter = RecoveredVoter {
            identity,
            epoch: Epoch::new(report.epoch),
            session_key: fields::session_key("session_key", &report.session_key)?,
            possession: fields::signature("possession", &report.possession)?,
        };
        voters.insert(identity, voter);
    }
    let manifest = RecoveryManifest {
        chain_id: ChainId::new(&first.chain_id)?,
        genesis: fields::hash("genesis_hash", &first.genesis_hash)?,
        number: first.number,
        parent: Incarnation::new(fields::array("parent", &first.parent)?),
        height: Height::new(first.height),
        block: fields::hash("block_hash", &first.block_hash)?,
        state_root: fields::hash("state_root", &first.state_root)?,
        voters: voters.into_values().collect(),
    };
    Ok(Recovery::new(manifest, Vec::new(), Vec::new())?)
}

fn check_same(first: &proto::RecoveryReport, second: &proto::RecoveryReport) -> Result<(), RecoveryDocumentError> {
    let differences = [
        ("the chain", first.chain_id != second.chain_id || first.genesis_hash != second.genesis_hash),
        ("the number of recoveries", first.number != second.number || first.parent != second.parent),
        ("the last height", first.height != second.height),
        ("the last block", first.block_hash != second.block_hash),
        ("the state", first.state_root != second.state_root),
    ];
    match differences.into_iter().find(|(_, differ)| *differ) {
        None => Ok(()),
        Some((what, _)) => Err(RecoveryDocumentError::Differ {
            first: fields::identity("identity", &first.identity)?,
            second: fields::identity("identity", &second.identity)?,
            what,
        }),
    }
}

/// The same recovery with the approval of one governance key more.
pub fn with_approval(recovery: &Recovery, key: &KeyPair) -> Result<Recovery, RecoveryError> {
    let manifest = recovery.manifest().clone();
    let signature = key.sign(&SigningBytes::recovery_approval(&manifest.hash()));
    let mut approvals = without(recovery.approvals(), &key.public());
    approvals.push(ManifestSignature { key: key.public(), signature });
    Recovery::new(manifest, approvals, recovery.acceptances().to_vec())
}

/// The same recovery with the acceptance of one identity more.
pub fn with_acceptance(
    recovery: &Recovery,
    identity: &Identity,
    signature: Signature,
) -> Result<Recovery, RecoveryError> {
    let mut acceptances = without(recovery.acceptances(), identity.as_bytes());
    acceptances.push(ManifestSignature { key: *identity.as_bytes(), signature });
    Recovery::new(recovery.manifest().clone(), recovery.approvals().to_vec(), acceptances)
}

fn without(signatures: &[ManifestSignature], key: &[u8; 32]) -> Vec<ManifestSignature> {
    signatures.iter().filter(|signature| signature.key != *key).copied().collect()
}

/// A recovery on its way between people. Only `recovery` counts; the rest is for people, and must agree with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecoveryDocument {
    chain_id: String,
    number: u32,
    manifest_hash: String,
    height: u64,
    block: String,
    state_root: String,
    voters: Vec<VoterDocument>,
    approved_by: Vec<String>,
    accepted_by: Vec<String>,
    recovery: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VoterDocument {
    identity: String,
    epoch: u64,
    session_key: String,
}

impl RecoveryDocument {
    /// The document of a recovery.
    pub fn new(recovery: &Recovery) -> Self {
        let manifest = recovery.manifest();
        let keys = |signatures: &[ManifestSignature]| {
            signatures.iter().map(|signature| hex::encode(signature.key)).collect::<Vec<_>>()
        };
        let voter = |voter: &RecoveredVoter| VoterDocument {
            identity: voter.identity.to_string(),
            epoch: voter.epoch.get(),
            session_key: voter.session_key.to_string(),
        };
        Self {
            chain_id: manifest.chain_id.to_string(),
            number: manifest.number,
            manifest_hash: manifest.hash().to_string(),
            height: manifest.height.get(),
            block: manifest.block.to_string(),
            state_root: manifest.state_root.to_string(),
            voters: manifest.voters.iter().map(voter).collect(),
            approved_by: keys(recovery.approvals()),
            accepted_by: keys(recovery.acceptances()),
            recovery: hex::encode(recovery.encode()),
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers are always JSON")
    }

    /// Reads a document. What it says in words must be what the recovery does.
    pub fn read(text: &str) -> Result<Recovery, RecoveryDocumentError> {
        let document: Self = serde_json::from_str(text)?;
        let bytes = hex::decode(&document.recovery).map_err(|_| RecoveryDocumentError::Hex)?;
        let recovery = Recovery::decode(&bytes)?;
        if Self::new(&recovery) == document {
            return Ok(recovery);
        }
        let difference = "what it says about the recovery is not what the recovery does";
        Err(RecoveryDocumentError::Json(serde::de::Error::custom(difference)))
    }
}

#[cfg(test)]
mod tests {
    use node_core::{crypto::KeyPair, types::Identity};

    use super::{RecoveryDocument, RecoveryDocumentError, collect, with_approval};
    use crate::proto::RecoveryReport;

    fn report(identity: u8) -> RecoveryReport {
        RecoveryReport {
            chain_id: "demo".to_owned(),
            genesis_hash: vec![1; 32],
            number: 1,
            parent: vec![1; 32],
            height: 9,
            block_hash: vec![2; 32],
            state_root: vec![3; 32],
            identity: vec![identity; 32],
            epoch: 2,
            session_key: vec![identity + 10; 32],
            possession: vec![0; 64],
        }
    }

    #[test]
    fn a_document_gathers_approvals_and_shows_the_manifest() {
        let mut recovery = collect(&[report(2), report(1)]).expect("the reports agree");
        for seed in [1, 2, 1] {
            let text = RecoveryDocument::new(&recovery).to_json();
            let read = RecoveryDocument::read(&text).expect("the document is whole");
            recovery = with_approval(&read, &KeyPair::from_seed([seed; 32])).expect("there is room");
        }
        assert_eq!((recovery.approvals().len(), recovery.manifest().voters.len()), (2, 2));
        let text = RecoveryDocument::new(&recovery).to_json().replace("\"height\": 9", "\"height\": 8");
        assert!(matches!(RecoveryDocument::read(&text), Err(RecoveryDocumentError::Json(_))));
    }

    #[test]
    fn nodes_with_another_last_block_make_no_manifest() {
        let other = RecoveryReport { block_hash: vec![9; 32], ..report(2) };
        let refused = collect(&[report(1), other]).expect_err("they differ");
        let second = Identity::new([2; 32]);
        assert!(refused.to_string().contains(&format!("node {second} differ in the last block")), "{refused}");
    }
}
