//! `althing-node status`: what a node says of itself, and of the voters.

use clap::Args;
use node_api::proto;
use serde_json::{Value, json};

use super::{
    CommandError,
    connection::{Connection, failed},
    output::{self, Output},
};

const EXAMPLES: &str = "\
Examples:
  althing-node status --endpoint 127.0.0.1:7200 --tls ./client
  althing-node status --validators --output json | jq '.validators.voters[].precommitHeightsSeen'

This is the view of one node. A fact about the chain counts when f+1 voters report it: ask several.
Exit codes: 0 the node answered, 3 the certificate cannot be used, 5 no answer, 6 refused.";

/// Ask a node for its status.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Also ask who votes and whom this node saw voting.
    #[arg(long)]
    validators: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { connection, validators, output } = arguments;
    let client = connection.open().await?;
    let mut document = node(client.status().await.map_err(failed("failed to ask for the status"))?);
    if validators {
        let answer = client.validators().await.map_err(failed("failed to ask for the validators"))?;
        if let Some(map) = document.as_object_mut() {
            map.insert("validators".to_owned(), voters(answer));
        }
    }
    output::print(output, &document)
}

fn node(status: proto::GetStatusResponse) -> Value {
    let state = name(status.state().as_str_name(), "NODE_STATE_");
    let proto::GetStatusResponse {
        version,
        commit,
        chain_id,
        role,
        identity,
        genesis_hash,
        state: _,
        state_reason,
        height,
        block_hash,
        block_time_ms,
        block_age_ms,
        lowest_height,
        highest_known_height,
        synced,
        signing_enabled,
        session,
        peers_connected,
        peers_configured,
        protocol_version,
        state_version,
        certificate_expires_s,
        certificate_fingerprint,
        instance,
        uptime_ms,
        mempool_transactions,
        incarnation,
        volume_size_bytes,
        volume_available_bytes,
    } = status;
    json!({
        "version": version,
        "commit": commit,
        "chainId": chain_id,
        "role": role,
        "identity": hex::encode(identity),
        "instance": instance,
        "state": state,
        "stateReason": state_reason,
        "height": height,
        "blockHash": hex::encode(block_hash),
        "blockTimeMs": block_time_ms,
        "blockAgeMs": block_age_ms,
        "lowestHeight": lowest_height,
        "highestKnownHeight": highest_known_height,
        "synced": synced,
        "signingEnabled": signing_enabled,
        "session": session.map(session_value),
        "peersConnected": peers_connected,
        "peersConfigured": peers_configured,
        "mempoolTransactions": mempool_transactions,
        "genesisHash": hex::encode(genesis_hash),
        "incarnation": hex::encode(incarnation),
        "protocolVersion": protocol_version,
        "stateVersion": state_version,
        "certificateExpiresS": certificate_expires_s,
        "certificateFingerprint": hex::encode(certificate_fingerprint),
        "uptimeMs": uptime_ms,
        "volumeSizeBytes": volume_size_bytes,
        "volumeAvailableBytes": volume_available_bytes,
    })
}

fn session_value(session: proto::Session) -> Value {
    let state = name(session.state().as_str_name(), "SESSION_STATE_");
    let proto::Session { state: _, session_key, epoch, last_signed_height } = session;
    json!({
        "state": state,
        "sessionKey": hex::encode(session_key),
        "epoch": epoch,
        "lastSignedHeight": last_signed_height,
    })
}

fn voters(answer: proto::GetValidatorsResponse) -> Value {
    let proto::GetValidatorsResponse {
        height,
        block_hash: _,
        block_age_ms: _,
        total_power,
        voters,
        sets: _,
        pending_rotations,
        window_heights,
        reporter: _,
    } = answer;
    json!({
        "height": height,
        "totalPower": total_power,
        "windowHeights": window_heights,
        "voters": voters.into_iter().map(voter).collect::<Vec<_>>(),
        "pendingRotations": pending_rotations.into_iter().map(rotation).collect::<Vec<_>>(),
    })
}

fn voter(voter: proto::Voter) -> Value {
    let proto::Voter {
        identity,
        power,
        session_key,
        epoch,
        precommit_heights_seen,
        last_precommit_height,
        last_precommit_age_ms,
        connected,
    } = voter;
    json!({
        "identity": hex::encode(identity),
        "power": power,
        "sessionKey": hex::encode(session_key),
        "epoch": epoch,
        "precommitHeightsSeen": precommit_heights_seen,
        "lastPrecommitHeight": last_precommit_height,
        "lastPrecommitAgeMs": last_precommit_age_ms,
        "connected": connected,
    })
}

fn rotation(rotation: proto::PendingRotation) -> Value {
    let proto::PendingRotation { identity, session_key, epoch, effective_height, co_signed } = rotation;
    json!({
        "identity": hex::encode(identity),
        "sessionKey": hex::encode(session_key),
        "epoch": epoch,
        "effectiveHeight": effective_height,
        "coSigned": co_signed,
    })
}

/// `NODE_STATE_WAITING_FOR_GENESIS` as `WaitingForGenesis`.
fn name(proto_name: &str, prefix: &str) -> String {
    let words = proto_name.strip_prefix(prefix).unwrap_or(proto_name).split('_');
    words
        .map(|word| {
            let mut letters = word.chars();
            letters.next().into_iter().collect::<String>() + &letters.as_str().to_ascii_lowercase()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn states_are_written_as_in_the_resources() {
        assert_eq!(name("NODE_STATE_WAITING_FOR_GENESIS", "NODE_STATE_"), "WaitingForGenesis");
        assert_eq!(name("SESSION_STATE_NOT_A_VOTER", "SESSION_STATE_"), "NotAVoter");
    }
}
