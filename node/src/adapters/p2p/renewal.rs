//! When a connection that this node opened is closed and opened anew, because this node's certificates were replaced.

use std::{future::pending, time::Duration};

use rand::Rng;
use tokio::sync::watch;

/// Within this time after a replacement every connection is renewed. Each draws its own moment: were all of a node, or of a
/// network whose nodes get their files together, to close at once, no quorum would be connected for a while.
const SPREAD_MAX: Duration = Duration::from_secs(30);

/// Ends when the connection is due. It was made with the files as they were when `changes` was last looked at.
pub async fn due(mut changes: watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        // Nobody is left who could replace the files.
        pending::<()>().await;
    }
    tokio::time::sleep(drawn()).await;
}

fn drawn() -> Duration {
    let whole_ms = u64::try_from(SPREAD_MAX.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rand::rng().random_range(0..=whole_ms))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SPREAD_MAX, drawn};

    #[test]
    fn the_connections_of_a_node_are_renewed_one_after_the_other() {
        let mut waits: Vec<Duration> = (0..400).map(|_| drawn()).collect();
        waits.sort_unstable();
        assert!(waits.iter().all(|wait| *wait <= SPREAD_MAX));
        // In no tenth of the time are more than a quarter due: by chance never (a binomial far beyond ten deviations).
        for tenth in 0..10 {
            let (from, to) = (SPREAD_MAX * tenth / 10, SPREAD_MAX * (tenth + 1) / 10);
            let due = waits.iter().filter(|wait| from <= **wait && **wait < to).count();
            assert!(due < 100, "{due} of 400 between {from:?} and {to:?}");
        }
    }
}
