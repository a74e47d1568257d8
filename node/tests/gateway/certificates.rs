//! Which TLS files a gateway uses towards the nodes, as it says itself.

use node_api::pki::{CertificateAuthority, LeafFacts, fingerprint};
use tempfile::TempDir;

use crate::harness::{GatewayProcess, authority, until, write_certificate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_says_which_certificate_it_shows_and_whom_it_trusts_now() {
    let directory = TempDir::new().expect("a directory");
    let (first, validity) = authority();
    let tls = write_certificate(directory.path(), &first, validity);
    let section = "  backends: {submit: [{address: '127.0.0.1:9'}]}\n  edge: {plaintext: true}\n";
    let gateway = GatewayProcess::start(directory.path(), &tls, section).await;
    let said = gateway.tls().await;
    let shown = std::fs::read_to_string(tls.join("tls.crt")).expect("a certificate");
    let print = |authority: &CertificateAuthority| {
        hex::encode(fingerprint(authority.certificate_pem()).expect("a certificate"))
    };
    assert_eq!(said.certificate, hex::encode(LeafFacts::from_pem(&shown).expect("a certificate").fingerprint));
    assert_eq!(said.authorities, [print(&first)]);

    // As the kubelet does: the whole file at once.
    let second = CertificateAuthority::generate("next", validity).expect("an authority");
    let both = format!("{}{}", first.certificate_pem(), second.certificate_pem());
    std::fs::write(tls.join("ca.new"), both).expect("written");
    std::fs::rename(tls.join("ca.new"), tls.join("ca.crt")).expect("swapped");
    until("it trusts both", || async {
        (gateway.tls().await.authorities == [print(&first), print(&second)]).then_some(())
    })
    .await;
    assert_eq!(gateway.tls().await.certificate, said.certificate);
    gateway.stop().await;
}
