//! Where a target can be asked: an address of its network namespace.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
};

use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::InterfaceFlags,
    sys::socket::SockaddrStorage,
};

use super::{Member, Netns, TargetError};

/// Where a member is asked: the first global IPv4 address of its network namespace, or else the first of IPv6;
/// this host itself, if it is in kchaos's own. Of several namespaces the first that has one is taken.
pub fn address_of(member: &Member) -> Result<IpAddr, TargetError> {
    let namespaces: Vec<&Netns> = member.namespaces.iter().map(|namespace| &namespace.netns).collect();
    match address_among(&namespaces) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(TargetError::NoAddress { target: member.target.clone() }),
        Err(source) => Err(TargetError::io(format!("addresses of {}", member.target))(source)),
    }
}

/// The address of the first of these namespaces that has one.
pub fn address_among(namespaces: &[&Netns]) -> io::Result<Option<IpAddr>> {
    let ours = Netns::current()?;
    for netns in namespaces {
        if **netns == ours {
            return Ok(Some(IpAddr::from([127, 0, 0, 1])));
        }
        if let Some(address) = first(&netns.run(addresses)??) {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// The addresses of the calling thread's namespace, in the order of its devices: those that are up, `lo` aside.
fn addresses() -> io::Result<Vec<IpAddr>> {
    let is_up = |of: &InterfaceAddress| {
        of.flags.contains(InterfaceFlags::IFF_UP) && !of.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    };
    let up = getifaddrs()?.filter(is_up);
    Ok(up.filter_map(|of| of.address.as_ref().and_then(address)).collect())
}

fn address(of: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = of.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| of.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

fn first(addresses: &[IpAddr]) -> Option<IpAddr> {
    let mut global = addresses.iter().filter(|address| is_global(address));
    global.clone().find(|address| address.is_ipv4()).or_else(|| global.next()).copied()
}

/// Whether it means the same from another namespace.
fn is_global(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => is_v6_link_local(v6),
    };
    !link_local && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

fn is_v6_link_local(address: &Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_global_one_is_taken_and_ipv4_before_ipv6() {
        let of = |texts: &[&str]| {
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            first(&addresses).map(|address| address.to_string())
        };
        assert_eq!(of(&["fd00::1", "169.254.1.1", "172.17.0.2", "10.0.0.1"]).as_deref(), Some("172.17.0.2"));
        assert_eq!(of(&["fe80::1", "127.0.0.1", "fd00::2", "2001:db8::1"]).as_deref(), Some("fd00::2"));
        assert_eq!(of(&["fe80::1", "169.254.1.1", "::1", "0.0.0.0"]), None);
    }

    #[test]
    fn what_shares_our_namespace_is_this_host() {
        let ours = Netns::current().unwrap();
        assert_eq!(address_among(&[&ours]).unwrap(), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(address_among(&[]).unwrap(), None);
    }
}
