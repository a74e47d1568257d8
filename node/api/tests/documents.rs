//! Key files, the genesis document, transactions and certificates as they are written and read.

use std::fs;

use node_api::{
    genesis, keys,
    pki::{CertificateAuthority, LeafFacts, PkiError, Validity, is_issued_by},
    roles::{Role, SpiffeId},
    transactions::{KeepTerms, RotationRequest, TransferTerms, keep_session, rotate_session, transfer},
};
use node_core::{
    crypto::{KeyPair, SigningBytes, verify_transaction},
    types::{
        AccountId, Amount, CeremonyNonce, ChainId, Epoch, Genesis, GenesisDraft, GenesisVoter, Governance,
        GovernanceKey, Height, Identity, Incarnation, Nonce, Parameters, ParametersDraft, Payload, Power, SessionKey,
        TimeMs, VoterEntry,
    },
};

const GENESIS_JSON: &str = include_str!("../testdata/genesis.json");
const GENESIS_HASH: &str = include_str!("../testdata/genesis.hash");

/// The first key of RFC 8410, section 10.3.
const RFC_8410_V1: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
/// The same key with its public part and an attribute.
const RFC_8410_V2: &str = "-----BEGIN PRIVATE KEY-----
MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB
Z9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PRIVATE KEY-----
";

fn key(number: u8) -> KeyPair {
    KeyPair::from_seed([number; 32])
}

fn demo_genesis() -> Genesis {
    let chain_id = ChainId::new("demo-main").expect("a chain id");
    let ceremony = CeremonyNonce::new([7; 32]);
    let voters = [1, 2].map(|number| {
        let identity = Identity::new(key(number).public());
        let session = key(number + 100);
        let session_key = SessionKey::new(session.public());
        let bytes = SigningBytes::genesis_possession(&chain_id, &ceremony, &identity, &session_key);
        let entry = VoterEntry { identity, power: Power::new(10), session_key, epoch: Epoch::FIRST };
        GenesisVoter { entry, possession: session.sign(&bytes) }
    });
    let draft = GenesisDraft {
        chain_id,
        time: TimeMs::new(1_760_000_000_000),
        protocol_version: 1,
        state_version: 1,
        ceremony,
        voters: voters.to_vec(),
        accounts: vec![(AccountId::new(key(50).public()), Amount::new(1_000_000))],
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(key(60).public())] },
        parameters: Parameters::new(ParametersDraft::default()).expect("the default is valid"),
    };
    Genesis::new(draft).expect("a genesis")
}

#[test]
fn the_genesis_document_keeps_its_form_and_hash() {
    let genesis = demo_genesis();
    if std::env::var_os("ALTHING_WRITE_TESTDATA").is_some() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
        fs::write(format!("{directory}/genesis.json"), genesis::to_json(&genesis)).expect("written");
        fs::write(format!("{directory}/genesis.hash"), format!("{}\n", genesis.hash())).expect("written");
        return;
    }
    assert_eq!(genesis::to_json(&genesis), GENESIS_JSON);
    assert_eq!(format!("{}\n", genesis.hash()), GENESIS_HASH);
    assert_eq!(genesis::from_json(GENESIS_JSON).expect("reads"), genesis);
}

#[test]
fn a_changed_genesis_document_is_refused_with_the_reason() {
    let cases = [
        ("\"version\": 1", "\"version\": 2", "the genesis document has version 2, this program reads 1"),
        ("\"demo-main\"", "\"Demo\"", "genesis document: not a valid ChainId: \"Demo\""),
        ("\"stateVersion\"", "\"stateversion\"", "failed to read the genesis document: unknown field `stateversion`"),
        (
            "\"threshold\": 1",
            "\"threshold\": 2",
            "genesis document: governance threshold 2 does not fit 1 different keys",
        ),
        ("\"demo-main\"", "\"demo-other\"", "does not prove that it holds its session key"),
        ("\"blockIntervalMs\": 1000", "\"blockIntervalMs\": 0", "genesis document: parameter block_interval_ms is 0"),
    ];
    for (from, to, reason) in cases {
        let text = GENESIS_JSON.replacen(from, to, 1);
        assert_ne!(text, GENESIS_JSON, "{from} is in the document");
        let error = genesis::from_json(&text).expect_err(to).to_string();
        assert!(error.contains(reason), "{to}: {error}");
    }
}

