//! `cluster down`: ends everything that carries this checkout's name, whether or not `up` remembers having made it.

use std::path::{Path, PathBuf};

use crate::cgroups::{self, Part};
use crate::checkout::{Checkout, Node};
use crate::command::{command, run};
use crate::error::{Doing, Error, Result};
use crate::{interrupt, sandbox};

/// Ends the cluster and removes its state. Fine on a cluster that does not run, and after a crash of this tool.
///
/// # Errors
/// When something does not end.
pub fn down(checkout: &Checkout) -> Result<()> {
    let _lock = checkout.lock()?;
    interrupt::shield();
    remove(checkout)
}

/// Everything, logs too.
///
/// # Errors
/// When something does not end.
pub fn remove(checkout: &Checkout) -> Result<()> {
    end(checkout)?;
    remove_folder(&checkout.state())
}

/// Everything but the logs, which say why an `up` failed; the next `up` or `down` removes them.
///
/// # Errors
/// When something does not end.
pub fn remove_but_logs(checkout: &Checkout) -> Result<()> {
    end(checkout)?;
    let log = checkout.log();
    for entry in std::fs::read_dir(checkout.state()).into_iter().flatten().flatten() {
        let path = entry.path();
        if path != log {
            remove_folder(&path)?;
        }
    }
    eprintln!("the logs are in {}", log.display());
    Ok(())
}

/// Ends processes first, then what they held.
fn end(checkout: &Checkout) -> Result<()> {
    let nodes: Vec<Node> = Node::all().collect();
    // All at once by their names alone: this is what works when no file says what runs.
    cgroups::remove(checkout, Part::Cluster, &nodes)?;
    // Node 1 last: the others hang on its switch.
    for node in nodes.iter().rev() {
        sandbox::remove(checkout, *node)?;
    }
    for folder in [checkout.state(), checkout.runtime()] {
        unmount_below(&folder)?;
    }
    remove_folder(&checkout.runtime())
}

/// Nothing of ours should be mounted outside the nodes; a folder with a mount in it must not be deleted, though.
fn unmount_below(folder: &Path) -> Result<()> {
    for place in mounts_below(folder)? {
        run(command("umount").arg("--lazy").arg(&place))?;
    }
    match mounts_below(folder)?.first() {
        None => Ok(()),
        Some(place) => Err(Error::Refused(format!("{} cannot be unmounted; what it holds is kept", place.display()))),
    }
}

fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").doing("read", "/proc/self/mountinfo")?;
    let mut places: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|place| PathBuf::from(place.replace("\\040", " ")))
        .filter(|place| place.starts_with(folder))
        .collect();
    places.sort();
    places.reverse();
    Ok(places)
}

fn remove_folder(path: &Path) -> Result<()> {
    let gone = match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    gone.doing("remove", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_removed_and_not_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, link) = (folder.path().join("cache"), folder.path().join("bin"));
        std::fs::create_dir(&cache).unwrap();
        std::os::unix::fs::symlink(&cache, &link).unwrap();
        remove_folder(&link).unwrap();
        assert!(cache.exists() && !link.is_symlink());
        remove_folder(&link).unwrap();
    }
}
