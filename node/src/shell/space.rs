//! Looks at the volume's space from time to time, and stops the node before the volume is full.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use node_api::proto;
use tokio::time::Instant;

use super::perform::PerformError;
use crate::{
    adapters::volume::{Fill, Space},
    metrics::Metrics,
};

/// Far less than it takes to write the reserve.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of the space.
#[derive(Debug)]
pub struct SpaceWatch {
    folder: PathBuf,
    checked: Option<Instant>,
    space: Option<Space>,
    fill: Fill,
}

impl SpaceWatch {
    /// Looks at the volume of this folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), checked: None, space: None, fill: Fill::Roomy }
    }

    /// Fails when the volume is as good as full.
    pub fn check(&mut self, metrics: &Metrics) -> Result<(), PerformError> {
        let before = self.fill;
        self.look(metrics);
        match (self.fill, self.space) {
            (Fill::Full, Some(space)) => Err(PerformError::VolumeFull(space)),
            (Fill::Low, Some(space)) if before != Fill::Low => {
                tracing::warn!(%space, "the volume runs full");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// True when the volume was full at the last look and now has space again.
    pub fn has_space_again(&mut self, metrics: &Metrics) -> bool {
        self.fill == Fill::Full && {
            self.look(metrics);
            let enough = self.space.is_some_and(|space| space.is_enough_again());
            if !enough {
                self.fill = Fill::Full;
            }
            enough
        }
    }

    /// What a person should know.
    pub fn remark(&self) -> Option<String> {
        let space = self.space.filter(|_| self.fill == Fill::Low)?;
        Some(format!("the volume runs full: {space}"))
    }

    /// Adds the space to a status.
    pub fn add_to(&self, status: &mut proto::GetStatusResponse) {
        let Some(space) = self.space else { return };
        status.volume_size_bytes = space.total;
        status.volume_available_bytes = space.available;
    }

    fn look(&mut self, metrics: &Metrics) {
        if self.checked.is_some_and(|checked| checked.elapsed() < CHECK_INTERVAL) {
            return;
        }
        self.checked = Some(Instant::now());
        match Space::of(&self.folder) {
            Ok(space) => {
                metrics.volume_size_bytes.set(i64::try_from(space.total).unwrap_or(i64::MAX));
                metrics.volume_available_bytes.set(i64::try_from(space.available).unwrap_or(i64::MAX));
                self.fill = space.fill();
                self.space = Some(space);
            }
            // The next write will tell.
            Err(error) => tracing::warn!(%error, folder = %self.folder.display(), "failed to look at the volume"),
        }
    }
}
