//! What has passed at which commit, kept so that an interrupted campaign goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Tally;

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    commit: String,
    /// By case: whether its fault came to pass.
    passed: BTreeMap<String, bool>,
    failed: BTreeMap<String, String>,
}

/// The cases that are done.
pub struct Progress {
    path: PathBuf,
    is_campaign: bool,
    file: File,
}

impl Progress {
    /// What an interrupted campaign of the same commit left; nothing outside a campaign.
    pub fn read(root: &Path) -> Result<Self> {
        let is_campaign = std::env::var_os("ALTHING_CAMPAIGN").is_some();
        let head = Command::new("git").current_dir(root).args(["rev-parse", "--short=12", "HEAD"]).output()?;
        let commit = String::from_utf8_lossy(&head.stdout).trim().to_string();
        let name = if is_campaign { "target/campaign.json" } else { "target/faults.json" };
        let path = root.join(name);
        let mut file = File { commit: commit.clone(), ..File::default() };
        if let Some(text) = is_campaign.then(|| std::fs::read_to_string(&path).ok()).flatten() {
            let left: File =
                serde_json::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))?;
            if left.commit == commit {
                file = left;
            }
        }
        Ok(Self { path, is_campaign, file })
    }

    /// This case need not run again.
    pub fn has_passed(&self, name: &str) -> bool {
        self.is_campaign && self.file.passed.contains_key(name)
    }

    /// It is kept for a run that goes on with it.
    pub const fn is_campaign(&self) -> bool {
        self.is_campaign
    }

    /// Keeps what came of a case: whether its fault came to pass.
    pub fn record(&mut self, name: &str, judged: &Result<bool, &anyhow::Error>) -> Result<()> {
        match judged {
            Ok(has_fired) => {
                self.file.failed.remove(name);
                self.file.passed.insert(name.to_string(), *has_fired);
            }
            Err(error) => drop(self.file.failed.insert(name.to_string(), format!("{error:#}"))),
        }
        let text = serde_json::to_string_pretty(&self.file)?;
        std::fs::write(&self.path, text).with_context(|| format!("failed to write {}", self.path.display()))
    }

    /// How many cases of each sort passed.
    pub fn summary(&self) -> String {
        let mut passed = Tally::new();
        let mut unfired = 0;
        for (name, has_fired) in &self.file.passed {
            *passed.entry(sort(name).to_string()).or_default() += 1;
            unfired += usize::from(!has_fired);
        }
        let sorts: Vec<String> = passed.iter().map(|(sort, count)| format!("{sort} {count}")).collect();
        format!(
            "commit {}: {} passed ({}), of these {unfired} whose fault did not come to pass, {} failed",
            self.file.commit,
            self.file.passed.len(),
            sorts.join(", "),
            self.file.failed.len()
        )
    }
}

/// The sort of a case: what stands before its place, or the kind whose spec it is about.
fn sort(name: &str) -> &str {
    let end = if name.starts_with("spec/") { name.rfind('/') } else { name.find('@') };
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}
