//! The TLS files that a process uses now, replaced without a restart when the directory changes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{TlsError, TlsMaterial, TlsPem};

/// What a look at the directory brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The files are those in use.
    Unchanged,
    /// Other files are in use from now on.
    Replaced,
}

/// What this process presents and trusts now. Connections that were made with former files end when the present ones do
/// not vouch for their peer.
#[derive(Debug)]
pub struct TlsStore {
    current: ArcSwap<TlsMaterial>,
    /// How often the files were replaced.
    changes: watch::Sender<u64>,
    directory: Option<PathBuf>,
}

impl TlsStore {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` of a directory.
    pub fn from_directory(directory: impl Into<PathBuf>) -> Result<Arc<Self>, TlsError> {
        let directory = directory.into();
        let material = TlsMaterial::from_pem(&TlsPem::read(&directory)?)?;
        Ok(Self::new(material, Some(directory)))
    }

    /// Uses texts that the caller holds. [`TlsStore::replace`] is then the way to change them.
    pub fn from_pem(pem: &TlsPem) -> Result<Arc<Self>, TlsError> {
        let material = TlsMaterial::from_pem(pem)?;
        Ok(Self::new(material, None))
    }

    fn new(material: TlsMaterial, directory: Option<PathBuf>) -> Arc<Self> {
        let changes = watch::Sender::new(0);
        Arc::new(Self { current: ArcSwap::from_pointee(material), changes, directory })
    }

    /// What is in use now.
    pub fn current(&self) -> Arc<TlsMaterial> {
        self.current.load_full()
    }

    /// Tells of each replacement from now on, once the new files are in use.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reads the directory again. On an error the old files stay in use.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        match &self.directory {
            Some(directory) => self.replace(&TlsPem::read(directory)?),
            None => Ok(Reload::Unchanged),
        }
    }

    /// Uses other texts from now on. They must name the same id; on an error the old ones stay in use.
    pub fn replace(&self, pem: &TlsPem) -> Result<Reload, TlsError> {
        let current = self.current();
        if current.digest() == pem.digest() {
            return Ok(Reload::Unchanged);
        }
        let material = TlsMaterial::from_pem(pem)?;
        let (expected, found) = (&current.facts().id, &material.facts().id);
        if expected != found {
            return Err(TlsError::OtherIdentity { expected: expected.clone(), found: found.clone() });
        }
        self.current.store(Arc::new(material));
        self.changes.send_modify(|count| *count += 1);
        Ok(Reload::Replaced)
    }

    /// Looks at the directory every `interval` and reports what changed or why a change cannot be used. Never ends;
    /// drop the future to stop it. Ten seconds is a good interval: the kubelet itself needs about a minute.
    pub async fn watch(self: Arc<Self>, interval: Duration, mut report: impl FnMut(Result<Reload, TlsError>)) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let store = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || store.reload()).await {
                Ok(Ok(Reload::Unchanged)) => {}
                Ok(result) => report(result),
                Err(error) => tracing::error!(%error, "the look at the TLS directory did not end"),
            }
        }
    }
}
