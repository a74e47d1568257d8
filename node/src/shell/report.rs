//! The answers of `Node` and `Validators`, put together from what the main loop knows.

use node_api::{config::NodeRole, proto, tls::TlsStore};
use node_core::{
    consensus::{EngineStatus, SessionState},
    session::KeyState,
    types::{Height, Identity, VoterSet},
};
use tokio::time::Instant;

use super::{
    ceremony::Ceremony,
    precommits::{SeenPrecommits, WINDOW_HEIGHTS},
    sessions::Sessions,
    view::View,
};
use crate::{
    adapters::p2p::Links,
    commands::{COMMIT, VERSION},
};

/// Longest reason that is shown.
const REASON_CHARS_MAX: usize = 1000;

/// What does not change while the process runs.
#[derive(Debug)]
pub struct Facts {
    /// The role of the configuration.
    pub role: NodeRole,
    /// Peers in the configuration.
    pub peers_configured: usize,
    /// Pod UID or instance id.
    pub instance: String,
    /// When the process started.
    pub start: Instant,
    /// The certificate that is presented now.
    pub tls: std::sync::Arc<TlsStore>,
}

/// What a node says before its chain starts; the running part is added by [`add_running`].
pub fn status(facts: &Facts, ceremony: &Ceremony, sessions: &Sessions, links: &Links) -> proto::GetStatusResponse {
    let material = facts.tls.current();
    let certificate = material.facts();
    let accepted = ceremony.accepted();
    let state =
        if accepted.is_some() { proto::NodeState::GenesisAccepted } else { proto::NodeState::WaitingForGenesis };
    let genesis_hash = accepted.map(|accepted| accepted.hash.as_bytes().to_vec()).unwrap_or_default();
    let session_state = match (facts.role, sessions.newest()) {
        (NodeRole::Observer, _) => proto::SessionState::NotAVoter,
        (NodeRole::Validator, None) => proto::SessionState::None,
        (NodeRole::Validator, Some(_)) => proto::SessionState::Proposed,
    };
    proto::GetStatusResponse {
        version: VERSION.to_owned(),
        commit: COMMIT.to_owned(),
        chain_id: ceremony.chain_id.to_string(),
        role: match facts.role {
            NodeRole::Validator => "validator".to_owned(),
            NodeRole::Observer => "observer".to_owned(),
        },
        identity: ceremony.identity.as_bytes().to_vec(),
        incarnation: genesis_hash.clone(),
        genesis_hash,
        state: state.into(),
        session: Some(proto::Session {
            state: session_state.into(),
            session_key: sessions.newest().map(|key| key.session_key().as_bytes().to_vec()).unwrap_or_default(),
            epoch: sessions.newest().map_or(0, |key| key.epoch().get()),
            last_signed_height: 0,
        }),
        peers_connected: count(links.connected().len()),
        peers_configured: count(facts.peers_configured),
        protocol_version: accepted.map_or(0, |accepted| accepted.genesis.protocol_version),
        state_version: accepted.map_or(0, |accepted| accepted.genesis.state_version),
        certificate_expires_s: certificate.validity.not_after_s(),
        certificate_fingerprint: certificate.fingerprint.to_vec(),
        instance: facts.instance.clone(),
        uptime_ms: milliseconds(facts.start.elapsed()),
        ..proto::GetStatusResponse::default()
    }
}

/// What the running chain adds.
#[derive(Debug)]
pub struct RunningFacts<'a> {
    /// The engine's own words.
    pub engine: &'a EngineStatus,
    /// The executed chain.
    pub view: &'a View,
    /// Session keys.
    pub sessions: &'a Sessions,
    /// Why the node has stopped for good, if it has.
    pub halted: Option<&'a str>,
    /// What keeps the node from signing, or what is alarming.
    pub remark: Option<String>,
    /// The operator could help.
    pub asking: bool,
    /// The oldest block on disk.
    pub lowest: Option<Height>,
    /// The newest height that this volume has signed.
    pub last_signed: Height,
}

