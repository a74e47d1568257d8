//! Writes an image as an OCI layout in one tar file: no builder, no engine, the same bytes every time.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::error::{Doing, Error, Result};

const PASSWD: &str = "root:x:0:0::/:/bin/sh\nnonroot:x:65532:65532::/tmp:/bin/sh\n";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Image {
    /// Full name with tag, `docker.io/althing/node:dev`.
    pub name: String,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// What is in it besides `/tmp`, `/etc/passwd` and mount points.
    pub files: Vec<ImageFile>,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Absolute path in the image.
    pub path: String,
    /// Where the content comes from.
    pub content: Content,
}

/// What a file of an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A copy of this file, executable.
    File(PathBuf),
    /// A symbolic link to this name.
    Link(String),
}

impl std::str::FromStr for ImageFile {
    type Err = String;

    /// `/path/in/image=file`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((path, file)) if path.starts_with('/') && !file.is_empty() => {
                Ok(Self { path: path.to_string(), content: Content::File(PathBuf::from(file)) })
            }
            _ => Err("a file of an image is /path/in/image=file".into()),
        }
    }
}

/// A blob's name and size.
struct Blob {
    digest: String,
    size: u64,
}

impl Image {
    /// Writes the tar and returns the digest of the image's manifest. The tar appears whole or not at all.
    ///
    /// # Errors
    /// When a file cannot be read or the tar cannot be written.
    pub fn write(&self, output: &Path) -> Result<String> {
        let (repository, tag) = split_name(&self.name)?;
        if tag == "latest" {
            return Err(Error::Refused(format!(
                "{repository}:latest would be pulled from a registry at every start; choose another tag"
            )));
        }
        let layer_path = output.with_extension("layer");
        let written =
            self.write_layer(&layer_path).and_then(|layer| self.write_image(output, &layer_path, &layer, tag));
        let _ = std::fs::remove_file(&layer_path);
        written
    }

    fn write_layer(&self, path: &Path) -> Result<Blob> {
        let file = File::create(path).doing("create", path)?;
        let mut layer = Builder::new(Hashing { inner: std::io::BufWriter::new(file), hasher: Sha256::new(), size: 0 });
        let mut folders = BTreeSet::new();
        for mount_point in ["etc", "proc", "sys", "dev"] {
            add_folder(&mut layer, &mut folders, mount_point)?;
        }
        append(&mut layer, header(EntryType::Directory, 0o1777, 0), "tmp", &[][..])?;
        add_bytes(&mut layer, "etc/passwd", PASSWD.as_bytes())?;
        for file in &self.files {
            let name = file.path.trim_start_matches('/');
            if let Some((folder, _)) = name.rsplit_once('/') {
                add_folder(&mut layer, &mut folders, folder)?;
            }
            match &file.content {
                Content::Link(target) => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    layer.append_link(&mut header, name, target).doing("add link", name)?;
                }
                Content::File(source) => {
                    let content = File::open(source).doing("open", source)?;
                    let size = content.metadata().doing("measure", source)?.len();
                    append(&mut layer, header(EntryType::Regular, 0o755, size), name, BufReader::new(content))?;
                }
            }
        }
        let mut written = layer.into_inner().doing("write", path)?;
        written.flush().doing("write", path)?;
        Ok(Blob { digest: hexadecimal(&written.hasher.finalize()), size: written.size })
    }

    fn write_image(&self, output: &Path, layer_path: &Path, layer: &Blob, tag: &str) -> Result<String> {
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin:/usr/bin:/sbin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        });
        let config = bytes(&config)?;
        let config_digest = digest(&config);
        let manifest = bytes(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": format!("sha256:{config_digest}"), "size": config.len()},
            "layers": [{"mediaType": LAYER_TYPE, "digest": format!("sha256:{}", layer.digest), "size": layer.size}],
        }))?;
        let manifest_digest = digest(&manifest);
        let index = bytes(&json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": MANIFEST_TYPE, "digest": format!("sha256:{manifest_digest}"), "size": manifest.len(),
                "annotations": {"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag},
            }],
        }))?;

        let partial = output.with_extension("partial");
        let file = File::create(&partial).doing("create", &partial)?;
        let mut image = Builder::new(std::io::BufWriter::new(file));
        add_bytes(&mut image, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add_bytes(&mut image, "index.json", &index)?;
        add_bytes(&mut image, &format!("blobs/sha256/{config_digest}"), &config)?;
        add_bytes(&mut image, &format!("blobs/sha256/{manifest_digest}"), &manifest)?;
        let content = File::open(layer_path).doing("open", layer_path)?;
        let name = format!("blobs/sha256/{}", layer.digest);
        append(&mut image, header(EntryType::Regular, 0o644, layer.size), &name, content)?;
        image.into_inner().and_then(|mut file| file.flush()).doing("write", &partial)?;
        std::fs::rename(&partial, output).doing("publish", output)?;
        Ok(format!("sha256:{manifest_digest}"))
    }
}

