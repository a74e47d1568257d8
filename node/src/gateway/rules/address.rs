//! Which address a request comes from, behind proxies that are trusted and others that are not.

use core::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Most hops of `X-Forwarded-For` that are looked at.
const HOPS_MAX: usize = 16;

/// The address that the limits count: the nearest one that is no trusted proxy.
///
/// `X-Forwarded-For` is read from the right: each proxy adds at the end whom it heard from, and everything to the left
/// of the first address that is not a trusted proxy was written by the client.
pub fn client(peer: IpAddr, forwarded: Option<&str>, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut nearest = plain(peer);
    for hop in forwarded.unwrap_or_default().rsplit(',').take(HOPS_MAX) {
        if !is_trusted(&nearest) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(address) => nearest = plain(address),
            Err(_) => break,
        }
    }
    nearest
}

/// What counts as one caller: an IPv4 address, or the /64 that one IPv6 customer has at least.
pub fn counted(address: IpAddr) -> IpAddr {
    match plain(address) {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// An IPv4 address that arrives in IPv6 clothes is the IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{client, counted};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn from(peer: &str, forwarded: &str, trusted: &[&str]) -> IpAddr {
        let trusted: Vec<_> = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        client(ip(peer), Some(forwarded), &trusted)
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        assert_eq!(from("203.0.113.9", "198.51.100.1", &[]), ip("203.0.113.9"));
        assert_eq!(from("10.0.0.1", "198.51.100.1", &["10.0.0.0/8"]), ip("198.51.100.1"));
        assert_eq!(from("10.0.0.1", "1.1.1.1, 198.51.100.1", &["10.0.0.0/8"]), ip("198.51.100.1"));
        assert_eq!(from("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.2.0.1", &["10.0.0.0/8"]), ip("198.51.100.1"));
        assert_eq!(from("::ffff:10.0.0.1", "198.51.100.1", &["10.0.0.0/8"]), ip("198.51.100.1"));
    }

    #[test]
    fn rubbish_ends_the_walk() {
        assert_eq!(from("10.0.0.1", "198.51.100.1, nonsense", &["10.0.0.0/8"]), ip("10.0.0.1"));
        assert_eq!(from("10.0.0.1", "", &["10.0.0.0/8"]), ip("10.0.0.1"));
        assert_eq!(from("10.0.0.1", &"10.0.0.2,".repeat(10_000), &["10.0.0.0/8"]), ip("10.0.0.1"));
    }

    #[test]
    fn one_ipv6_customer_is_one_caller() {
        assert_eq!(counted(ip("2001:db8:1:2:3:4:5:6")), counted(ip("2001:db8:1:2::1")));
        assert_ne!(counted(ip("2001:db8:1:2::1")), counted(ip("2001:db8:1:3::1")));
        assert_eq!(counted(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
