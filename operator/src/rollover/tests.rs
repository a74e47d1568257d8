//! The replacement of an authority in a model of every order in which processes take up files, and the Secret through all its
//! stages.

use std::collections::{BTreeSet, VecDeque};

use althing_crds::{BlockchainNetwork, names};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use node_api::node_core::types::{ChainId, Identity};
use node_api::pki::CertificateAuthority;
use node_api::roles::{NodeRole, SpiffeId};
use node_api::tls::{AcceptLimits, Expected, TcpDialer, TlsDialer, TlsPem, TlsStore, incoming};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::certificates::{self, new_authority};

const NOW: u64 = 1_800_000_000;

fn made(second: u64) -> CertificateAuthority {
    new_authority("demo", NOW + second).expect("an authority")
}

fn trusting() -> Stage {
    Stage::Trusting { next: Arc::new(made(1)), hash: "new".to_string() }
}

fn signing() -> Stage {
    Stage::Signing { hash: "old".to_string() }
}

fn waits_for(who: &str) -> Vec<Behind> {
    vec![Behind { who: who.to_string(), why: "no running pod" }]
}

fn of_members() -> Outside {
    Outside { verify: vec!["members".to_string()], present: vec!["clients".to_string()] }
}

/// The rule under test, or one that is wrong on purpose.
type Rule = fn(&Seen<'_>) -> Step;

// The model: files of one generation after the other are put into Secrets, and each process takes up what is in its own
// Secret when it comes to that, or starts again with it.

/// What the files of one generation are: who has issued the certificate, and who is trusted.
#[derive(Clone, Copy)]
struct Files {
    issuer: char,
    trusted: &'static str,
}

const GENERATIONS: [Files; 4] = [
    Files { issuer: 'o', trusted: "o" },
    Files { issuer: 'o', trusted: "on" },
    Files { issuer: 'n', trusted: "on" },
    Files { issuer: 'n', trusted: "n" },
];
const NODES: usize = 3;

/// Generation of the authority's Secret; of each node's Secret; of each node's process, which may be down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    stage: usize,
    secrets: [usize; NODES],
    processes: [Option<usize>; NODES],
}

impl World {
    fn behind(&self) -> Vec<Behind> {
        let has_taken = |process: &Option<usize>| {
            let Some(files) = process.and_then(|at| GENERATIONS.get(at)) else { return false };
            match self.stage {
                1 => files.trusted.contains('n'),
                2 => files.issuer == 'n',
                _ => true,
            }
        };
        let late = self.processes.iter().enumerate().filter(|(_, process)| !has_taken(process));
        late.flat_map(|(number, _)| waits_for(&number.to_string())).collect()
    }

    /// Each process lets each other one in, and so do processes and the operator, which uses the newest files.
    fn is_whole(&self) -> bool {
        let operator = GENERATIONS[self.stage];
        let up: Vec<Files> = self.processes.iter().flatten().map(|at| GENERATIONS[*at]).chain([operator]).collect();
        up.iter().all(|one| up.iter().all(|other| other.trusted.contains(one.issuer)))
    }

    fn next(&self, rule: Rule) -> Vec<Self> {
        let mut next = Vec::new();
        let stage = [Stage::Settled, trusting(), signing(), Stage::Settled];
        let seen = Seen {
            stage: &stage[self.stage],
            is_due: self.stage == 0,
            is_asked: false,
            behind: &self.behind(),
            outside: &Outside::default(),
            confirmed: None,
        };
        match rule(&seen) {
            Step::Begin | Step::Sign | Step::Withdraw => next.push(Self { stage: self.stage + 1, ..*self }),
            Step::Rest | Step::Wait | Step::AskBeforeSigning | Step::AskBeforeWithdrawal => {}
        }
        for node in 0..NODES {
            let mut issued = *self;
            issued.secrets[node] = self.stage;
            let mut taken = *self;
            taken.processes[node] = Some(self.secrets[node]);
            let mut down = *self;
            down.processes[node] = None;
            next.extend([issued, taken, down]);
        }
        next
    }
}

/// Walks through every order. Answers whether somebody was cut off on a way, and whether the last stage was reached.
fn walk(rule: Rule) -> (bool, bool) {
    let first = World { stage: 0, secrets: [0; NODES], processes: [Some(0); NODES] };
    let (mut known, mut open) = (BTreeSet::from([first]), VecDeque::from([first]));
    let (mut cut, mut done) = (false, false);
    while let Some(world) = open.pop_front() {
        cut |= !world.is_whole();
        done |= world.stage == 3;
        for next in world.next(rule) {
            if known.insert(next) {
                open.push_back(next);
            }
        }
    }
    (cut, done)
}

