//! Which addresses the name of a backend stands for.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use node_api::gateway::BACKENDS_MAX;

/// Longest look-up of a name.
const TIME_MAX: Duration = Duration::from_secs(3);

type LookUp = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Who is asked for the addresses of `host:port`.
#[derive(Clone)]
pub struct Names(Arc<LookUp>);

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// The resolver of this machine.
    pub fn of_this_machine() -> Self {
        Self::by(|name| Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) }))
    }

    /// Another one.
    pub fn by(
        look_up: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(look_up))
    }

    /// The addresses, at most [`BACKENDS_MAX`]; nothing when nobody knows now.
    pub async fn addresses(&self, name: &str) -> Option<BTreeSet<SocketAddr>> {
        match tokio::time::timeout(TIME_MAX, (self.0)(name.to_owned())).await {
            Ok(Ok(found)) => Some(found.into_iter().take(BACKENDS_MAX).collect()),
            Ok(Err(error)) => {
                tracing::warn!(name, %error, "failed to resolve a backend");
                None
            }
            Err(_) => {
                tracing::warn!(name, "no answer in time from the resolver");
                None
            }
        }
    }
}
