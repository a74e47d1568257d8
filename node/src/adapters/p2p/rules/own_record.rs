//! The record of this node: when it is signed anew, and with which number.

use node_core::{
    crypto::{KeyPair, SigningBytes},
    types::{Hash, Identity, Incarnation, PeerAddress, PeerRecord, SignedPeerRecord, TimeMs},
};

/// How long a record counts. Half of it later it is signed anew, so that one that travels slowly still counts.
const LIFETIME_MS: u64 = 2 * 3_600 * 1_000;

/// What this node says of itself.
#[derive(Debug)]
pub struct OwnRecord {
    key: KeyPair,
    addresses: Vec<PeerAddress>,
    /// The largest number that is in the world.
    sequence: u64,
    newest: Option<SignedPeerRecord>,
}

impl OwnRecord {
    /// Of the holder of this key, who listens at these addresses. Without an address there is nothing to say.
    pub fn new(key: KeyPair, addresses: Vec<PeerAddress>) -> Self {
        Self { key, addresses, sequence: 0, newest: None }
    }

    /// The newest record, if one was signed.
    pub fn newest(&self) -> Option<&SignedPeerRecord> {
        self.newest.as_ref()
    }

    /// Somebody has a record of this node with this number: an earlier process, whose clock was ahead, made it.
    pub fn on_seen(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Signs a new record if the last one is old, has another certificate's key, or a smaller number than one in the world.
    pub fn renew(&mut self, incarnation: Incarnation, tls_key: Hash, now: TimeMs) -> Option<&SignedPeerRecord> {
        let good = self.newest.as_ref().is_some_and(|signed| {
            let record = &signed.record;
            let young = record.expires > now.saturating_add(LIFETIME_MS / 2);
            young && record.tls_key == tls_key && record.sequence >= self.sequence
        });
        if good || self.addresses.is_empty() {
            return None;
        }
        self.sequence = now.get().max(self.sequence.saturating_add(1));
        let identity = Identity::new(self.key.public());
        let record = PeerRecord {
            incarnation,
            identity,
            tls_key,
            addresses: self.addresses.clone(),
            sequence: self.sequence,
            // A number from a clock that was ahead is not after the end.
            expires: TimeMs::new(now.saturating_add(LIFETIME_MS).get().max(self.sequence)),
        };
        let bytes = SigningBytes::peer_record(&incarnation, &identity, &record.hash());
        let signature = self.key.sign(&bytes);
        Some(self.newest.insert(SignedPeerRecord { record, signature }))
    }
}

#[cfg(test)]
mod tests {
    use node_core::{
        crypto::{KeyPair, verify_peer_record},
        types::{Hash, Incarnation, PeerAddress, TimeMs},
    };

    use super::{LIFETIME_MS, OwnRecord};

    const NOW: TimeMs = TimeMs::new(5_000);

    fn own() -> OwnRecord {
        OwnRecord::new(KeyPair::from_seed([1; 32]), vec![PeerAddress::new("here:7100").unwrap()])
    }

    fn renewed(own: &mut OwnRecord, key: u8, now: TimeMs) -> Option<u64> {
        let signed = own.renew(Incarnation::new([9; 32]), Hash::new([key; 32]), now)?;
        assert_eq!(verify_peer_record(signed), Ok(()));
        Some(signed.record.sequence)
    }

    #[test]
    fn the_record_is_signed_anew_before_it_expires_and_with_another_certificate() {
        let mut own = own();
        assert_eq!(renewed(&mut own, 1, NOW), Some(5_000));
        assert_eq!(renewed(&mut own, 1, NOW), None);
        assert_eq!(renewed(&mut own, 2, NOW), Some(5_001), "a new number even in the same millisecond");
        let half = NOW.saturating_add(LIFETIME_MS / 2);
        assert_eq!(renewed(&mut own, 2, half), Some(half.get()));
        assert_eq!(renewed(&mut own, 2, half), None);
    }

    #[test]
    fn a_record_of_an_earlier_process_with_a_larger_number_is_outdone() {
        let mut own = own();
        renewed(&mut own, 1, NOW);
        own.on_seen(9_000_000_000);
        assert_eq!(renewed(&mut own, 1, NOW), Some(9_000_000_001));
        assert_eq!(renewed(&mut own, 1, NOW), None);
        own.on_seen(3);
        assert_eq!(renewed(&mut own, 1, NOW), None);
    }

    #[test]
    fn a_node_without_an_address_signs_nothing() {
        let mut own = OwnRecord::new(KeyPair::from_seed([1; 32]), Vec::new());
        assert_eq!(renewed(&mut own, 1, NOW), None);
    }
}
