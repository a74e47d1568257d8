//! One example of every document, signing bytes and hash, for the frozen files.

use super::{Decode, DecodeError};
use crate::{
    crypto::SigningBytes,
    fixtures::{
        Rotation, account, block, genesis, govern, governance_pair, identity, identity_pair, new_voter, session_key,
        session_pair, transfer, uid,
    },
    ledger::{Account, Chain, Consent, PendingParameters, PendingRotation, PendingRotations, Progress},
    light::LightBlock,
    session::{KeyList, NewKey, Owner, RecordEntry, SigningRecord, Slot},
    sync::StateManifest,
    types::{
        Amount, Batch, BatchAcknowledgement, CertifiedBlock, CommitCertificate, CommitSignature, Epoch, FailureReason,
        Governance, GovernanceChange, Hash, Height, Incarnation, ManifestSignature, Nonce, OperationsRange,
        PeerAddress, PeerMessage, PeerRecord, PendingSets, Power, Proposal, ProposedBlock, ProposedHeader, Receipt,
        ReceiptStatus, RecoveredVoter, Recovery, RecoveryManifest, Results, Round, RoundCertificate, RoundSignature,
        Signature, SignedPeerRecord, StateRoots, Step, TimeMs, Transaction, UnsignedProposal, UnsignedVote, Vote,
        VoteKind, merkle_root, voters_hash,
    },
};

