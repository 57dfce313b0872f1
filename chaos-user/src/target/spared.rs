//! What is so on this host of the default allow-list: gateways, the node's own addresses, and whom kchaos talks to.

use std::{env, io, net::IpAddr, time::Duration};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressScope},
        link::{InfoKind, LinkAttribute, LinkInfo},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
    },
};
use tokio::{net::lookup_host, time::timeout};

use super::{Group, Member, Netns, TargetError, netns::with_netlink};
use crate::fault::{
    filter::Allow,
    spared::{Spared, Why},
};

/// How long the address of an endpoint may take to be found.
const LOOKUP: Duration = Duration::from_secs(3);

/// All of it, for these targets.
pub async fn here(members: &[Member]) -> Result<Vec<Spared>, TargetError> {
    let experiment = members.iter().filter(|member| member.group == Group::Experiment);
    let namespaces: Vec<&Netns> =
        experiment.flat_map(|member| &member.namespaces).map(|namespace| &namespace.netns).collect();
    let mut found = Vec::new();
    for netns in &namespaces {
        let of = |source| TargetError::io(format!("routes of network namespace {}", netns.inode))(source);
        let gateways = netns.run(|| with_netlink(async |handle| gateways(&handle).await));
        add(&mut found, Why::Gateway, gateways.and_then(|gateways| gateways).map_err(of)?);
    }
    let node = node().map_err(TargetError::io("the node's network namespace"))?;
    // Where a target shares the node's namespace, these addresses are its own, and such packets never leave.
    if namespaces.iter().any(|netns| **netns != node) {
        let addresses = node.run(|| with_netlink(async |handle| addresses(&handle).await));
        let of = TargetError::io("addresses of the node");
        add(&mut found, Why::Node, addresses.and_then(|addresses| addresses).map_err(of)?);
    }
    for endpoint in endpoints() {
        add_services(&mut found, &endpoint).await?;
    }
    Ok(found)
}

fn add(found: &mut Vec<Spared>, why: Why, addresses: Vec<IpAddr>) {
    for address in addresses {
        let what = Allow::from(address);
        if !found.iter().any(|known| known.what == what) {
            found.push(Spared { why, what });
        }
    }
}

/// The namespace of process 1; ours, if we may not look.
fn node() -> io::Result<Netns> {
    Netns::of_process(1).or_else(|_| Netns::current())
}

/// The next hops of all default routes, in whatever table.
async fn gateways(handle: &Handle) -> io::Result<Vec<IpAddr>> {
    let mut gateways = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut all = RouteMessageBuilder::<IpAddr>::new().build();
        all.header.address_family = family;
        let routes: Vec<RouteMessage> =
            handle.route().get(all).execute().try_collect().await.map_err(io::Error::other)?;
        let default = |route: &&RouteMessage| {
            route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
        };
        gateways.extend(routes.iter().filter(default).flat_map(|route| next_hops(&route.attributes)));
    }
    Ok(gateways)
}

fn next_hops(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let hop = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => vec![IpAddr::V4(*address)],
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => vec![IpAddr::V6(*address)],
        RouteAttribute::Via(RouteVia::Inet(address)) => vec![IpAddr::V4(*address)],
        RouteAttribute::Via(RouteVia::Inet6(address)) => vec![IpAddr::V6(*address)],
        RouteAttribute::MultiPath(hops) => hops.iter().flat_map(|hop| next_hops(&hop.attributes)).collect(),
        _ => Vec::new(),
    };
    attributes.iter().flat_map(hop).collect()
}

/// The addresses at which others reach the node. Not those of dummy devices: there kube-proxy keeps the addresses of
/// all services (pkg/proxy/ipvs), which the node only forwards.
async fn addresses(handle: &Handle) -> io::Result<Vec<IpAddr>> {
    // One dump after another: the kernel refuses two at once on one socket.
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(io::Error::other)?;
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.map_err(io::Error::other)?;
    let is_dummy = |attribute: &LinkAttribute| {
        matches!(attribute, LinkAttribute::LinkInfo(infos)
            if infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Dummy))))
    };
    let dummies: Vec<u32> = links
        .iter()
        .filter(|link| link.attributes.iter().any(is_dummy))
        .map(|link| link.header.index)
        .collect();
    let outward = addresses.iter().filter(|message| {
        message.header.scope == AddressScope::Universe && !dummies.contains(&message.header.index)
    });
    let own = outward.filter_map(|message| {
        // On a device with a peer, `Address` is the peer's.
        let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
        let local = of(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        local.or_else(|| {
            of(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        })
    });
    Ok(own.collect())
}

/// Whom the controller itself talks to.
struct Endpoint {
    why: Why,
    variable: &'static str,
    host: String,
    port: u16,
}

fn endpoints() -> Vec<Endpoint> {
    let api_server = env::var("KUBERNETES_SERVICE_HOST").ok().filter(|host| !host.is_empty()).map(|host| {
        let port = env::var("KUBERNETES_SERVICE_PORT").ok().and_then(|port| port.parse().ok());
        Endpoint { why: Why::ApiServer, variable: "KUBERNETES_SERVICE_HOST", host, port: port.unwrap_or(443) }
    });
    let docker = env::var("DOCKER_HOST").ok();
    let docker = docker.as_deref().and_then(docker_endpoint).map(|(host, port)| Endpoint {
        why: Why::Docker,
        variable: "DOCKER_HOST",
        host,
        port,
    });
    api_server.into_iter().chain(docker).collect()
}

/// `tcp://HOST[:PORT]`; sockets need no sparing.
fn docker_endpoint(text: &str) -> Option<(String, u16)> {
    const UNENCRYPTED: u16 = 2375;
    let authority = text.strip_prefix("tcp://")?.trim_end_matches('/');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(UNENCRYPTED)),
        _ => (authority, UNENCRYPTED),
    };
    Some((host.trim_matches(['[', ']']).to_owned(), port))
}

async fn add_services(found: &mut Vec<Spared>, endpoint: &Endpoint) -> Result<(), TargetError> {
    let Endpoint { why, variable, host, port } = endpoint;
    let unknown = |reason: String| TargetError::Endpoint { variable, host: host.clone(), reason };
    let addresses = timeout(LOOKUP, lookup_host((host.as_str(), *port)))
        .await
        .map_err(|_| unknown("its name was not found in time".into()))?
        .map_err(|error| unknown(error.to_string()))?;
    for address in addresses {
        let peer = Some(address.ip().to_canonical().into());
        let what = Allow { peer, ports: Some(*port..=*port) };
        if !found.iter().any(|known| known.what == what) {
            found.push(Spared { why: *why, what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_daemons_elsewhere() {
        let of = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(docker_endpoint("tcp://10.0.0.5:2376"), of("10.0.0.5", 2376));
        assert_eq!(docker_endpoint("tcp://docker"), of("docker", 2375));
        assert_eq!(docker_endpoint("tcp://[fd00::5]:2376/"), of("fd00::5", 2376));
        assert_eq!(docker_endpoint("tcp://[fd00::5]"), of("fd00::5", 2375));
        assert_eq!(docker_endpoint("unix:///var/run/docker.sock"), None);
    }

    #[test]
    fn gateways_of_every_kind() {
        let v6: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
        let v4 = std::net::Ipv4Addr::new(10, 0, 0, 1);
        let attributes = [
            RouteAttribute::Oif(3),
            RouteAttribute::Gateway(RouteAddress::Inet(v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)),
        ];
        assert_eq!(next_hops(&attributes), [IpAddr::V4(v4), IpAddr::V6(v6)]);
    }
}
