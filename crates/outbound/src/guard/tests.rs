//! The filter, as tables and against every address there is.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

fn list(items: &[&str]) -> AllowList {
    let items: Vec<String> = items.iter().map(|&item| item.to_owned()).collect();
    AllowList::parse(&items).unwrap()
}

#[test]
fn addresses_of_the_internet_are_public() {
    for address in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.0.1",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00::1",
        "2001:200::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert!(is_public(ip(address)), "{address}");
    }
}

#[test]
fn every_other_kind_of_address_is_not() {
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!is_public(ip(address)), "{address}");
    }
}

#[test]
fn a_list_opens_what_it_names_and_nothing_beside_it() {
    let open = list(&["hooks.internal", "*.svc.local", "10.1.2.3", "fd00:1::/32", "[::1]"]);
    for (host, address) in [
        ("hooks.internal", "10.9.9.9"),
        ("a.b.svc.local", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("other.example", "10.1.2.3"),
        ("other.example", "::ffff:10.1.2.3"),
        ("[fd00:1::7]", "fd00:1::7"),
        ("localhost", "::1"),
        ("other.example", "1.1.1.1"),
    ] {
        assert!(open.permits(host, ip(address)), "{host} at {address}");
    }
    for (host, address) in [
        ("hooks.internal.evil.example", "10.9.9.9"),
        ("xhooks.internal", "10.9.9.9"),
        ("svc.local", "127.0.0.1"),
        ("evilsvc.local", "127.0.0.1"),
        ("10.1.2.4", "10.1.2.4"),
        ("[fd00:2::7]", "fd00:2::7"),
        ("localhost", "127.0.0.1"),
    ] {
        assert!(!open.permits(host, ip(address)), "{host} at {address}");
    }
}

#[test]
fn names_are_the_same_however_they_are_written() {
    assert_eq!(list(&["Hooks.INTERNAL"]), list(&["hooks.internal"]));
    assert!(list(&["bücher.example"]).permits("xn--bcher-kva.example", ip("10.0.0.1")));
}

#[test]
fn what_names_no_host_is_refused() {
    for item in ["", "a b", "10.0.0.0/33", "*.10.0.0.1", "http://a.example", "*", "a/b"] {
        assert_eq!(AllowList::parse(&[item.to_owned()]), Err(NotAHost(item.to_owned())));
    }
}

proptest! {
    #[test]
    fn the_ways_to_write_an_ipv4_address_in_ipv6_change_nothing(bits: u32) {
        let inner = Ipv4Addr::from(bits);
        let [a, b, c, d] = inner.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let carriers = [
            inner.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ];
        for carrier in carriers {
            prop_assert_eq!(is_public(IpAddr::V6(carrier)), is_public(IpAddr::V4(inner)));
        }
    }

    #[test]
    fn no_public_address_is_one_that_the_standard_library_calls_special(bits: u32) {
        let address = Ipv4Addr::from(bits);
        let special = address.is_private()
            || address.is_loopback()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_documentation()
            || address.is_unspecified();
        prop_assert!(!(special && is_public(IpAddr::V4(address))));
    }

    #[test]
    fn the_same_holds_for_ipv6(high: u64, low: u64, prefix in 0_u16..=0xffff) {
        let mut segments = Ipv6Addr::from((u128::from(high) << 64) | u128::from(low)).segments();
        segments[0] = prefix;
        let address = Ipv6Addr::from(segments);
        let special = address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || address.is_unique_local()
            || address.is_unicast_link_local();
        prop_assert!(!(special && is_public(IpAddr::V6(address))));
    }
}
