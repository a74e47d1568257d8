//! The part of a node that is to be voted in: a session key on its volume, and the proof that it holds it.

use node_api::proto;
use node_core::{
    consensus::{Input, SessionState},
    session::{NotCleared, SessionStatement},
    types::{Epoch, SessionKey},
};

use super::{ceremony::Part, lifecycle::LifecycleError, perform::PerformError, running::Running};

impl Running {
    /// Makes a session key of this epoch if there is none, and proves that the node holds it.
    pub fn voter_report(&mut self, part: Part, epoch: Epoch) -> Result<proto::VoterReport, LifecycleError> {
        if part == Part::Observer {
            let problem = "an observer never votes: run this node with role validator, then it can be voted in";
            return Err(LifecycleError::not_now(problem));
        }
        if self.engine.status().session != SessionState::NotAVoter {
            return Err(LifecycleError::not_now("this node is a voter already"));
        }
        let session_key = self.joining_key(epoch)?;
        let (incarnation, identity) = (self.view.incarnation, self.performer.identity);
        let statement = SessionStatement::voter_possession(&incarnation, &identity, epoch, &session_key);
        let possession = self.performer.sessions.sign(&session_key, &statement);
        let possession =
            possession.ok_or_else(|| LifecycleError::not_now(format!("session key {session_key} is not held")))?;
        Ok(proto::VoterReport {
            incarnation: incarnation.as_bytes().to_vec(),
            identity: identity.as_bytes().to_vec(),
            epoch: epoch.get(),
            session_key: session_key.as_bytes().to_vec(),
            possession: possession.as_bytes().to_vec(),
        })
    }

    /// The key of the last report, while it can be used, else a new one. Keys of former epochs can never count.
    fn joining_key(&mut self, epoch: Epoch) -> Result<SessionKey, LifecycleError> {
        let sessions = &mut self.performer.sessions;
        let (mine, outdated): (Vec<_>, Vec<_>) = sessions.proposed().into_iter().partition(|(_, made)| *made == epoch);
        for (key, _) in outdated {
            sessions.retire(&key)?;
        }
        for (key, _) in mine {
            match sessions.hold(&key)? {
                Ok(()) => return Ok(key),
                Err(NotCleared::Waiting(reason)) => return Err(LifecycleError::not_now(reason)),
                Err(NotCleared::Never(reason)) => {
                    tracing::info!(session_key = %key, %reason, "a key of this volume cannot be used, making another");
                }
            }
        }
        let key = sessions.make(epoch)?;
        let session_key = key.session_key();
        self.step(Input::Made { key, epoch })
            .map_err(|error: PerformError| LifecycleError::Volume { problem: crate::causes::chain(&error) })?;
        Ok(session_key)
    }
}
