//! The decision to take over a key of the volume: only on proof that its owner has ended and that the volume is whole.

use thiserror::Error;

use super::{KeyEntry, KeyState, Owner, TripwireResult};
use crate::types::{Height, SessionKey, Uid};

/// Whether this process holds the exclusive lock on the volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VolumeLock {
    /// It does.
    Held,
    /// Another process does, or the file system does not lock.
    NotHeld,
}

/// Whether the signing log and record of the volume can be read to their end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SigningLog {
    /// They can.
    Whole,
    /// They cannot: nobody knows what was signed with the keys of this volume.
    Broken,
}

/// What keeps two machines from using a volume at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VolumeKind {
    /// It is a part of one machine.
    NodeLocal,
    /// A block device (`ReadWriteOnce`, `ReadWriteOncePod`) on storage that the user declared fencing.
    Fencing,
    /// It may be attached elsewhere.
    Network,
}

/// What the operator read live about a former owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OwnerStatement {
    /// Nothing that proves its end.
    Unknown,
    /// The pod of this owner has a deletion timestamp and the kubelet reports its container as terminated.
    Terminated(Owner),
}

/// What the operator says to a pod that asked whether it may go on with the keys of its volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StartGrant {
    /// The pod that asked.
    pub pod: Uid,
    /// The claim that its volume is bound to.
    pub claim: Uid,
    /// The kind of volume.
    pub volume: VolumeKind,
    /// What is known of the owner that the pod asked about.
    pub owner: OwnerStatement,
}

/// What this process knows about itself and its volume.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// This process.
    pub owner: Owner,
    /// The lock on the volume.
    pub lock: VolumeLock,
    /// The log on the volume.
    pub log: SigningLog,
    /// What the operator said. Outside Kubernetes the shell makes it from the configured instance id, with
    /// [`OwnerStatement::Unknown`].
    pub grant: Option<StartGrant>,
}

/// Why the former owner is known to have ended; with the lock held in each case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OwnerEnded {
    /// It released the key as its last durable act.
    Released,
    /// It ran under the kernel that now gives this process the lock.
    SameBoot,
    /// Its machine has booted again since.
    SameMachineNewBoot,
    /// Its volume is a part of this machine.
    NodeLocalVolume,
    /// Its storage keeps other machines out.
    FencingStorage,
    /// The operator read live that its container is terminated.
    OperatorProof,
}

/// Why a key is not cleared.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NotCleared {
    /// It may be later.
    #[error("not yet: {0}")]
    Waiting(#[from] Waiting),
    /// It never will be, for this process: it makes another key.
    #[error("never: {0}")]
    Never(#[from] Never),
}

/// What is missing for now.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Waiting {
    /// Another process has the volume's lock.
    #[error("the exclusive lock on the volume is not held")]
    Lock,
    /// This pod does not know its claim.
    #[error("the claim of the volume is not known yet")]
    Claim,
    /// Nothing proves that the owner has ended.
    #[error("nothing proves yet that the former owner has ended")]
    OwnerEnded,
    /// Too few nodes have answered what they know of this key.
    #[error("too few nodes have shown the newest vote of this key")]
    Tripwire,
}

/// What makes a key unusable for good.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Never {
    /// The volume is a copy: the key was made for another claim.
    #[error("the key belongs to another claim")]
    OtherClaim,
    /// The key was made by another pod that never learnt its claim.
    #[error("the key belongs to a pod that never learnt its claim")]
    ClaimNeverKnown,
    /// Votes of this key are about that the volume does not know: it was rolled back.
    #[error("the volume does not know a vote that this key signed")]
    RolledBack,
    /// The log cannot be read to its end.
    #[error("the signing log of the volume is broken")]
    BrokenLog,
    /// The key is retired.
    #[error("the key is retired")]
    Retired,
}

/// The proof that the former owner of one key has ended. Made by [`decide_owner`] alone. It lets this process become the
/// owner; whether the volume is whole is another question, which the tripwire answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Succession {
    key: SessionKey,
    former: Owner,
    owner: Owner,
    reason: OwnerEnded,
}

impl Succession {
    /// The key.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        self.key
    }

    /// The owner that has ended.
    #[must_use]
    pub fn former(&self) -> &Owner {
        &self.former
    }

    /// This process.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// How the end of the former owner is known.
    #[must_use]
    pub fn reason(&self) -> OwnerEnded {
        self.reason
    }
}

