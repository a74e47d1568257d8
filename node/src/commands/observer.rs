//! `althing-node observer`: follows the chain without a vote.

use node_api::config::NodeRole;

use super::CommandError;
pub use super::validator::Arguments;

/// Runs an observer until it is told to stop.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    super::validator::run_as(arguments, NodeRole::Observer).await
}
