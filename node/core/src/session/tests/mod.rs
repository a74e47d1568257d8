//! The rules of signing sessions, one test each.

mod clearance;
mod keylist;
mod question;
mod record;
mod signer;
mod tripwire;

use super::{KeyList, NewKey, Owner, OwnerStatement, SigningLog, StartGrant, Surroundings, VolumeKind, VolumeLock};
use crate::{
    fixtures::uid,
    types::{Epoch, SessionKey, TimeMs},
};

/// A process of a pod, in a boot of a machine.
fn owner(pod: &str, boot: &str, machine: &str) -> Owner {
    Owner { pod: uid(pod), container_start: TimeMs::new(1), boot: Some(uid(boot)), machine: Some(uid(machine)) }
}

/// A volume with one key, made by this owner under this claim.
fn volume(maker: Owner, claim: &str) -> (KeyList, SessionKey) {
    let mut list = KeyList::new();
    let new = NewKey { seed: [1; 32], epoch: Epoch::FIRST, claim: Some(uid(claim)), owner: maker };
    let key = list.make(new).unwrap().session_key();
    (list, key)
}

fn grant(pod: &str, claim: &str) -> StartGrant {
    StartGrant { pod: uid(pod), claim: uid(claim), volume: VolumeKind::Network, owner: OwnerStatement::Unknown }
}

/// A process with the lock, a whole log, and a grant for a network volume that proves nothing.
fn here(owner: Owner, grant: StartGrant) -> Surroundings {
    Surroundings { owner, lock: VolumeLock::Held, log: SigningLog::Whole, grant: Some(grant) }
}