#[test]
fn in_no_order_of_taking_up_files_is_anybody_cut_off() {
    assert_eq!(walk(decide), (false, true));
}

#[test]
fn the_walk_finds_a_step_that_does_not_wait() {
    let signs_early: Rule = |seen| match seen.stage {
        Stage::Trusting { .. } => decide(&Seen { behind: &[], ..*seen }),
        Stage::Settled | Stage::Signing { .. } => decide(seen),
    };
    let withdraws_early: Rule = |seen| match seen.stage {
        Stage::Signing { .. } => decide(&Seen { behind: &[], ..*seen }),
        Stage::Settled | Stage::Trusting { .. } => decide(seen),
    };
    let forgets_one: Rule = |seen| {
        let few = seen.behind.len() <= 1;
        decide(&Seen { behind: if few { &[] } else { seen.behind }, ..*seen })
    };
    for (name, wrong) in [("signs", signs_early), ("withdraws", withdraws_early), ("forgets", forgets_one)] {
        assert!(walk(wrong).0, "{name}: nobody was cut off");
    }
}

#[test]
fn each_step_has_its_own_conditions() {
    let (trusting, signing) = (trusting(), signing());
    let (nobody, members, late) = (Outside::default(), of_members(), waits_for("demo-main-2"));
    let of = |stage, behind: &[Behind], outside: &Outside, confirmed| {
        decide(&Seen { stage, is_due: false, is_asked: false, behind, outside, confirmed })
    };
    assert_eq!(of(&Stage::Settled, &[], &nobody, None), Step::Rest);
    for (is_due, is_asked) in [(true, false), (false, true)] {
        let settled =
            Seen { stage: &Stage::Settled, is_due, is_asked, behind: &[], outside: &members, confirmed: None };
        assert_eq!(decide(&settled), Step::Begin);
        let again = Seen { stage: &signing, behind: &late, ..settled };
        assert_eq!(decide(&again), Step::Wait, "one after the other");
    }
    let cases = [
        (&trusting, &late[..], &nobody, Some("new"), Step::Wait),
        (&trusting, &[], &nobody, None, Step::Sign),
        (&trusting, &[], &members, None, Step::AskBeforeSigning),
        (&trusting, &[], &members, Some("old"), Step::AskBeforeSigning),
        (&trusting, &[], &members, Some("new"), Step::Sign),
        (&signing, &late[..], &nobody, Some("old"), Step::Wait),
        (&signing, &[], &nobody, None, Step::Withdraw),
        (&signing, &[], &members, Some("new"), Step::AskBeforeWithdrawal),
        (&signing, &[], &members, Some("old"), Step::Withdraw),
    ];
    for (number, (stage, behind, outside, confirmed, expected)) in cases.into_iter().enumerate() {
        assert_eq!(of(stage, behind, outside, confirmed), expected, "case {number}");
    }
}

/// The Secret as the API server would answer it after this change.
fn merged(secret: &Secret, patch: &Value) -> Secret {
    fn merge(into: &mut Value, patch: &Value) {
        let (Some(into), Some(patch)) = (into.as_object_mut(), patch.as_object()) else { return };
        for (key, value) in patch {
            match value {
                Value::Null => drop(into.remove(key)),
                Value::Object(_) => merge(into.entry(key).or_insert_with(|| json!({})), value),
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    into.insert(key.clone(), value.clone());
                }
            }
        }
    }
    let mut whole = serde_json::to_value(secret).expect("JSON");
    merge(&mut whole, patch);
    serde_json::from_value(whole).expect("a Secret")
}

fn first() -> (Secret, CertificateAuthority) {
    let (authority, text) = (made(0), |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec()));
    let data = [
        ("tls.crt", authority.certificate_pem()),
        ("tls.key", authority.key_pem()),
        ("ca.crt", authority.certificate_pem()),
    ];
    let mut secret =
        Secret { data: Some(data.map(|(key, value)| (key.to_string(), text(value))).into()), ..Secret::default() };
    secret.metadata.resource_version = Some("7".to_string());
    (secret, authority)
}

fn read(secret: &Secret) -> Authority {
    Authority::read("demo", secret).expect("an authority")
}

fn entry(secret: &Secret, key: &str) -> Option<String> {
    certificates::text(secret, key).map(|text| text.trim().to_string())
}

