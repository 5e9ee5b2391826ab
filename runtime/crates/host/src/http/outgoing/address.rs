//! Which addresses a name may resolve to: only such that are public. A name says nothing about the machine that it leads to,
//! and whoever answers for it can change that at any moment, so what is reachable from this machine alone must be protected
//! by address.
//!
//! The ranges are those of IANA's registries of special-purpose addresses (RFC 6890), and what clouds serve their machines'
//! credentials from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is that no name may lead to; `None` if it is public.
pub(super) fn prohibited(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => prohibited_v4(address),
        IpAddr::V6(address) => prohibited_v6(address),
    }
}

fn prohibited_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [169, 254, 169, 254] | [168, 63, 129, 16] => "a cloud metadata address",
        [0, ..] => "an unspecified address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [127, ..] => "a loopback address",
        [169, 254, ..] => "a link-local address",
        [100, 64..=127, ..] => "an address shared by a provider's customers",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "a documentation address",
        [198, 18..=19, ..] => "a benchmark address",
        [192, 0, 0, _] | [192, 88, 99, _] => "an address of a protocol",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

fn prohibited_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    Some(match [a, b, c, d, e, f] {
        // Addresses of version 4 in other clothes: mapped, translated and NAT64, then 6to4.
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            return prohibited_v4(embedded(g, h));
        }
        [0x2002, ..] => return prohibited_v4(embedded(b, c)),
        [0xfd00, 0xec2, 0, 0, 0, 0] if [g, h] == [0, 0x254] => "a cloud metadata address",
        [0, 0, 0, 0, 0, 0] if [g, h] == [0, 0] => "an unspecified address",
        [0, 0, 0, 0, 0, 0] if [g, h] == [0, 1] => "a loopback address",
        [0xfc00..=0xfdff, ..] => "a unique-local address",
        [0xfe80..=0xfeff, ..] => "a link-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => "a documentation address",
        // Among them Teredo, which has an address of version 4 in it, and benchmarks.
        [0x2001, 0..=0x01ff, ..] => "an address of a protocol",
        [0x2000..=0x3fff, ..] => return None,
        // Nothing else was given to anybody yet.
        _ => "a reserved address",
    })
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_reached() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "168.63.129.17",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2a00::1",
            "3ffe:ffff::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(prohibited(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn all_others_are_not() {
        for (what, texts) in [
            ("a cloud metadata address", &["169.254.169.254", "168.63.129.16", "fd00:ec2::254"][..]),
            (
                "a cloud metadata address",
                &["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"],
            ),
            ("an unspecified address", &["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"]),
            (
                "a private address",
                &["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
            ),
            (
                "a private address",
                &["::ffff:10.0.0.1", "64:ff9b::192.168.0.1", "2002:c0a8:101::1", "::ffff:0:10.0.0.1"],
            ),
            (
                "a loopback address",
                &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "2002:7f00:1::"],
            ),
            ("a link-local address", &["169.254.0.1", "fe80::1", "febf::1", "fec0::1"]),
            (
                "an address shared by a provider's customers",
                &["100.64.0.0", "100.100.100.200", "100.127.255.255"],
            ),
            ("a unique-local address", &["fc00::", "fd12:3456::1", "fd20:ce::254"]),
            ("a multicast address", &["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"]),
            (
                "a documentation address",
                &["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff:fff::1"],
            ),
            ("a benchmark address", &["198.18.0.1", "198.19.255.255"]),
            (
                "an address of a protocol",
                &["192.0.0.192", "192.88.99.1", "2001::1", "2001:2::1", "2001:1ff::1"],
            ),
            (
                "a reserved address",
                &["240.0.0.1", "255.255.255.255", "::2", "::7f00:1", "100::1", "64:ff9b:1::1"],
            ),
            ("a reserved address", &["1fff::1", "4000::1", "5f00::1", "fbff::1"]),
        ] {
            for text in texts {
                assert_eq!(prohibited(text.parse().unwrap()), Some(what), "{text}");
            }
        }
    }
}