/// The decision to take over one key, with its reason. Made by [`decide`] alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TakeOver {
    succession: Succession,
    nothing_up_to: Height,
}

impl TakeOver {
    /// Why the former owner is known to have ended.
    #[must_use]
    pub fn succession(&self) -> &Succession {
        &self.succession
    }

    /// How the end of the former owner is known.
    #[must_use]
    pub fn reason(&self) -> OwnerEnded {
        self.succession.reason
    }

    /// The key signs nothing at this height or below.
    #[must_use]
    pub fn nothing_up_to(&self) -> Height {
        self.nothing_up_to
    }
}

/// Decides whether this process may take over a key. Reasons that never pass come first: then another key is made
/// without waiting for answers.
pub fn decide(entry: &KeyEntry, here: &Surroundings, tripwire: &TripwireResult) -> Result<TakeOver, NotCleared> {
    let succession = match (decide_owner(entry, here), tripwire) {
        (Err(NotCleared::Never(reason)), _) => return Err(reason.into()),
        (_, TripwireResult::RolledBack) => return Err(Never::RolledBack.into()),
        (succession, TripwireResult::Passed { .. } | TripwireResult::Waiting { .. }) => succession?,
    };
    Ok(TakeOver { succession, nothing_up_to: passed(tripwire)? })
}

/// Decides whether this process may become the owner of a key: the first half of [`decide`].
pub fn decide_owner(entry: &KeyEntry, here: &Surroundings) -> Result<Succession, NotCleared> {
    if entry.state() == KeyState::Retired {
        return Err(Never::Retired.into());
    }
    if here.log == SigningLog::Broken {
        return Err(Never::BrokenLog.into());
    }
    check_claim(entry, here)?;
    if here.lock == VolumeLock::NotHeld {
        return Err(Waiting::Lock.into());
    }
    let reason = owner_ended(entry, here).ok_or(Waiting::OwnerEnded)?;
    Ok(Succession { key: entry.session_key(), former: *entry.owner(), owner: here.owner, reason })
}

/// The height up to which nothing is signed, once the tripwire has passed.
pub(super) fn passed(tripwire: &TripwireResult) -> Result<Height, NotCleared> {
    match tripwire {
        TripwireResult::Passed { nothing_up_to } => Ok(*nothing_up_to),
        TripwireResult::Waiting { .. } => Err(Waiting::Tripwire.into()),
        TripwireResult::RolledBack => Err(Never::RolledBack.into()),
    }
}

/// A grant counts only for the pod that it names: a late one for an earlier pod says nothing.
fn grant_of(here: &Surroundings) -> Option<&StartGrant> {
    here.grant.as_ref().filter(|grant| grant.pod == here.owner.pod)
}

/// The key was made for the claim of this volume. A pod never changes its volume, so a key that this very pod owned is
/// of this claim even before the operator names it.
fn check_claim(entry: &KeyEntry, here: &Surroundings) -> Result<(), NotCleared> {
    let same_pod = entry.owner().pod == here.owner.pod;
    match (entry.claim(), grant_of(here)) {
        (Some(claim), Some(grant)) if claim == grant.claim => Ok(()),
        (Some(_), Some(_)) => Err(Never::OtherClaim.into()),
        (_, None) | (None, _) if same_pod => Ok(()),
        (Some(_), None) => Err(Waiting::Claim.into()),
        (None, _) => Err(Never::ClaimNeverKnown.into()),
    }
}

/// How the end of the owner is known, the reasons that need nobody else first. The caller has checked the lock.
fn owner_ended(entry: &KeyEntry, here: &Surroundings) -> Option<OwnerEnded> {
    let former = entry.owner();
    if entry.released() {
        return Some(OwnerEnded::Released);
    }
    if let (Some(former_boot), Some(boot)) = (former.boot, here.owner.boot) {
        if former_boot == boot {
            return Some(OwnerEnded::SameBoot);
        }
        if former.machine.is_some() && former.machine == here.owner.machine {
            return Some(OwnerEnded::SameMachineNewBoot);
        }
    }
    let grant = grant_of(here)?;
    match grant.volume {
        VolumeKind::NodeLocal => return Some(OwnerEnded::NodeLocalVolume),
        VolumeKind::Fencing => return Some(OwnerEnded::FencingStorage),
        VolumeKind::Network => {}
    }
    match &grant.owner {
        OwnerStatement::Terminated(owner) if owner == former => Some(OwnerEnded::OperatorProof),
        OwnerStatement::Terminated(_) | OwnerStatement::Unknown => None,
    }
}