/// Counts and hashes what goes through.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// `repository:tag`; a colon before the last slash belongs to a registry's port.
fn split_name(name: &str) -> Result<(&str, &str)> {
    match name.rsplit_once(':') {
        Some((repository, tag)) if repository.contains('/') && !tag.contains('/') && !tag.is_empty() => {
            Ok((repository, tag))
        }
        _ => Err(Error::Refused(format!("{name} is not a full image name; write docker.io/althing/node:dev"))),
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// No time, no owner: the same files give the same image.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(tar: &mut Builder<impl Write>, mut header: Header, name: &str, content: impl Read) -> Result<()> {
    tar.append_data(&mut header, name, content).doing("add to image", name)
}

fn add_bytes(tar: &mut Builder<impl Write>, name: &str, content: &[u8]) -> Result<()> {
    append(tar, header(EntryType::Regular, 0o644, content.len() as u64), name, content)
}

fn add_folder(tar: &mut Builder<impl Write>, done: &mut BTreeSet<String>, folder: &str) -> Result<()> {
    let mut path = String::new();
    for part in folder.split('/') {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
        if done.insert(path.clone()) {
            append(tar, header(EntryType::Directory, 0o755, 0), &path, &[][..])?;
        }
    }
    Ok(())
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::Json { action: "write an image's manifest".into(), source })
}

fn digest(content: &[u8]) -> String {
    hexadecimal(&Sha256::digest(content))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &Path) -> Image {
        std::fs::write(folder.join("program"), b"#!/bin/sh\n").unwrap();
        Image {
            name: "docker.io/althing/test:dev".into(),
            entrypoint: vec!["/opt/a/program".into()],
            files: vec![
                ImageFile { path: "/opt/a/program".into(), content: Content::File(folder.join("program")) },
                ImageFile { path: "/opt/b".into(), content: Content::Link("a/program".into()) },
            ],
        }
    }

    fn entries(tar: impl Read) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), content)
        });
        entries.collect()
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.tar"), folder.path().join("two.tar"));
        let digest = image(folder.path()).write(&one).unwrap();
        assert_eq!(image(folder.path()).write(&two).unwrap(), digest);
        assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    }

    #[test]
    fn every_blob_is_named_by_its_hash_and_the_index_leads_to_the_layer() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("image.tar");
        let manifest_digest = image(folder.path()).write(&output).unwrap();
        let all = entries(File::open(&output).unwrap());
        for (name, content) in &all {
            if let Some(name) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(content), name);
            }
        }
        let blob = |digest: &str| {
            let name = digest.replace("sha256:", "blobs/sha256/");
            all.iter().find(|(path, _)| *path == name).unwrap().1.clone()
        };
        let manifest: Value = serde_json::from_slice(&blob(&manifest_digest)).unwrap();
        let layer = blob(manifest["layers"][0]["digest"].as_str().unwrap());
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        let names: Vec<String> = entries(layer.as_slice()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["etc", "proc", "sys", "dev", "tmp", "etc/passwd", "opt", "opt/a", "opt/a/program", "opt/b"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file is left");
    }

    #[test]
    fn a_name_without_tag_or_with_latest_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["node:dev", "docker.io/althing/node", "localhost:5000/node", "docker.io/althing/node:latest"] {
            let image = Image { name: name.into(), ..image(folder.path()) };
            assert!(image.write(&folder.path().join("x.tar")).is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_argument_has_an_absolute_path_and_a_source() {
        let file: ImageFile = "/bin/x=target/x".parse().unwrap();
        assert_eq!(file, ImageFile { path: "/bin/x".into(), content: Content::File("target/x".into()) });
        for wrong in ["bin/x=target/x", "/bin/x", "/bin/x="] {
            assert!(wrong.parse::<ImageFile>().is_err(), "{wrong}");
        }
    }
}
