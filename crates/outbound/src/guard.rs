//! Which addresses may be called on behalf of somebody else.
//!
//! **Invariant:** an address is refused unless it is known to be public; an IPv6 address that
//! carries an IPv4 one is judged by that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::Host;

/// Whether an address is one of the internet: not loopback, private, link-local, shared, reserved,
/// for documentation or for groups.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

/// IANA's registry of special-purpose addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    // A cloud's own agent of its hosts, at an address that looks like any other.
    if (a, b, c, d) == (168, 63, 129, 16) {
        return false;
    }
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// Only `2000::/3` is routed at all, and not all of it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    a & 0xe000 == 0x2000
        && !matches!((a, b), (0x2001, 0x0000..=0x01ff | 0x0db8) | (0x3fff, 0x0000..=0x0fff))
}

/// The IPv4 address that a packet to this one ends up at: mapped, by NAT64, or by 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

/// What an operator has opened: host names, addresses and networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList {
    /// In lower case.
    names: Vec<String>,
    /// What a name must end in, with its dot.
    suffixes: Vec<String>,
    networks: Vec<IpNet>,
}

/// An item that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a host name, nor `*.` and a domain, nor an address, nor a network in CIDR form"
)]
pub struct NotAHost(String);

impl AllowList {
    /// Reads a list of `hooks.internal`, `*.internal`, `10.1.2.3`, `fd00::/8` and the like.
    ///
    /// # Errors
    /// [`NotAHost`] names the first item that cannot be read.
    pub fn parse(items: &[String]) -> Result<Self, NotAHost> {
        let mut list = Self::default();
        for item in items {
            list.add(item).ok_or_else(|| NotAHost(item.clone()))?;
        }
        Ok(list)
    }

    fn add(&mut self, item: &str) -> Option<()> {
        if let Ok(network) = item.parse::<IpNet>() {
            self.networks.push(network);
            return Some(());
        }
        let (wild, name) = match item.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, item),
        };
        if name.contains('*') {
            return None;
        }
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        match (bare.parse::<IpAddr>(), wild) {
            (Ok(address), false) => self.networks.push(IpNet::from(address)),
            (Ok(_), true) => return None,
            // As a URL's host is read, so that both are written the same way.
            (Err(_), _) => match Host::parse(name).ok()? {
                Host::Domain(name) if wild => self.suffixes.push(format!(".{name}")),
                Host::Domain(name) => self.names.push(name),
                Host::Ipv4(_) | Host::Ipv6(_) => return None,
            },
        }
        Some(())
    }

    /// Whether `address`, which `host` stands for, may be called.
    pub(crate) fn permits(&self, host: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address)
            || self.names.iter().any(|name| name == host)
            || self.suffixes.iter().any(|suffix| host.ends_with(suffix))
            || self.networks.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests;
