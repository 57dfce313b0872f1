//! Network namespaces and their devices.

use std::{collections::BTreeSet, fs::File, io, os::unix::fs::MetadataExt, path::Path, sync::Arc, thread};

use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{
    Handle,
    packet_route::{
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        tc::TcMessage,
    },
};

use super::{
    TargetError,
    root_qdisc::{self, RootQdisc},
};

/// The device that we make to hold back what arrives in a namespace.
pub const OUR_IFB: &str = "kchaos-ifb0";

/// A network namespace, held open.
#[derive(Clone, Debug)]
pub struct Netns {
    /// Its inode, which names it while it lives.
    pub inode: u64,
    handle: Arc<File>,
}

/// A network device that packets can leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index within its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Whether its packets have Ethernet headers.
    pub ethernet: bool,
    /// What sends its packets.
    pub root: RootQdisc,
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

impl Netns {
    /// The namespace of a process.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// A new one, with nothing in it but `lo`, down.
    pub fn create() -> io::Result<Self> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)?;
                Self::current()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The namespace as a file, for netlink.
    pub fn file(&self) -> &File {
        &self.handle
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace with this inode, if a process is in it or `ip netns` has a name for it.
    pub fn find(inode: u64) -> Option<Self> {
        let processes = procfs::process::all_processes().ok()?.flatten();
        let of_processes = processes.filter_map(|process| Self::of_process(process.pid()).ok());
        let named = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let of_names = named.filter_map(|name| Self::open(name.path()).ok());
        of_processes.chain(of_names).find(|netns| netns.inode == inode)
    }

    fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let handle = File::open(path)?;
        Ok(Self { inode: handle.metadata()?.ino(), handle: Arc::new(handle) })
    }

    /// Runs `work` on a thread of this namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.handle.as_ref(), CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The devices at which packets leave this namespace, `lo` aside: those that are up and not stacked on
    /// another one of them. A VLAN or a bridge is left out and the devices below it are taken, and so is an ifb, which
    /// only has what has been on another device, so that no packet is judged twice.
    pub fn devices(&self) -> Result<Vec<Device>, TargetError> {
        let listed = self.run(|| Ok((list_links()?, root_qdisc::list()?)));
        let (links, qdiscs) = listed
            .and_then(|listed| listed)
            .map_err(TargetError::io(format!("devices of network namespace {}", self.inode)))?;
        Ok(lowest(&links, &qdiscs))
    }
}

/// Whether the calling thread's namespace has our device for what arrives.
pub fn has_our_ifb() -> bool {
    nix::net::if_::if_nametoindex(OUR_IFB).is_ok()
}

fn list_links() -> io::Result<Vec<LinkMessage>> {
    with_netlink(async |handle| handle.link().get().execute().try_collect().await.map_err(io::Error::other))
}

/// Runs a few netlink requests on the calling thread, in its network namespace.
pub fn with_netlink<T>(work: impl AsyncFnOnce(Handle) -> io::Result<T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result
    })
}

fn lowest(links: &[LinkMessage], qdiscs: &[TcMessage]) -> Vec<Device> {
    let stacked: BTreeSet<u32> = links.iter().filter_map(upper_device).collect();
    let mut devices: Vec<Device> = links
        .iter()
        .filter(|link| link.header.flags.contains(LinkFlags::Up))
        .filter(|link| !link.header.flags.contains(LinkFlags::Loopback))
        .filter(|link| !stacked.contains(&link.header.index))
        .filter(|link| !is_kind(link, |kind| matches!(kind, InfoKind::Ifb)))
        .filter_map(|link| {
            let ifindex = link.header.index;
            let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
            Some(Device { ifindex, name: name(link)?, ethernet, root: RootQdisc::of(ifindex, qdiscs) })
        })
        .collect();
    devices.sort_by_key(|device| device.ifindex);
    devices
}

/// The device that stands upon another one because of this link: its controller (bridge, bond), or the
/// link itself where it is made from another (VLAN and the like).
fn upper_device(link: &LinkMessage) -> Option<u32> {
    use InfoKind::{IpVlan, MacSec, MacVlan, MacVtap, Vlan};
    let made_from_another = is_kind(link, |kind| matches!(kind, Vlan | MacVlan | MacVtap | IpVlan | MacSec));
    let from_here =
        !link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    if made_from_another && from_here {
        return Some(link.header.index);
    }
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

fn is_kind(link: &LinkMessage, is: impl Fn(&InfoKind) -> bool) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(kind) if is(kind)))
        }
        _ => false,
    })
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