#[test]
fn keys_of_both_versions_are_read_and_version_1_is_written() {
    let public = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    for pem in [RFC_8410_V1, RFC_8410_V2] {
        let key = keys::from_pem(pem).expect("reads");
        assert_eq!(Identity::new(key.public()).to_string(), public);
        assert_eq!(*keys::to_pem(&key), RFC_8410_V1);
    }
    let mixed = RFC_8410_V2.replace("Z9w7lshQhqowtrbLDFw4rXAxZuE=", "Z9w7lshQhqowtrbLDFw4rXAxZuA=");
    assert_eq!(keys::from_pem(&mixed), Err(keys::KeyFormError::OtherPublicKey));
    for bad in ["", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", &RFC_8410_V1.replace("K2Vw", "K2Vu")] {
        assert!(keys::from_pem(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_key_file_is_for_its_owner_only_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("identity.pem");
    let key = keys::generate().expect("randomness");
    keys::write_key_file(&path, &key).expect("written");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    keys::write_key_file(&path, &keys::generate().expect("randomness")).expect_err("a key is there");
    assert_eq!(keys::read_key_file(&path).expect("reads").public(), key.public());
}

#[test]
fn built_transactions_verify() {
    let (incarnation, valid_until) = (Incarnation::new([9; 32]), Height::new(90));
    let (identity, current, new) = (key(1), key(2), key(3));
    let terms = TransferTerms {
        incarnation,
        nonce: Nonce::new(4),
        valid_until,
        to: AccountId::new(key(5).public()),
        amount: Amount::new(6),
    };
    let request = RotationRequest {
        incarnation,
        epoch: Epoch::new(2),
        valid_until,
        identity: &identity,
        new_key: &new,
        current_key: None,
    };
    let keep = KeepTerms {
        incarnation,
        identity: Identity::new(identity.public()),
        voided_epoch: Epoch::new(2),
        voided_key: SessionKey::new(new.public()),
        valid_until,
    };
    let co_signed = rotate_session(&RotationRequest { current_key: Some(&current), ..request });
    let Payload::RotateSession(rotation) = &co_signed.body().payload else { panic!("a rotation") };
    assert!(rotation.co_signature.is_some());
    for transaction in
        [transfer(&key(4), &terms), rotate_session(&request), co_signed.clone(), keep_session(&current, &keep)]
    {
        verify_transaction(transaction).expect("verifies");
    }
}

#[test]
fn certificates_say_what_was_asked_for() {
    let validity = Validity::new(1_000_000_000, 1_000_000_300).expect("ordered");
    assert_eq!(validity.renew_at_s(), 1_000_000_200);
    assert_eq!(Validity::new(5, 5), Err(PkiError::Validity { not_before_s: 5, not_after_s: 5 }));
    let authority = CertificateAuthority::generate("demo", validity).expect("an authority");
    let again = CertificateAuthority::from_pem(authority.certificate_pem(), authority.key_pem()).expect("reads");
    assert_eq!(again.validity(), validity);
    let id = SpiffeId::new(&ChainId::new("demo").expect("a chain id"), Role::Client, "user").expect("an id");
    let leaf = again.issue(&id, validity).expect("a certificate");
    assert_eq!(LeafFacts::from_pem(&leaf.certificate_pem).expect("reads"), leaf.facts);
    assert_eq!((&leaf.facts.id, leaf.facts.validity), (&id, validity));

    let other = CertificateAuthority::generate("other", validity).expect("an authority");
    let both = format!("{}{}", other.certificate_pem(), authority.certificate_pem());
    let issued_by = |authorities: &str, now| is_issued_by(&leaf.certificate_pem, authorities, now).expect("reads");
    assert!(issued_by(authority.certificate_pem(), 1_000_000_100));
    assert!(issued_by(&both, 1_000_000_100));
    assert!(!issued_by(other.certificate_pem(), 1_000_000_100));
    assert!(!issued_by(authority.certificate_pem(), 1_000_000_301));
    assert_eq!(
        CertificateAuthority::from_pem(authority.certificate_pem(), other.key_pem()).err(),
        Some(PkiError::KeyMismatch)
    );
    assert_eq!(LeafFacts::from_pem(authority.certificate_pem()), Err(PkiError::UriNames { count: 0 }));
}