/// A document: its name, its bytes, and a function that decodes bytes and encodes the result again.
pub struct Sample {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub again: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

fn sample<T: Decode>(name: &'static str, value: &T) -> Sample {
    Sample { name, bytes: value.encode(), again: |bytes| T::decode(bytes).map(|value| value.encode()) }
}

fn incarnation() -> Incarnation {
    genesis(&[1, 1, 1, 1]).incarnation()
}

fn co_signed() -> Rotation {
    Rotation { n: 1, epoch: 2, co_signer: Some(session_pair(1, 1)), valid_until: 50 }
}

fn transactions() -> Vec<Transaction> {
    let rotation = Rotation { n: 2, epoch: 2, co_signer: None, valid_until: 60 };
    vec![
        transfer(incarnation(), "alice", "bob", 0, 5),
        co_signed().transaction(incarnation()),
        rotation.transaction(incarnation()),
        rotation.objection(incarnation(), &session_pair(2, 1)),
    ]
}

/// One governance transaction of each kind.
fn governance() -> Vec<(&'static str, Transaction)> {
    let genesis = genesis(&[1, 1, 1, 1]);
    let voter = new_voter(incarnation(), 4, 1, 3);
    let keys = genesis.governance.keys.clone();
    let changes = [
        ("transaction-add-voter", GovernanceChange::AddVoter(voter)),
        ("transaction-replace-voter", GovernanceChange::ReplaceVoter { former: identity(1), voter }),
        ("transaction-remove-voter", GovernanceChange::RemoveVoter { identity: identity(1) }),
        ("transaction-set-power", GovernanceChange::SetPower { identity: identity(1), power: Power::new(2) }),
        ("transaction-set-parameters", GovernanceChange::SetParameters(genesis.parameters.clone())),
        ("transaction-set-keys", GovernanceChange::SetKeys(Governance { threshold: 1, keys })),
    ];
    let signers = [governance_pair(0), governance_pair(1)];
    let sign = |(nonce, (name, change))| (name, govern(incarnation(), nonce, change, &signers));
    (0..).zip(changes).map(sign).collect()
}

/// A recovery that everybody has signed.
fn recovery() -> Recovery {
    let genesis = genesis(&[1, 1, 1, 1]);
    let mut voters: Vec<RecoveredVoter> = [1, 2]
        .map(|n| RecoveredVoter {
            identity: identity(n),
            epoch: Epoch::new(2),
            session_key: session_key(n, 2),
            possession: Signature::new([n as u8; 64]),
        })
        .into();
    voters.sort_by_key(|voter| voter.identity);
    let manifest = RecoveryManifest {
        chain_id: genesis.chain_id.clone(),
        genesis: genesis.hash(),
        number: 1,
        parent: genesis.incarnation(),
        height: Height::new(9),
        block: hash(3),
        state_root: hash(1),
        voters,
    };
    let signature = |byte| ManifestSignature { key: [byte; 32], signature: Signature::new([byte; 64]) };
    Recovery::new(manifest, vec![signature(5)], vec![signature(6), signature(7)]).unwrap()
}

fn hash(byte: u8) -> Hash {
    Hash::new([byte; 32])
}

fn unsigned_vote(kind: VoteKind, value: Option<Hash>) -> UnsignedVote {
    UnsignedVote { kind, height: Height::new(9), round: Round::new(1), value, voter: identity(1) }
}

fn vote() -> Vote {
    let vote = unsigned_vote(VoteKind::Precommit, Some(hash(3)));
    let signature = session_pair(1, 1).sign(&SigningBytes::vote(&incarnation(), Epoch::FIRST, &vote));
    Vote { vote, epoch: Epoch::FIRST, signature }
}

fn unsigned_proposal(pol_round: Option<Round>, value: Hash) -> UnsignedProposal {
    UnsignedProposal { height: Height::new(9), round: Round::new(2), pol_round, value, proposer: identity(0) }
}

fn certificate() -> CommitCertificate {
    let signature =
        |n| CommitSignature { voter: identity(n), epoch: Epoch::FIRST, signature: Signature::new([n as u8; 64]) };
    CommitCertificate::new(Height::new(9), Round::new(1), hash(3), vec![signature(0), signature(1), signature(2)])
        .unwrap()
}

fn results() -> Results {
    let operations_range = OperationsRange { start: 4, end: 77 };
    let roots = StateRoots { state_root: hash(1), operations_root: hash(2), operations_range };
    Results { roots, receipts_root: hash(4) }
}

fn receipt(status: ReceiptStatus) -> Receipt {
    let transaction = transfer(incarnation(), "alice", "bob", 0, 5).id();
    Receipt { transaction, height: Height::new(9), index: 7, status }
}

fn key_list() -> KeyList {
    let owner = Owner {
        pod: uid("pod"),
        container_start: TimeMs::new(1_790_000_000_123),
        boot: Some(uid("boot")),
        machine: Some(uid("machine")),
    };
    let mut list = KeyList::new();
    let first = NewKey { seed: [1; 32], epoch: Epoch::new(1), claim: Some(uid("claim")), owner };
    let key = list.make(first).unwrap().session_key();
    list.mark_effective(&key).unwrap();
    list.release(&owner);
    let sandboxed = Owner { boot: None, machine: None, ..owner };
    list.make(NewKey { seed: [2; 32], epoch: Epoch::new(2), claim: None, owner: sandboxed }).unwrap();
    list
}

fn record() -> SigningRecord {
    let mut record = SigningRecord::new();
    for (height, round, step) in [(8, 0, Step::Precommit), (9, 0, Step::Prevote), (9, 1, Step::Propose)] {
        let slot = Slot { height: Height::new(height), round: Round::new(round), step };
        record.add(RecordEntry::new(slot, b"signed")).unwrap();
    }
    record
}

fn rotations() -> PendingRotations {
    let rotation = |n, consent| PendingRotation {
        identity: identity(n),
        epoch: Epoch::new(2),
        new_key: session_key(n, 2),
        executed: Height::new(8),
        consent,
    };
    PendingRotations { rotations: vec![rotation(1, Consent::CoSigned), rotation(2, Consent::IdentityOnly)] }
}

fn chain() -> Chain {
    let genesis = genesis(&[1, 1, 1, 1]);
    Chain {
        incarnation: genesis.incarnation(),
        chain_id: genesis.chain_id.clone(),
        protocol_version: 1,
        state_version: 1,
        governance: genesis.governance.clone(),
        parameters: genesis.parameters.clone(),
    }
}

/// Everything that is stored, hashed or sent.
pub fn documents() -> Vec<Sample> {
    let genesis = genesis(&[1, 1, 1, 1]);
    let block = block(9, hash(5), transactions());
    let progress = Progress {
        height: Height::new(9),
        block: block.hash(),
        time: block.header().time,
        receipts_root: hash(4),
        results_before: results(),
    };
    let account = Account { nonce: Nonce::new(3), balance: Amount::new(500) };
    let light_block = LightBlock {
        header: block.header().clone(),
        certificate: certificate(),
        voters: genesis.voter_set().clone(),
        next_voters: genesis.voter_set().clone(),
    };
    let state_manifest = StateManifest {
        chain_id: genesis.chain_id.clone(),
        genesis: genesis.hash(),
        path: vec![light_block.clone()],
        block: CertifiedBlock { block: block.clone(), certificate: certificate() },
    };
    let mut samples = vec![
        sample("genesis", &genesis),
        sample("parameters", &genesis.parameters),
        sample("voter-set", genesis.voter_set()),
        sample("pending-sets", &PendingSets::from_genesis(genesis.voter_set())),
        sample("header", block.header()),
        sample("batch", &block.batches()[0]),
        sample("block", &block),
        sample("results", &results()),
        sample("certificate", &certificate()),
        sample("light-block", &light_block),
        sample("state-manifest", &state_manifest),
        sample("vote", &vote()),
        sample("receipt-executed", &receipt(ReceiptStatus::Executed)),
        sample("receipt-failed", &receipt(ReceiptStatus::Failed(FailureReason::BalanceTooSmall))),
        sample("state-chain", &chain()),
        sample("state-progress", &progress),
        sample("state-account", &account),
        sample("state-rotations", &rotations()),
        sample("key-list", &key_list()),
        sample("signing-record", &record()),
        sample("peer-record", &peer_record()),
    ];
    let names = ["transaction-transfer", "transaction-rotate-co-signed", "transaction-rotate", "transaction-keep"];
    samples.extend(names.into_iter().zip(transactions()).map(|(name, transaction)| sample(name, &transaction)));
    samples.extend(governance().iter().map(|(name, transaction)| sample(name, transaction)));
    let pending = PendingParameters { counts_from: Height::new(12), parameters: genesis.parameters.clone() };
    samples.push(sample("state-parameters", &pending));
    samples.push(sample("recovery", &recovery()));
    samples.push(sample("receipt-governance", &receipt(ReceiptStatus::Failed(FailureReason::ChangeTooLarge))));
    samples.extend(messages());
    samples
}

fn peer_record() -> SignedPeerRecord {
    let addresses = ["node-1.example.org:7100", "[::1]:7100"].map(|text| PeerAddress::new(text).unwrap());
    let record = PeerRecord {
        incarnation: incarnation(),
        identity: identity(1),
        tls_key: hash(3),
        addresses: addresses.into(),
        sequence: 1_790_000_000_123,
        expires: TimeMs::new(1_790_007_200_123),
    };
    let bytes = SigningBytes::peer_record(&record.incarnation, &record.identity, &record.hash());
    let signature = identity_pair(1).sign(&bytes);
    SignedPeerRecord { record, signature }
}

fn messages() -> Vec<Sample> {
    let block = block(9, hash(5), transactions());
    let proposal = Proposal {
        proposal: unsigned_proposal(Some(Round::new(1)), block.hash()),
        epoch: Epoch::FIRST,
        signature: Signature::new([9; 64]),
    };
    let signature = RoundSignature {
        kind: VoteKind::Prevote,
        value: None,
        voter: identity(1),
        epoch: Epoch::FIRST,
        signature: Signature::new([8; 64]),
    };
    let round = RoundCertificate { height: Height::new(9), round: Round::new(3), signatures: vec![signature] };
    let blocks = vec![CertifiedBlock { block: block.clone(), certificate: certificate() }];
    let nonce = crate::types::CeremonyNonce::new([6; 32]);
    let request = PeerMessage::NewestVoteRequest { nonce, voter: identity(1), session_key: session_key(1, 1) };
    let response = PeerMessage::NewestVoteResponse { nonce, vote: Some(vote()), certificate: Some(certificate()) };
    let acknowledgement = BatchAcknowledgement {
        batch: hash(3),
        voter: identity(1),
        epoch: Epoch::FIRST,
        signature: Signature::new([7; 64]),
    };
    let batch = block.batches()[0].clone();
    let header = ProposedHeader::new(proposal, &block, |_| true);
    let piece = PeerMessage::StatePiece { height: Height::new(9), number: 4, bytes: vec![1, 2, 3] };
    vec![
        sample("message-batch", &PeerMessage::Batch(batch)),
        sample("message-batch-acknowledgements", &PeerMessage::BatchAcknowledgements(vec![acknowledgement])),
        sample("message-batches-request", &PeerMessage::BatchesRequest(vec![hash(3), hash(4)])),
        sample("message-proposed-header", &PeerMessage::ProposedHeader(Box::new(header))),
        sample("message-proposal", &PeerMessage::Proposal(Box::new(ProposedBlock { proposal, block }))),
        sample("message-vote", &PeerMessage::Vote(vote())),
        sample("message-round-certificate", &PeerMessage::RoundCertificate(round)),
        sample("message-status", &PeerMessage::Status { height: Height::new(9) }),
        sample("message-blocks-request", &PeerMessage::BlocksRequest { from: Height::new(9), count: 3 }),
        sample("message-blocks-response", &PeerMessage::BlocksResponse { blocks }),
        sample("message-blocks-pruned", &PeerMessage::BlocksPruned { first: Height::new(9) }),
        sample("message-state-request", &PeerMessage::StateRequest),
        sample("message-state-manifest", &PeerMessage::StateManifest(vec![1, 2, 3])),
        sample("message-state-piece-request", &PeerMessage::StatePieceRequest { height: Height::new(9), number: 4 }),
        sample("message-state-piece", &piece),
        sample("message-transactions", &PeerMessage::Transactions(transactions())),
        sample("message-peer-records", &PeerMessage::PeerRecords(vec![peer_record()])),
        sample("message-newest-vote-request", &request),
        sample("message-newest-vote-response", &response),
    ]
}

/// The signing bytes of every domain.
pub fn signing_bytes() -> Vec<(&'static str, Vec<u8>)> {
    let genesis = genesis(&[1, 1, 1, 1]);
    let incarnation = genesis.incarnation();
    let (identity, key, epoch) = (identity(1), session_key(1, 1), Epoch::new(4));
    let terms = co_signed().terms(incarnation);
    let transfer = transfer(incarnation, "alice", "bob", 0, 5);
    let proposal = |pol_round| SigningBytes::proposal(&incarnation, epoch, &unsigned_proposal(pol_round, hash(3)));
    let vote = |kind, value| SigningBytes::vote(&incarnation, epoch, &unsigned_vote(kind, value));
    vec![
        ("proposal", proposal(None)),
        ("proposal-again", proposal(Some(Round::new(1)))),
        ("prevote", vote(VoteKind::Prevote, Some(hash(3)))),
        ("prevote-nil", vote(VoteKind::Prevote, None)),
        ("precommit", vote(VoteKind::Precommit, Some(hash(3)))),
        ("precommit-nil", vote(VoteKind::Precommit, None)),
        ("genesis-possession", SigningBytes::genesis_possession(&genesis.chain_id, &genesis.ceremony, &identity, &key)),
        ("genesis-acceptance", SigningBytes::genesis_acceptance(&genesis.hash(), &identity, &key)),
        ("rotation-possession", SigningBytes::rotation_possession(&terms)),
        ("voter-possession", SigningBytes::voter_possession(&incarnation, &identity, epoch, &key)),
        ("recovery-possession", SigningBytes::recovery_possession(&incarnation, 1, &identity, epoch, &key)),
        ("recovery-approval", SigningBytes::recovery_approval(&hash(3))),
        ("recovery-acceptance", SigningBytes::recovery_acceptance(&hash(3), &identity)),
        ("rotate-session", SigningBytes::rotate_session(&terms)),
        ("keep-session", SigningBytes::keep_session(&terms)),
        ("transaction", SigningBytes::transaction(transfer.body())),
        ("batch-acknowledgement", SigningBytes::batch_acknowledgement(&incarnation, &identity, epoch, &hash(3))),
        ("peer-record", SigningBytes::peer_record(&incarnation, &identity, &hash(3))),
    ]
}

/// The hashes that name things.
pub fn hashes() -> Vec<(&'static str, String)> {
    let genesis = genesis(&[1, 1, 1, 1]);
    let block = block(9, hash(5), transactions());
    let voters = genesis.voter_set();
    let leaves: Vec<Hash> = (1..=5).map(hash).collect();
    vec![
        ("genesis", genesis.hash().to_string()),
        ("parameters", genesis.parameters.hash().to_string()),
        ("voter-set", voters.hash().to_string()),
        ("voters", voters_hash(voters, voters).to_string()),
        ("header", block.hash().to_string()),
        ("batch", block.batches()[0].digest().to_string()),
        ("empty-batch", Batch::default().digest().to_string()),
        ("transaction", transactions()[0].id().to_string()),
        ("receipt", receipt(ReceiptStatus::Executed).hash().to_string()),
        ("merkle-root-of-five", merkle_root(&leaves).to_string()),
        ("account-alice", account("alice").to_string()),
        ("recovery-manifest", recovery().manifest().hash().to_string()),
        ("peer-record", peer_record().record.hash().to_string()),
        ("account-governance", crate::types::AccountId::governance().to_string()),
    ]
}
