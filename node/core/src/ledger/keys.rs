//! The keys of the state: one byte for the kind of entry, 32 for its owner.

use std::fmt;

use crate::types::{AccountId, Identity, SessionKey};

/// The kinds of entry.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum StateSpace {
    /// What the chain is: incarnation, versions, parameters, governance.
    Chain = 1,
    /// The last executed block and the results of the one before.
    Progress = 2,
    /// The voter sets of the next three heights.
    Sets = 3,
    /// Rotations that do not count yet.
    Rotations = 4,
    /// One account's nonce and balance.
    Account = 5,
    /// The highest epoch that an identity ever had.
    Epoch = 6,
    /// A session key that was in a voter entry.
    UsedSessionKey = 7,
    /// Parameters that do not count yet.
    Parameters = 8,
}

/// The key of one entry of the state. 33 bytes, in the order of which a [`super::WriteSet`] is written.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StateKey([u8; 33]);

impl StateKey {
    /// The number of bytes.
    pub const SIZE: usize = 33;

    fn of(space: StateSpace, owner: &[u8; 32]) -> Self {
        let mut bytes = [0; Self::SIZE];
        if let Some((first, rest)) = bytes.split_first_mut() {
            *first = space as u8;
            rest.copy_from_slice(owner);
        }
        Self(bytes)
    }

    /// What the chain is.
    #[must_use]
    pub fn chain() -> Self {
        Self::of(StateSpace::Chain, &[0; 32])
    }

    /// The last executed block.
    #[must_use]
    pub fn progress() -> Self {
        Self::of(StateSpace::Progress, &[0; 32])
    }

    /// The next three voter sets.
    #[must_use]
    pub fn sets() -> Self {
        Self::of(StateSpace::Sets, &[0; 32])
    }

    /// The rotations that do not count yet.
    #[must_use]
    pub fn rotations() -> Self {
        Self::of(StateSpace::Rotations, &[0; 32])
    }

    /// The parameters that do not count yet.
    #[must_use]
    pub fn parameters() -> Self {
        Self::of(StateSpace::Parameters, &[0; 32])
    }

    /// An account.
    #[must_use]
    pub fn account(account: &AccountId) -> Self {
        Self::of(StateSpace::Account, account.as_bytes())
    }

    /// The highest epoch of an identity.
    #[must_use]
    pub fn epoch(identity: &Identity) -> Self {
        Self::of(StateSpace::Epoch, identity.as_bytes())
    }

    /// Whether a session key was used.
    #[must_use]
    pub fn used_session_key(key: &SessionKey) -> Self {
        Self::of(StateSpace::UsedSessionKey, key.as_bytes())
    }

    /// The bytes under which a store keeps the entry.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