#[test]
fn the_secret_goes_through_all_stages_and_keeps_each_key_until_its_end() {
    let ((settled, old), new) = (first(), made(1));
    let (old_pem, new_pem) = (old.certificate_pem().trim(), new.certificate_pem().trim());
    let (old_hash, new_hash) = (certificates::hash(old_pem), certificates::hash(new_pem));
    let at_first = read(&settled);
    assert_eq!((at_first.hash.as_str(), at_first.trusted.trim(), at_first.served), (old_hash.as_str(), old_pem, None));

    let begun = merged(&settled, &begun(&settled, &new, Some("2026-08")));
    let trusting = read(&begun);
    assert_eq!(trusting.served.as_deref(), Some("2026-08"));
    assert_eq!(trusting.issuer.certificate_pem().trim(), old_pem);
    assert_eq!(trusting.trusted, format!("{old_pem}\n{new_pem}\n"));
    assert_eq!(entry(&begun, "ca.crt").as_deref(), Some(trusting.trusted.trim()));
    assert!(matches!(&trusting.stage, Stage::Trusting { hash, .. } if *hash == new_hash));
    assert!(trusting.answers_to(&old_hash) && !trusting.answers_to(&new_hash), "a copy from before the step");

    let signed = merged(&begun, &signed(&begun));
    let signing = read(&signed);
    let Signer::Own(signer) = &signing.issuer else { panic!("the operator signs") };
    assert_eq!((signing.hash.as_str(), signer.key_pem()), (new_hash.as_str(), new.key_pem()));
    assert_eq!(signing.trusted, format!("{new_pem}\n{old_pem}\n"));
    assert_eq!(entry(&signed, "ca.crt").as_deref(), Some(signing.trusted.trim()));
    assert_eq!(entry(&signed, "former.key").as_deref(), Some(old.key_pem().trim()));
    assert!(matches!(&signing.stage, Stage::Signing { hash } if *hash == old_hash));
    assert!(signing.answers_to(&old_hash) && signing.answers_to(&new_hash), "the record comes after the step");

    let withdrawn = merged(&signed, &withdrawn(&signed));
    let last = read(&withdrawn);
    assert!(matches!(last.stage, Stage::Settled) && !last.answers_to(&old_hash));
    assert_eq!((last.hash, last.trusted.trim()), (new_hash, new_pem));
    assert_eq!(entry(&withdrawn, "ca.crt").as_deref(), Some(new_pem));
    assert_eq!(last.served.as_deref(), Some("2026-08"), "the wish is met once");
    let keys: Vec<String> = withdrawn.data.expect("data").into_keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"], "nothing is left of the former one");
}

#[test]
fn each_change_is_for_one_version_of_the_secret() {
    let (secret, _) = first();
    for patch in [begun(&secret, &made(1), None), signed(&secret), withdrawn(&secret)] {
        assert_eq!(patch["metadata"], json!({ "resourceVersion": "7" }));
    }
}

#[test]
fn a_secret_with_three_authorities_or_without_a_key_is_none() {
    let (secret, _) = first();
    let with = |entries: &[(&str, &str)]| {
        let data: serde_json::Map<String, Value> = entries
            .iter()
            .map(|(key, text)| ((*key).to_string(), json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))))
            .collect();
        Authority::read("demo", &merged(&secret, &json!({ "data": data }))).map(drop)
    };
    let other = made(1);
    let (certificate, key) = (other.certificate_pem(), other.key_pem());
    assert!(with(&[("next.crt", certificate), ("next.key", key)]).is_ok());
    assert!(with(&[("next.crt", certificate)]).is_err(), "it could not sign");
    assert!(with(&[("former.crt", certificate)]).is_ok(), "it need not sign");
    assert!(with(&[("former.crt", "nothing")]).is_err());
    assert!(with(&[("next.crt", certificate), ("next.key", key), ("former.crt", certificate)]).is_err());
}

#[test]
fn proof_is_asked_for_as_somebody_whom_only_those_let_in_who_have_taken_it_up() {
    let ((settled, old), new) = (first(), made(1));
    assert!(read(&settled).proof().is_none());
    let begun = merged(&settled, &begun(&settled, &new, None));
    let proof = read(&begun).proof().expect("there are two");
    assert_eq!(proof.issuer.certificate_pem().trim(), new.certificate_pem().trim(), "who lets it in trusts it");
    assert!(proof.trusted.contains(old.certificate_pem().trim()), "certificates are still of the former one");
    let signed = merged(&begun, &signed(&begun));
    let proof = read(&signed).proof().expect("there are two");
    assert_eq!(proof.issuer.certificate_pem().trim(), new.certificate_pem().trim());
    assert_eq!(proof.trusted.trim(), new.certificate_pem().trim(), "a certificate of the former one is no proof");
}

