//! Certificates and authorities replaced in a running server: who may stay connected, and who may not.

mod loopback;

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use loopback::{TestServer, authority, chain, current, id, identity, pem, pem_with, store, validator};
use node_api::{
    roles::Role,
    tls::{Expected, Reload, TcpDialer, TlsDialer, TlsError, TlsPem, TlsStore},
};
use tokio::{io::AsyncReadExt as _, sync::mpsc, time::timeout};

/// Far longer than anything here takes.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);

fn write(directory: &Path, pem: &TlsPem) {
    fs::create_dir_all(directory).expect("a directory");
    fs::write(directory.join("tls.crt"), &pem.certificate).expect("written");
    fs::write(directory.join("tls.key"), &*pem.key).expect("written");
    fs::write(directory.join("ca.crt"), &pem.authorities).expect("written");
    fs::write(directory.join("members.crt"), &pem.members).expect("written");
}

/// Swaps a generation of files as the kubelet does: files in a new directory, then one link to it.
fn swap(mount: &Path, generation: &str, pem: &TlsPem) {
    write(&mount.join(generation), pem);
    let link = mount.join("..data_tmp");
    symlink(generation, &link).expect("a link");
    fs::rename(link, mount.join("..data")).expect("swapped");
}

#[tokio::test]
async fn an_authority_is_replaced_and_only_connections_that_it_vouched_for_alone_end() {
    let (old, new) = (authority("old"), authority("new"));
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let (node, user) = (validator("demo", 1), id("demo", Role::Client, "user"));
    let server_store = store(&pem(&old, &node));
    let server = TestServer::start(server_store.clone()).await;
    let old_client = server.client(store(&pem(&old, &user))).await.expect("connects");
    let kept = old_client.status().await.expect("answers");
    let raw = |store| {
        TlsDialer::new(TcpDialer::new(server.address.to_string()), store, Expected::node(&chain("demo"), &identity(1)))
    };
    let mut old_stream = raw(store(&pem(&old, &user))).connect().await.expect("connects");

    // 1. Both authorities are trusted; the certificate is still of the old one.
    let old_leaf = pem(&old, &node);
    let step = TlsPem { authorities: both.clone().into_bytes(), ..old_leaf };
    assert_eq!(server_store.replace(&step).expect("usable"), Reload::Replaced);
    assert_eq!(server_store.replace(&step).expect("usable"), Reload::Unchanged);
    let new_client = server.client(store(&pem_with(&new, &user, current(), &both))).await.expect("connects");
    let before = new_client.status().await.expect("answers");
    let still = old_client.status().await.expect("the old authority is trusted too");
    assert_eq!(still.version, kept.version, "by the same connection");

    // 2. The certificate is of the new one, and the old one is not trusted any more.
    assert_eq!(server_store.replace(&pem(&new, &node)).expect("usable"), Reload::Replaced);
    let fresh = server.client(store(&pem(&new, &user))).await.expect("connects");
    fresh.status().await.expect("answers");
    let refused = match server.client(store(&pem_with(&old, &user, current(), &both))).await {
        Ok(client) => client.status().await.map(|_| ()),
        Err(error) => Err(error),
    };
    refused.expect_err("the old authority is not trusted any more");

    // Connections that the old authority alone vouched for have ended, the others go on.
    let ended = timeout(STEP_TIME_MAX, old_stream.read_to_end(&mut Vec::new())).await;
    let _ = ended.expect("the server closes it");
    old_client.status().await.expect_err("its connection is closed, and it gets no other");
    let after = new_client.status().await.expect("answers");
    assert_eq!(after.version, before.version, "by the same connection");
}

#[tokio::test]
async fn a_client_leaves_a_server_that_its_new_authorities_do_not_vouch_for() {
    let (old, new) = (authority("old"), authority("new"));
    let server = TestServer::start(store(&pem(&old, &validator("demo", 1)))).await;
    let user = id("demo", Role::Client, "user");
    let client_store = store(&pem(&old, &user));
    let client = server.client(client_store.clone()).await.expect("connects");
    client.status().await.expect("answers");
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    client_store.replace(&pem_with(&old, &user, current(), &both)).expect("usable");
    client.status().await.expect("the old authority is trusted too");
    // The server would still take the client.
    client_store.replace(&pem_with(&old, &user, current(), new.certificate_pem())).expect("usable");
    client.status().await.expect_err("the server is not trusted any more");
}

#[tokio::test]
async fn a_watched_directory_is_read_again_when_the_kubelet_swaps_its_link() {
    let issuer = authority("demo");
    let node = validator("demo", 1);
    let mount = tempfile::tempdir().expect("a directory");
    swap(mount.path(), "..generation_1", &pem(&issuer, &node));
    let store = TlsStore::from_directory(mount.path()).expect("usable");
    let before = store.current().facts().fingerprint;
    let (report, mut reports) = mpsc::unbounded_channel();
    let watch = tokio::spawn(store.clone().watch(Duration::from_millis(5), move |result| {
        let _ = report.send(result.map_err(|error| error.to_string()));
    }));
    swap(mount.path(), "..generation_2", &pem(&issuer, &node));
    assert_eq!(reports.recv().await, Some(Ok(Reload::Replaced)));
    assert_ne!(store.current().facts().fingerprint, before);
    watch.abort();
}

#[test]
fn files_that_cannot_be_used_leave_the_old_ones_in_use() {
    let issuer = authority("demo");
    let node = validator("demo", 1);
    let directory = tempfile::tempdir().expect("a directory");
    let good = pem(&issuer, &node);
    write(directory.path(), &good);
    let store = TlsStore::from_directory(directory.path()).expect("usable");
    let before = store.current().facts().clone();

    let other = pem(&issuer, &node);
    let cases = [
        (
            TlsPem { key: other.key.clone(), ..good.clone() },
            "failed to use tls.key: the private key does not belong to the certificate",
        ),
        (
            TlsPem { certificate: Vec::new(), ..good.clone() },
            "failed to use tls.crt: not a certificate: no certificate in the file",
        ),
        (
            TlsPem { authorities: Vec::new(), ..good.clone() },
            "failed to use ca.crt: not a certificate: no certificate in the file",
        ),
        (
            TlsPem { members: b"no certificate".to_vec(), ..good.clone() },
            "failed to use members.crt: not a certificate: no certificate in the file",
        ),
    ];
    for (files, reason) in cases {
        write(directory.path(), &files);
        assert_eq!(store.reload().expect_err("refused").to_string(), reason);
        assert_eq!(*store.current().facts(), before);
    }
    write(directory.path(), &pem(&issuer, &validator("demo", 2)));
    assert!(matches!(store.reload(), Err(TlsError::OtherIdentity { .. })));
    fs::remove_file(directory.path().join("tls.crt")).expect("removed");
    assert!(matches!(store.reload(), Err(TlsError::Read { .. })));
    write(directory.path(), &good);
    assert_eq!(store.reload().expect("usable"), Reload::Unchanged);
}
