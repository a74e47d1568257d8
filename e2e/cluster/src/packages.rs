//! Unpacks programs from Debian packages into the cache; nothing is installed, so a user's own containerd stays alone.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::command::{command, run};
use crate::error::{Doing, Error, Result};

/// The packages that are downloaded and unpacked.
pub const PACKAGES: [&str; 5] = ["containerd", "runc", "containernetworking-plugins", "catatonit", "busybox-static"];

/// Programs out of them.
const PROGRAMS: [&str; 6] = [
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
    "usr/bin/catatonit",
    "bin/busybox",
];

/// Folder with the CNI plugins, in its package.
const PLUGINS: &str = "usr/lib/cni";

/// Are all programs in `bin`, all plugins in `cni`?
pub fn are_unpacked(bin: &Path, cni: &Path) -> bool {
    PROGRAMS.iter().all(|program| bin.join(file_name(program)).is_file())
        && ["host-local", "portmap", "loopback"].iter().all(|plugin| cni.join(plugin).is_file())
}

/// Downloads the packages by apt (which checks their signatures) into `scratch` and moves the programs out of them.
///
/// # Errors
/// When a package cannot be had or lacks what we expect of it.
pub fn unpack(scratch: &Path, bin: &Path, cni: &Path) -> Result<()> {
    let tree = scratch.join("tree");
    for folder in [&tree, &bin.to_path_buf(), &cni.to_path_buf()] {
        std::fs::create_dir_all(folder).doing("create", folder)?;
    }
    let download = || run(command("apt-get").args(["-q", "download"]).args(PACKAGES).current_dir(scratch));
    // The first try fails on a machine whose package lists are absent or old.
    if download().is_err() {
        run(command("apt-get").args(["-q", "update"]))?;
        download()?;
    }
    for entry in std::fs::read_dir(scratch).doing("read", scratch)? {
        let package = entry.doing("read", scratch)?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run(command("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
        }
    }
    for program in PROGRAMS {
        take(&find(&tree, program)?, &bin.join(file_name(program)))?;
    }
    let plugins = find(&tree, PLUGINS)?;
    for plugin in std::fs::read_dir(&plugins).doing("read", &plugins)? {
        let plugin = plugin.doing("read", &plugins)?;
        take(&plugin.path(), &cni.join(plugin.file_name()))?;
    }
    Ok(())
}

/// A file of the tree; newer Debian releases have moved `/bin` into `/usr/bin`.
fn find(tree: &Path, file: &str) -> Result<std::path::PathBuf> {
    let places = [tree.join(file), tree.join("usr").join(file)];
    places.iter().find(|place| place.exists()).cloned().ok_or_else(|| Error::Preflight {
        problem: format!("the Debian packages hold no {file}"),
        advice: "Debian 12 (bookworm) is what was run".into(),
    })
}

/// Copies beside the target, then renames: a half-written program never has the name of a whole one.
fn take(from: &Path, to: &Path) -> Result<()> {
    let beside = to.with_extension("partial");
    std::fs::copy(from, &beside).doing("copy", from)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).doing("set mode of", &beside)?;
    std::fs::rename(&beside, to).doing("publish", to)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_counts_only_under_its_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        std::fs::write(&from, "program").unwrap();
        let to = folder.path().join("runc");
        take(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"program");
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn busybox_is_found_before_and_after_debian_moved_bin() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        std::fs::write(folder.path().join("usr/bin/busybox"), "").unwrap();
        assert!(find(folder.path(), "bin/busybox").unwrap().ends_with("usr/bin/busybox"));
        assert!(find(folder.path(), "usr/sbin/runc").is_err());
    }
}