/// Whether a node with these files lets in who asks for proof, and is let in.
async fn proves(files: &TlsPem, stage: &Authority, id: &SpiffeId, now_s: u64) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = TlsStore::from_pem(files).expect("good files");
    let serving = tokio::spawn(async move {
        let mut accepted = Box::pin(incoming(listener, server, AcceptLimits::default()));
        while let Some(Ok(mut connection)) = accepted.next().await {
            // Who was refused does not read it.
            let _ = connection.write_all(b"in").await;
        }
    });
    let proof = stage.proof().expect("there are two");
    let own = certificates::issue_own(&proof, id.chain_id(), now_s).expect("a certificate");
    let own = TlsStore::from_pem(&own).expect("good files");
    let expected = Expected::node(id.chain_id(), &id.identity().expect("a node"));
    let dialer = TlsDialer::new(TcpDialer::new(&address), own, expected);
    let asked = async {
        let mut stream = dialer.connect().await?;
        // Who is not let in learns so with the first answer.
        stream.read_exact(&mut [0; 2]).await
    };
    let is_proved = asked.await.is_ok();
    serving.abort();
    is_proved
}

#[tokio::test]
async fn a_node_proves_each_stage_with_the_files_of_that_stage_and_with_no_older_ones() {
    let now_s = crate::validator::now_s();
    let [old, new] = [0, 1].map(|second| new_authority("demo", now_s + second).expect("an authority"));
    let ((mut secret, _), text) = (first(), |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec()));
    let data = secret.data.as_mut().expect("data");
    data.insert("tls.crt".to_string(), text(old.certificate_pem()));
    data.insert("tls.key".to_string(), text(old.key_pem()));
    let begun = merged(&secret, &begun(&secret, &new, None));
    let signed = merged(&begun, &signed(&begun));
    let stages = [read(&secret), read(&begun), read(&signed)];
    let chain = ChainId::new("demo-main").expect("a chain id");
    let id = SpiffeId::node(&chain, NodeRole::Validator, &Identity::new([7; 32]));
    let files = |authority: &Authority| {
        let pem = certificates::issue(authority, &id, now_s, certificates::NODE_S).expect("a certificate");
        TlsPem {
            certificate: pem.certificate.into_bytes(),
            key: pem.key.into_bytes().into(),
            authorities: pem.authorities.into_bytes(),
            members: Vec::new(),
        }
    };
    let [at_first, trusting, signing] = [&stages[0], &stages[1], &stages[2]].map(files);
    assert!(!proves(&at_first, &stages[1], &id, now_s).await, "it does not trust the next one");
    assert!(proves(&trusting, &stages[1], &id, now_s).await);
    assert!(!proves(&trusting, &stages[2], &id, now_s).await, "it shows a certificate of the former one");
    assert!(proves(&signing, &stages[2], &id, now_s).await);
}

#[test]
fn a_closed_network_asks_nobody_and_each_way_in_has_its_people() {
    let outside = |fields: &str| {
        let text = format!(
            "{{apiVersion: althing.dev/v1alpha1, kind: BlockchainNetwork, metadata: {{name: demo}}, spec: {{{fields}}}}}"
        );
        let network: BlockchainNetwork = serde_yaml::from_str(&text).expect("a network");
        let Outside { verify, present } = super::outside(&network);
        (verify.len(), present.len())
    };
    assert_eq!(outside("groups: [{name: main}]"), (0, 0));
    assert_eq!(outside("groups: [{name: main, p2p: {allowedNamespaces: [other]}}]"), (1, 0));
    assert_eq!(outside("groups: [{name: main}], networkPolicy: {clientCidrs: [10.0.0.0/8]}"), (1, 1));
    assert_eq!(outside("groups: [{name: main}], networkPolicy: {mode: Unmanaged}"), (1, 1));
    assert_eq!(outside("groups: [{name: main}], gateway: {}"), (1, 0));
    assert_eq!(outside("groups: [{name: main}], gateway: {tls: {secretName: public}}"), (0, 0));
    let mut asked: BlockchainNetwork = serde_yaml::from_str(
        "{apiVersion: althing.dev/v1alpha1, kind: BlockchainNetwork, metadata: {name: demo}, spec: {groups: [{name: main}]}}",
    )
    .expect("a network");
    asked.metadata.annotations = Some([(names::ANNOTATION_CONFIRM.to_string(), "ask".to_string())].into());
    assert_eq!(super::outside(&asked).verify.len(), 1);
}

#[test]
fn of_many_who_are_behind_the_first_are_named() {
    let many: Vec<Behind> = (0..7).flat_map(|number| waits_for(&format!("n-{number}"))).collect();
    assert_eq!(named(&many[..1]), "n-0 (no running pod)");
    assert!(named(&many).ends_with("n-4 (no running pod) and 2 more"));
}
