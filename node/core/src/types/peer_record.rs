//! Where a node can be reached, in its own words: a record that its identity key signs.

use std::{collections::BTreeSet, fmt};

use thiserror::Error;

use super::{Hash, Identity, Incarnation, Signature, TimeMs};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The most addresses of one node.
pub const PEER_ADDRESSES_MAX: usize = 8;
/// The longest address: a DNS name of 253 bytes, a colon and a port.
pub const PEER_ADDRESS_BYTES_MAX: usize = 259;
/// The most records that one message carries.
pub const PEER_RECORDS_PER_MESSAGE_MAX: usize = 32;

const PEER_RECORD_VERSION: u8 = 1;

/// The text is no address.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("it is not host:port with a DNS name, an IPv4 address or an IPv6 address in brackets")]
pub struct InvalidPeerAddress;

/// `host:port`; the host is a DNS name, an IPv4 address, or an IPv6 address in brackets. The port is not 0.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PeerAddress(String);

impl PeerAddress {
    /// Checks a text.
    pub fn new(text: &str) -> Result<Self, InvalidPeerAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidPeerAddress)?;
        let port_is_valid = port.parse::<u16>().is_ok_and(|port| port != 0);
        let fits = text.len() <= PEER_ADDRESS_BYTES_MAX;
        if fits && port_is_valid && is_host(host) { Ok(Self(text.to_owned())) } else { Err(InvalidPeerAddress) }
    }

    /// The address as `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| address.parse::<core::net::Ipv6Addr>().is_ok());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    (1..=253).contains(&host.len()) && host.bytes().all(allowed)
}

/// What a node says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRecord {
    /// The chain, and which life of it.
    pub incarnation: Incarnation,
    /// Who is meant.
    pub identity: Identity,
    /// SHA-256 of the public key in its certificate, so that no authority can put another node at an address.
    pub tls_key: Hash,
    /// Where it listens for peers: 1 to [`PEER_ADDRESSES_MAX`], none of them twice.
    pub addresses: Vec<PeerAddress>,
    /// A record with a larger number takes the place of this one. Its maker takes the time in milliseconds; never after
    /// `expires`.
    pub sequence: u64,
    /// It counts before this moment only.
    pub expires: TimeMs,
}

impl PeerRecord {
    /// What the signature is about.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::tagged("althing/peer-record-body/1", &self.encode())
    }
}

/// A record with the signature of its identity key, which nobody has verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedPeerRecord {
    /// What is said.
    pub record: PeerRecord,
    /// By whom it is said.
    pub signature: Signature,
}

impl Encode for PeerAddress {
    fn encode_to(&self, writer: &mut Writer) {
        writer.bytes(self.0.as_bytes());
    }
}

impl Decode for PeerAddress {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = reader.bytes("peer address", PEER_ADDRESS_BYTES_MAX)?;
        let text = core::str::from_utf8(bytes).map_err(|_| DecodeError::invalid("peer address", InvalidPeerAddress))?;
        Self::new(text).map_err(|error| DecodeError::invalid("peer address", error))
    }
}

impl Encode for PeerRecord {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(PEER_RECORD_VERSION);
        self.incarnation.encode_to(writer);
        self.identity.encode_to(writer);
        self.tls_key.encode_to(writer);
        writer.list(&self.addresses);
        writer.u64(self.sequence);
        self.expires.encode_to(writer);
    }
}

impl Decode for PeerRecord {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("PeerRecord", PEER_RECORD_VERSION)?;
        let record = Self {
            incarnation: Incarnation::decode_from(reader)?,
            identity: Identity::decode_from(reader)?,
            tls_key: Hash::decode_from(reader)?,
            addresses: reader.list("peer addresses", PEER_ADDRESSES_MAX)?,
            sequence: reader.u64("peer record sequence")?,
            expires: TimeMs::decode_from(reader)?,
        };
        let different: BTreeSet<&PeerAddress> = record.addresses.iter().collect();
        if record.addresses.is_empty() || different.len() < record.addresses.len() {
            return Err(DecodeError::invalid("peer addresses", "there are none, or one is there twice"));
        }
        if record.sequence > record.expires.get() {
            return Err(DecodeError::invalid("peer record sequence", "it is after the end"));
        }
        Ok(record)
    }
}

impl Encode for SignedPeerRecord {
    fn encode_to(&self, writer: &mut Writer) {
        self.record.encode_to(writer);
        self.signature.encode_to(writer);
    }
}

impl Decode for SignedPeerRecord {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { record: PeerRecord::decode_from(reader)?, signature: Signature::decode_from(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{PEER_ADDRESSES_MAX, PeerAddress, PeerRecord};
    use crate::{
        codec::{Decode, DecodeError, Encode},
        types::{Hash, Identity, Incarnation, TimeMs},
    };

    fn record(addresses: usize) -> PeerRecord {
        let address = |number| PeerAddress::new(&format!("node-{number}.example:7100")).unwrap();
        PeerRecord {
            incarnation: Incarnation::new([1; 32]),
            identity: Identity::new([2; 32]),
            tls_key: Hash::new([3; 32]),
            addresses: (0..addresses).map(address).collect(),
            sequence: 5,
            expires: TimeMs::new(9),
        }
    }

    #[test]
    fn a_record_with_too_many_addresses_or_none_is_refused() {
        assert_eq!(PeerRecord::decode(&record(PEER_ADDRESSES_MAX).encode()), Ok(record(PEER_ADDRESSES_MAX)));
        let refused = PeerRecord::decode(&record(PEER_ADDRESSES_MAX + 1).encode()).unwrap_err();
        assert_eq!(refused, DecodeError::TooLong { field: "peer addresses", found: 9, max: 8 });
        assert!(PeerRecord::decode(&record(0).encode()).is_err());
    }

    #[test]
    fn a_record_that_names_an_address_twice_or_numbers_itself_after_its_end_is_refused() {
        let mut twice = record(2);
        twice.addresses[1] = twice.addresses[0].clone();
        assert!(PeerRecord::decode(&twice.encode()).is_err());
        assert!(PeerRecord::decode(&PeerRecord { sequence: 10, ..record(1) }.encode()).is_err());
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["a:1", "10.0.0.1:7100", "[::1]:65535", "node.example.org:7100"] {
            assert_eq!(PeerAddress::new(text).unwrap().as_str(), text);
        }
        for text in ["", ":1", "a", "a:0", "a:65536", "::1:1", "[::1:1", "[x]:1", "a b:1", "ä:1", "http://a:1"] {
            assert!(PeerAddress::new(text).is_err(), "{text}");
        }
        assert!(PeerAddress::new(&format!("{}:7100", "x".repeat(254))).is_err());
    }
}
