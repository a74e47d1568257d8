//! What runs as pods: cluster DNS, the volume provisioner, metrics-server on request; and the images for them.

use std::path::PathBuf;

use crate::build::Addon;
use crate::checkout::{Checkout, Node};
use crate::error::{Doing, Result};
use crate::images::{Content, Image, ImageFile};
use crate::interrupt::{Wait, wait_for};
use crate::kubectl::{apply, kubectl};
use crate::worker;

const COREDNS: &str = include_str!("../manifests/coredns.yaml");
const LOCAL_PATH: &str = include_str!("../manifests/local-path.yaml");
const METRICS_SERVER: &str = include_str!("../manifests/metrics-server.yaml");

/// What the busybox image has names for.
const BUSYBOX: &str = "sh cat echo ls sleep date nslookup httpd mkdir rm touch id hostname wc sed grep nc test true \
                       false dd ps kill env head tail seq awk chmod du df stat timeout ip wget printf cp mv find sync";

/// Images that every node needs: pods' sandboxes, and the helper pods of the provisioner.
const EVERYWHERE: [&str; 2] = ["pause", "busybox"];
/// Images whose pods are bound to node 1.
const FIRST_NODE: [&str; 2] = ["coredns", "local-path-provisioner"];
const METRICS_SERVER_IMAGE: &str = "metrics-server";

/// Are all images in the cache?
pub fn images_are_made(checkout: &Checkout, with: &[Addon]) -> bool {
    names(with).all(|name| file(checkout, name).is_file())
}

/// Writes the images of the cluster's own parts into the cache.
///
/// # Errors
/// When a program is missing or a file cannot be written.
pub fn make_images(checkout: &Checkout, with: &[Addon]) -> Result<()> {
    let folder = checkout.images();
    std::fs::create_dir_all(&folder).doing("create", &folder)?;
    for name in names(with) {
        let path = file(checkout, name);
        if !path.exists() {
            image(checkout, name).write(&path)?;
        }
    }
    Ok(())
}

/// The images that a node gets when it starts, as paths inside the node: ours, then those that were loaded.
///
/// # Errors
/// When the state folder cannot be read.
pub fn images_of(checkout: &Checkout, node: Node) -> Result<Vec<String>> {
    let own = EVERYWHERE.iter().chain(if node == Node::FIRST { &FIRST_NODE[..] } else { &[] });
    let mut paths: Vec<String> = own.map(|name| format!("/run/althing/images/{name}.tar")).collect();
    let folder = checkout.loaded_images();
    for entry in std::fs::read_dir(&folder).doing("read", &folder)? {
        let name = entry.doing("read", &folder)?.file_name();
        paths.push(format!("/run/althing/loaded/{}", name.to_string_lossy()));
    }
    Ok(paths)
}

/// Cluster DNS and the provisioner with the default StorageClass.
///
/// # Errors
/// When the API server refuses them.
pub fn apply_base(checkout: &Checkout) -> Result<()> {
    apply(checkout, &format!("{COREDNS}\n---\n{LOCAL_PATH}"))
}

/// Waits until both work.
///
/// # Errors
/// When one does not.
pub fn wait_for_base(checkout: &Checkout) -> Result<()> {
    kubectl(checkout, &["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s"])?;
    let arguments = ["rollout", "status", "deployment/local-path-provisioner", "--timeout=90s"];
    kubectl(checkout, &[&["-n", "local-path-storage"], &arguments[..]].concat()).map(drop)
}

/// metrics-server, until `kubectl top nodes` has an answer.
///
/// # Errors
/// When it does not get there.
pub fn start(checkout: &Checkout, addon: Addon) -> Result<()> {
    let Addon::MetricsServer = addon;
    worker::import(checkout, Node::FIRST, &format!("/run/althing/images/{METRICS_SERVER_IMAGE}.tar"))?;
    apply(checkout, METRICS_SERVER)?;
    kubectl(checkout, &["-n", "kube-system", "rollout", "status", "deployment/metrics-server", "--timeout=180s"])?;
    let hint = "see kubectl -n kube-system logs deployment/metrics-server";
    let wait = Wait { what: "the metrics API", seconds_max: 180, every_ms: 500, hint };
    wait_for(wait, || Ok(kubectl(checkout, &["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"]).ok().map(drop)))
}

fn names(with: &[Addon]) -> impl Iterator<Item = &'static str> {
    let asked = with.contains(&Addon::MetricsServer).then_some(METRICS_SERVER_IMAGE);
    EVERYWHERE.into_iter().chain(FIRST_NODE).chain(asked)
}

fn file(checkout: &Checkout, name: &str) -> PathBuf {
    checkout.images().join(format!("{name}.tar"))
}

/// Names and tags as the manifests have them; `docker.io/local` is a name that no registry is asked for, since the
/// policy is always `IfNotPresent`.
fn image(checkout: &Checkout, name: &str) -> Image {
    let program =
        |path: &str, name: &str| ImageFile { path: path.into(), content: Content::File(checkout.bin().join(name)) };
    let single = |name: &str, tag: &str, entrypoint: &[&str]| Image {
        name: format!("docker.io/local/{name}:{tag}"),
        entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
        files: vec![program(entrypoint.first().unwrap_or(&"/program"), name)],
    };
    match name {
        "pause" => Image {
            name: "docker.io/local/pause:1".into(),
            entrypoint: vec!["/catatonit".into(), "-P".into()],
            files: vec![program("/catatonit", "catatonit")],
        },
        "busybox" => {
            let link =
                |applet: &str| ImageFile { path: format!("/bin/{applet}"), content: Content::Link("busybox".into()) };
            let mut image = single("busybox", "1", &["/bin/sh"]);
            image.files = vec![program("/bin/busybox", "busybox")];
            image.files.extend(BUSYBOX.split_whitespace().map(link));
            image
        }
        "local-path-provisioner" => single(name, "v0.0.30", &["/local-path-provisioner"]),
        METRICS_SERVER_IMAGE => single(name, "v0.9.0", &["/metrics-server"]),
        other => single(other, "1", &[&format!("/{other}")]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_use_only_images_that_are_made() {
        let checkout = Checkout::at(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
        let made: Vec<String> = names(&[Addon::MetricsServer]).map(|name| image(&checkout, name).name).collect();
        for manifest in [COREDNS, LOCAL_PATH, METRICS_SERVER] {
            for (_, rest) in manifest.match_indices("image: ").map(|(at, key)| manifest.split_at(at + key.len())) {
                let name = rest.trim_start_matches('"').split(['"', '\n', ',']).next().unwrap();
                assert!(made.iter().any(|image| image == name), "{name} is not among {made:?}");
            }
        }
    }
}
