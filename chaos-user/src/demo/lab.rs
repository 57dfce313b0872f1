//! Two cgroups, two network namespaces joined by a veth pair, two services and their clients. All of it ends
//! with this, and with the process.

use std::{
    fs, io,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
};

use anyhow::{Context, anyhow};
use futures_util::TryStreamExt;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use super::{Answer, service::PORT};
use crate::{
    kernel::journal::{Journal, Residue},
    target::{Group, Hierarchy, Netns, cgroup, netns::with_netlink},
};

/// The verb under which the program starts a service.
pub const SERVICE_VERB: &str = "demo-service";
/// The verb under which the program starts a client.
pub const CLIENT_VERB: &str = "demo-client";

/// Where the services are: a private address (RFC 1918), in a namespace that nothing else is in.
pub const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 107, 0, 1);
/// Where the clients are, likewise.
pub const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 107, 0, 2);
const PREFIX_LENGTH: u8 = 24;

/// Everything the demo made.
pub struct Lab {
    mount: PathBuf,
    parent: PathBuf,
    services: Vec<Process>,
    clients: Vec<Client>,
    journal: Journal,
}

struct Process(Child);

struct Client {
    group: Group,
    process: Process,
    answers: JoinHandle<io::Result<Vec<Answer>>>,
}

impl Lab {
    /// Makes it, and waits until every client has its first answer.
    pub fn new() -> anyhow::Result<Self> {
        let mount = Hierarchy::find()?.mount().to_owned();
        let parent = PathBuf::from(format!("/kchaos-demo-{}", std::process::id()));
        let mut journal =
            Journal::create("the demo's cgroups", Vec::new()).context("the journal in /run/kchaos")?;
        journal.note(Residue::Cgroups { dir: mount.join(parent.strip_prefix("/")?) })?;
        let mut lab = Self { mount, parent, services: Vec::new(), clients: Vec::new(), journal };
        for group in [Group::Control, Group::Experiment] {
            fs::create_dir_all(lab.dir(group)).context("making a cgroup")?;
        }
        let (services, clients) = namespaces().context("making network namespaces")?;
        for group in [Group::Control, Group::Experiment] {
            let address = SocketAddr::new(IpAddr::V4(SERVICES), PORT + group as u16);
            lab.services.push(start(&services, SERVICE_VERB, address, Some(&lab.dir(group)))?.0);
            let (process, answers) = start(&clients, CLIENT_VERB, address, None)?;
            lab.clients.push(Client { group, process, answers });
        }
        Ok(lab)
    }

    /// A group's cgroup, from the root of the hierarchy.
    pub fn cgroup(&self, group: Group) -> PathBuf {
        self.parent.join(crate::judge::names::group(group))
    }

    fn dir(&self, group: Group) -> PathBuf {
        let cgroup = self.cgroup(group);
        self.mount.join(cgroup.strip_prefix("/").unwrap_or(&cgroup))
    }

    /// Ends everything and returns what the clients saw, by group.
    pub fn finish(mut self) -> anyhow::Result<Vec<(Group, Vec<Answer>)>> {
        let mut seen = Vec::new();
        for client in std::mem::take(&mut self.clients) {
            drop(client.process);
            let answers =
                client.answers.join().map_err(|_| anyhow!("reading a client's answers panicked"))?;
            seen.push((client.group, answers.context("a client's answers")?));
        }
        Ok(seen)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.clients.clear();
        self.services.clear();
        let dir = self.mount.join(self.parent.strip_prefix("/").unwrap_or(&self.parent));
        match cgroup::remove(&dir).and_then(|()| self.journal.remove()) {
            Ok(()) => {}
            Err(error) => log::error!("{} was left behind: {error}", dir.display()),
        }
    }
}

impl Drop for Process {
    /// It ends when its standard input does; killed, if that takes a second.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        for _ in 0..100 {
            match self.0.try_wait() {
                Ok(None) => thread::sleep(std::time::Duration::from_millis(10)),
                _ => return,
            }
        }
        // Both fail only if it has ended in this moment.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts ourselves under another verb. A child waits for its first line before it opens a socket, and by
/// then it is in its cgroup: a socket belongs to the cgroup it was made in.
fn start(
    netns: &Netns,
    verb: &str,
    address: SocketAddr,
    cgroup: Option<&Path>,
) -> anyhow::Result<(Process, JoinHandle<io::Result<Vec<Answer>>>)> {
    let spawn = || {
        Command::new("/proc/self/exe")
            .arg(verb)
            .arg(address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut process = Process(netns.run(spawn).and_then(|child| child).context("starting a service")?);
    if let Some(cgroup) = cgroup {
        fs::write(cgroup.join("cgroup.procs"), process.0.id().to_string())
            .context("moving it into its cgroup")?;
    }
    let stdin = process.0.stdin.as_mut().context("its standard input")?;
    io::Write::write_all(stdin, b"go\n")?;
    let mut output = BufReader::new(process.0.stdout.take().context("its standard output")?);
    let mut ready = String::new();
    output.read_line(&mut ready)?;
    anyhow::ensure!(ready.trim() == "ready", "{verb} {address} did not start");
    Ok((process, thread::spawn(move || read_answers(output))))
}

fn read_answers(output: impl BufRead) -> io::Result<Vec<Answer>> {
    let answer = |line: io::Result<String>| {
        let line = line?;
        let (due, latency) = line.split_once(' ').ok_or_else(|| io::Error::other("not an answer"))?;
        let number = |text: &str| text.parse().map_err(io::Error::other);
        Ok(Answer { due_ns: number(due)?, latency_ns: number(latency)? })
    };
    output.lines().map(answer).collect()
}

/// Two namespaces joined by a veth pair. They live as long as something holds them.
pub fn namespaces() -> io::Result<(Netns, Netns)> {
    let (services, clients) = (Netns::create()?, Netns::create()?);
    let peer = clients.file().as_raw_fd();
    services.run(|| {
        with_netlink(async |handle| {
            handle
                .link()
                .add(LinkVeth::new("kchaos0", "kchaos1").build())
                .execute()
                .await
                .map_err(io::Error::other)?;
            let index = ifindex(&handle, "kchaos1").await?;
            let moved = LinkUnspec::new_with_index(index).setns_by_fd(peer).build();
            handle.link().set(moved).execute().await.map_err(io::Error::other)?;
            bring_up(&handle, "kchaos0", SERVICES).await
        })
    })??;
    clients.run(|| with_netlink(async |handle| bring_up(&handle, "kchaos1", CLIENTS).await))??;
    Ok((services, clients))
}

async fn bring_up(handle: &Handle, device: &str, address: Ipv4Addr) -> io::Result<()> {
    let index = ifindex(handle, device).await?;
    let address = handle.address().add(index, IpAddr::V4(address), PREFIX_LENGTH);
    address.execute().await.map_err(io::Error::other)?;
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(io::Error::other)
}

async fn ifindex(handle: &Handle, device: &str) -> io::Result<u32> {
    let mut links = handle.link().get().match_name(device).execute();
    let link = links.try_next().await.map_err(io::Error::other)?;
    link.map(|link| link.header.index).ok_or_else(|| io::Error::other(format!("no device {device}")))
}