/// Adds the running chain to a status.
pub fn add_running(status: &mut proto::GetStatusResponse, running: &RunningFacts<'_>) {
    let RunningFacts { engine, view, sessions, halted, remark, asking, lowest, last_signed } = running;
    let state = match (halted, asking, engine.synced) {
        (Some(_), _, _) => proto::NodeState::Halted,
        (None, true, _) => proto::NodeState::WaitingForGrant,
        (None, false, false) => proto::NodeState::Syncing,
        (None, false, true) => proto::NodeState::Running,
    };
    let reason = halted.map(ToOwned::to_owned).or_else(|| remark.clone()).unwrap_or_default();
    status.set_state(state);
    status.state_reason = reason.chars().take(REASON_CHARS_MAX).collect();
    status.incarnation = view.incarnation.as_bytes().to_vec();
    status.height = view.height().get();
    status.block_hash = view.block().as_bytes().to_vec();
    status.block_time_ms = view.progress.time.get();
    status.block_age_ms = milliseconds(view.block_age());
    status.lowest_height = lowest.map_or(0, Height::get);
    status.highest_known_height = view.highest_claimed().max(engine.tip).get();
    status.synced = halted.is_none() && engine.synced;
    status.signing_enabled = halted.is_none() && engine.signing;
    status.mempool_transactions = u64::try_from(engine.mempool_transactions).unwrap_or(u64::MAX);
    status.session = Some(session(engine, sessions, *last_signed));
}

fn session(engine: &EngineStatus, sessions: &Sessions, last_signed: Height) -> proto::Session {
    let on_volume = engine.session_key.as_ref().and_then(|key| sessions.entry(key)).or_else(|| sessions.newest());
    let state = match engine.session {
        SessionState::NotAVoter => proto::SessionState::NotAVoter,
        SessionState::Effective => proto::SessionState::Cleared,
        SessionState::Waiting => match on_volume {
            None => proto::SessionState::None,
            Some(key) if key.state() == KeyState::Proposed && engine.session_key != Some(key.session_key()) => {
                proto::SessionState::Proposed
            }
            Some(_) => proto::SessionState::WaitingForProof,
        },
        SessionState::Rotating => proto::SessionState::Rotating,
        SessionState::IdentityContested => proto::SessionState::IdentityContested,
        SessionState::Stopped => proto::SessionState::Compromised,
    };
    proto::Session {
        state: state.into(),
        session_key: on_volume.map(|key| key.session_key().as_bytes().to_vec()).unwrap_or_default(),
        epoch: on_volume.map_or(0, |key| key.epoch().get()),
        last_signed_height: last_signed.get(),
    }
}

/// Who votes, and whom this node has seen voting.
pub fn validators(
    identity: &Identity,
    view: &View,
    seen: &SeenPrecommits,
    links: &Links,
) -> proto::GetValidatorsResponse {
    let now = Instant::now();
    let height = view.height();
    let empty: &[_] = &[];
    let entries = view.next_voters().map_or(empty, VoterSet::entries);
    let voters = entries.iter().map(|entry| {
        let sighting = seen.of(&entry.identity, height, now);
        proto::Voter {
            identity: entry.identity.as_bytes().to_vec(),
            power: entry.power.get(),
            session_key: entry.session_key.as_bytes().to_vec(),
            epoch: entry.epoch.get(),
            precommit_heights_seen: sighting.map_or(0, |sighting| sighting.heights_in_window),
            last_precommit_height: sighting.map_or(0, |sighting| sighting.last_height.get()),
            last_precommit_age_ms: sighting.map_or(0, |sighting| milliseconds(sighting.last_age)),
            connected: entry.identity == *identity || links.is_connected(&entry.identity),
        }
    });
    let heights = [height.next(), height.next().next(), height.next().next().next()];
    let sets = heights.into_iter().filter_map(|height| {
        let set = view.voters(height)?;
        Some(proto::VoterSetSummary {
            height: height.get(),
            hash: set.hash().as_bytes().to_vec(),
            total_power: set.total_power().get(),
            voters: count(set.count()),
        })
    });
    proto::GetValidatorsResponse {
        height: height.get(),
        block_hash: view.block().as_bytes().to_vec(),
        block_age_ms: milliseconds(view.block_age()),
        total_power: view.next_voters().map_or(0, |set| set.total_power().get()),
        voters: voters.collect(),
        sets: sets.collect(),
        pending_rotations: view.rotations.all().iter().map(pending_rotation).collect(),
        window_heights: u32::try_from(height.get().min(WINDOW_HEIGHTS)).unwrap_or(u32::MAX),
        reporter: identity.as_bytes().to_vec(),
    }
}

fn pending_rotation(rotation: &node_core::ledger::PendingRotation) -> proto::PendingRotation {
    proto::PendingRotation {
        identity: rotation.identity.as_bytes().to_vec(),
        session_key: rotation.new_key.as_bytes().to_vec(),
        epoch: rotation.epoch.get(),
        effective_height: rotation.counts_from().get(),
        co_signed: rotation.consent == node_core::ledger::Consent::CoSigned,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
