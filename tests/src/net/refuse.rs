//! Calls on sockets that fail: with which error, whose, and which of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Context, ensure};

use crate::{
    Test,
    controller::{self, Ended, exit},
    foreign::Refuser,
    lab::{Cgroup, ELSEWHERE, ELSEWHERE_V6, INSIDE, Lab, OUTSIDE, OUTSIDE_V6},
    tests,
    victim::{
        Ask, Victim,
        call::{Call, Kind},
    },
};

/// More than a page, which is all that a program could see of it.
const LARGE_OPTION: usize = 9000;

pub fn tests() -> Vec<Test> {
    tests![
        SOCK: refuse_connect_fails_as_asked_and_spares_a_neighbour;
        SOCK on one kernel: refuse_sendmsg_fails_as_asked, refuse_socket_fails_as_asked,
            refuse_options_fail_as_asked, refuse_can_be_limited_to_peers_and_ports,
            refuse_can_be_limited_to_ports_of_the_target, refuse_takes_mapped_addresses_for_ipv4,
            refuse_when_takes_these_calls_only, refuse_percent_is_a_share, refuse_in_a_dry_run_is_only_counted,
            refuse_is_about_who_made_the_socket, refuse_leaves_other_peoples_programs_alone,
            refuse_ends_with_a_killed_controller, refuse_bind_fails_as_asked
    ]
}

/// Two victims behind one wire: the target's, and a neighbour.
struct Scene {
    lab: Lab,
    cgroup: Cgroup,
    victim: Victim,
    neighbour: Victim,
    _neighbours: Cgroup,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let neighbour = Victim::start(&lab, &neighbours)?;
        Ok(Self { lab, cgroup, victim, neighbour, _neighbours: neighbours })
    }

    /// Each call works before and after, for both. During the fault with these options each `hit` fails with `errno`
    /// and each `spared` works, the neighbour's all work; the report counts exactly those that failed.
    fn check(&self, options: &str, errno: i32, hit: &[Call], spared: &[Call]) -> anyhow::Result<Ended> {
        const TIMES: u64 = 3;
        let comes_to = |victim: &Victim, calls: &[Call], errno: i32, when: &str| {
            calls.iter().try_for_each(|call| {
                let came = victim.call(*call, TIMES)?;
                ensure!(
                    came == vec![errno; TIMES as usize],
                    "{when}: {call:?} came to {came:?}, not {errno}"
                );
                Ok(())
            })
        };
        let work = |when: &str| {
            [&self.victim, &self.neighbour].iter().try_for_each(|victim| {
                [hit, spared].iter().try_for_each(|calls| comes_to(victim, calls, 0, when))
            })
        };
        work("before")?;
        let kchaos = controller::inject(&format!("refuse {options} --on {}", self.cgroup.target()))?;
        comes_to(&self.victim, hit, errno, options).context("what should be hit")?;
        comes_to(&self.victim, spared, 0, options).context("what should be spared")?;
        [hit, spared]
            .iter()
            .try_for_each(|calls| comes_to(&self.neighbour, calls, 0, options))
            .context("a neighbour")?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let (injected, expected) = (ended.outcome("injected")?, TIMES * hit.len() as u64);
        ensure!(injected == expected, "{expected} calls failed, {injected} are counted: {}", ended.output);
        work("after")?;
        Ok(ended)
    }

    /// A listener that lets everybody in.
    fn listener(&self, address: IpAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
        let listener = self.lab.listener(address)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }
}

const fn connect(kind: Kind, to: SocketAddr) -> Call {
    Call::Connect { kind, from: None, to }
}

fn refuse_connect_fails_as_asked_and_spares_a_neighbour() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let ((_v4, v4), (_v6, v6)) = (scene.listener(OUTSIDE)?, scene.listener(OUTSIDE_V6)?);
    let calls =
        [connect(Kind::Tcp, v4), connect(Kind::Tcp, v6), connect(Kind::Udp, v4), connect(Kind::Udp, v6)];
    let others = [Call::SendTo { to: v4 }, Call::Socket { kind: Kind::Tcp, v6: false }];
    scene.check("", libc::ECONNREFUSED, &calls, &others)?;
    let ended = scene.check("--error ETIMEDOUT --protocol udp", libc::ETIMEDOUT, &calls[2..], &calls[..2])?;
    ensure!(ended.outcome("filtered")? == 6, "{}", ended.output);
    let odd = "--error EXDEV --any true";
    scene.check(odd, libc::EXDEV, &calls, &others).map(drop)
}

fn refuse_bind_fails_as_asked() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let at = |kind, port| Call::Bind { kind, at: SocketAddr::new(INSIDE, port) };
    let v6 = |port| Call::Bind { kind: Kind::Tcp, at: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port) };
    let options = "--calls bind --error EADDRINUSE --local-ports 7001-7003 --allow :7002";
    let hit = [at(Kind::Tcp, 7001), at(Kind::Udp, 7003), v6(7001)];
    let spared = [at(Kind::Tcp, 7002), at(Kind::Udp, 7004), at(Kind::Tcp, 0), v6(7004)];
    scene.check(options, libc::EADDRINUSE, &hit, &spared).map(drop)
}

/// Only what names a peer passes the hook.
fn refuse_sendmsg_fails_as_asked() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let (v4, v6) =
        (scene.lab.receiver(OUTSIDE)?.local_addr()?, scene.lab.receiver(OUTSIDE_V6)?.local_addr()?);
    // The receivers are gone, and what comes of it would be heard by connected sockets only.
    let hit = [Call::SendTo { to: v4 }, Call::SendTo { to: v6 }];
    let spared = [Call::SendConnected { to: v4 }, connect(Kind::Udp, v4)];
    scene.check("--calls sendmsg --error ENOBUFS", libc::ENOBUFS, &hit, &spared).map(drop)
}

fn refuse_socket_fails_as_asked() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let socket = |kind, v6| Call::Socket { kind, v6 };
    let hit = [socket(Kind::Tcp, false), socket(Kind::Tcp, true)];
    let spared = [socket(Kind::Udp, false), Call::GetOptionOfPipe];
    scene.check("--calls socket --error EMFILE --protocol tcp", libc::EMFILE, &hit, &spared).map(drop)
}

/// Options of sockets without IP are left alone, and so are large ones of those with.
fn refuse_options_fail_as_asked() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let set = |kind, bytes| Call::SetOption { kind, bytes };
    let get = |kind| Call::GetOption { kind };
    let hit = [set(Kind::Tcp, 4), set(Kind::Tcp, LARGE_OPTION), get(Kind::Tcp)];
    let spared = [set(Kind::Udp, 4), set(Kind::Udp, LARGE_OPTION), get(Kind::Udp), Call::GetOptionOfPipe];
    let options = "--calls setsockopt,getsockopt --error ENOPROTOOPT --protocol tcp";
    scene.check(options, libc::ENOPROTOOPT, &hit, &spared)?;
    let all = "--calls getsockopt --error EACCES";
    scene
        .check(all, libc::EACCES, &[get(Kind::Tcp), get(Kind::Udp)], &[hit[0], Call::GetOptionOfPipe])
        .map(drop)
}

fn refuse_can_be_limited_to_peers_and_ports() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let ((_one, one), (_other, other)) = (scene.listener(OUTSIDE)?, scene.listener(OUTSIDE)?);
    let ((_far, far), (_near, near)) = (scene.listener(ELSEWHERE_V6)?, scene.listener(OUTSIDE_V6)?);
    let tcp = |to| connect(Kind::Tcp, to);
    let hit = [tcp(one)];
    scene.check(&format!("--ports {}", one.port()), libc::ECONNREFUSED, &hit, &[tcp(other), tcp(near)])?;
    let spared = [tcp(near), tcp(one)];
    scene.check("--peers fd00:0:0:6b63:1::/80", libc::ECONNREFUSED, &[tcp(far)], &spared)?;
    let options = format!("--peers 10.107.1.0/24 --allow {OUTSIDE}:{}", other.port());
    scene.check(&options, libc::ECONNREFUSED, &hit, &[tcp(other), tcp(near)]).map(drop)
}

fn refuse_can_be_limited_to_ports_of_the_target() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let to = scene.lab.receiver(OUTSIDE)?.local_addr()?;
    let from = |port| Call::Connect { kind: Kind::Udp, from: Some(SocketAddr::new(INSIDE, port)), to };
    let spared = [from(7002), connect(Kind::Udp, to)];
    scene.check("--local-ports 7001", libc::ECONNREFUSED, &[from(7001)], &spared).map(drop)
}

/// A socket of IPv6 that talks IPv4.
fn refuse_takes_mapped_addresses_for_ipv4() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mapped = |address: IpAddr, port| match address {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), port),
        v6 @ IpAddr::V6(_) => SocketAddr::new(v6, port),
    };
    let ((_hit, hit), (_spared, spared)) = (scene.listener(ELSEWHERE)?, scene.listener(OUTSIDE)?);
    let to = |address: SocketAddr| mapped(address.ip(), address.port());
    let tcp = |address| connect(Kind::Tcp, to(address));
    let send = |address| Call::SendTo { to: to(address) };
    let options = "--calls connect,sendmsg --error EHOSTUNREACH --peers 10.107.1.128/25";
    let (hit, spared) = ([tcp(hit), send(hit)], [tcp(spared), send(spared)]);
    scene.check(options, libc::EHOSTUNREACH, &hit, &spared).map(drop)
}

/// Of so many calls, those that fail during refusal with these options, counted from 1.
fn refused(options: &str, count: u64) -> anyhow::Result<(Vec<u64>, Ended)> {
    let scene = Scene::new()?;
    let to = scene.lab.receiver(OUTSIDE)?.local_addr()?;
    let kchaos = controller::inject(&format!("refuse {options} --on {}", scene.cgroup.target()))?;
    let came = scene.victim.call(connect(Kind::Udp, to), count)?;
    let ended = kchaos.interrupt()?;
    let after = scene.victim.call(connect(Kind::Udp, to), count)?;
    ensure!(after.iter().all(|errno| *errno == 0), "connecting fails afterwards: {after:?}");
    let failed = (1..).zip(came).filter(|(_, errno)| *errno != 0).map(|(number, errno)| {
        ensure!(errno == libc::ECONNREFUSED, "call {number} came to {errno}");
        Ok(number)
    });
    Ok((failed.collect::<anyhow::Result<_>>()?, ended))
}

fn refuse_when_takes_these_calls_only() -> anyhow::Result<()> {
    for (options, expected) in [
        ("--when 2..3", &[2, 3][..]),
        ("--when 8+1", &[8, 9, 10]),
        ("--every 4", &[4, 8]),
        ("--max 3", &[1, 2, 3]),
    ] {
        let (failed, ended) = refused(options, 10)?;
        ensure!(failed == expected, "{options} refused {failed:?} of 1..=10");
        ensure!(ended.outcome("injected")? == expected.len() as u64, "{options}: {}", ended.output);
        let held = ended.outcome("when")? + ended.outcome("budget")?;
        ensure!(held == 10 - expected.len() as u64, "{options}: {}", ended.output);
    }
    Ok(())
}

/// Four standard deviations around 1,000 of 4,000; seeded, so that it is always the same.
fn refuse_percent_is_a_share() -> anyhow::Result<()> {
    let (failed, ended) = refused("--percent 25 --seed 7", 4_000)?;
    ensure!((890..1_110).contains(&failed.len()), "{} of 4,000 were refused", failed.len());
    ensure!(ended.outcome("injected")? == failed.len() as u64, "{}", ended.output);
    ensure!(ended.outcome("chance")? == 4_000 - failed.len() as u64, "{}", ended.output);
    let (again, _) = refused("--percent 25 --seed 7", 4_000)?;
    ensure!(again == failed, "the same seed refuses others");
    Ok(())
}

fn refuse_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let (failed, ended) = refused("--dry-run", 50)?;
    ensure!(failed.is_empty(), "a dry run refused {failed:?}");
    ensure!((ended.outcome("dry_run")?, ended.outcome("injected")?) == (50, 0), "{}", ended.output);
    Ok(())
}

/// The victim makes its sockets below the target, and moves: those it makes then are somebody else's. A child below
/// the target is covered.
fn refuse_is_about_who_made_the_socket() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let to = scene.lab.receiver(OUTSIDE)?.local_addr()?;
    let below = scene.cgroup.below("below")?;
    let unbound = SocketAddr::new(INSIDE, 0);
    let socket = scene.victim.udp(unbound, None)?;
    let kchaos = controller::inject(&format!(
        "refuse --calls connect,sendmsg --error ECONNREFUSED --on {}",
        scene.cgroup.target()
    ))?;
    let asks = vec![Ask::Try { call: connect(Kind::Udp, to), times: 1 }];
    let child = scene.victim.ask(Ask::InChild { cgroup: Some(below), asks })?;
    ensure!(format!("{child:?}").contains("Errnos([111])"), "a child below the target: {child:?}");
    std::fs::write(scene._neighbours.dir.join("cgroup.procs"), scene.victim.pid.to_string())?;
    let send = |socket| Ask::SendNumbers { socket, to: Some(to), first: 1, count: 1 };
    let old = format!("{:?}", scene.victim.ask(send(socket))?);
    ensure!(old.contains("Connection refused"), "a socket made below the target: {old}");
    let came = scene.victim.call(connect(Kind::Udp, to), 1)?;
    ensure!(came == [0], "a socket made elsewhere: {came:?}");
    let ended = kchaos.interrupt()?;
    ensure!(ended.outcome("injected")? == 2, "{}", ended.output);
    Ok(())
}

/// Somebody else's program sees every call, refused or not; what it refuses stays as it has refused it, and is not
/// counted as ours.
fn refuse_leaves_other_peoples_programs_alone() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let to = scene.lab.receiver(OUTSIDE)?.local_addr()?;
    let call = connect(Kind::Udp, to);
    let foreign = Refuser::attach(&scene.cgroup.dir, None)?;
    let kchaos = controller::inject(&format!("refuse --when 1..2 --on {}", scene.cgroup.target()))?;
    let came = scene.victim.call(call, 5)?;
    ensure!(came == [111, 111, 0, 0, 0], "{came:?}");
    ensure!(foreign.seen()? == 5, "of 5 calls it has seen {}", foreign.seen()?);
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    drop(foreign);
    let refuser = Refuser::attach(&scene.cgroup.dir, Some(libc::ENETUNREACH))?;
    let kchaos = controller::inject(&format!("refuse --on {}", scene.cgroup.target()))?;
    let came = scene.victim.call(call, 3)?;
    ensure!(came == [libc::ENETUNREACH; 3], "{came:?}");
    ensure!(refuser.seen()? == 3, "of 3 calls it has seen {}", refuser.seen()?);
    drop(refuser);
    let came = scene.victim.call(call, 3)?;
    ensure!(came == [libc::ECONNREFUSED; 3], "{came:?}");
    let ended = kchaos.interrupt()?;
    ensure!(ended.outcome("injected")? == 3, "{}", ended.output);
    ensure!(scene.victim.call(call, 1)? == [0], "connecting fails afterwards");
    Ok(())
}

fn refuse_ends_with_a_killed_controller() -> anyhow::Result<()> {
    let _sweeps = controller::sweeps();
    let scene = Scene::new()?;
    let call = connect(Kind::Udp, scene.lab.receiver(OUTSIDE)?.local_addr()?);
    let kchaos = controller::inject(&format!("refuse --on {}", scene.cgroup.target()))?;
    ensure!(scene.victim.call(call, 1)? == [libc::ECONNREFUSED], "nothing is refused");
    kchaos.kill()?;
    ensure!(scene.victim.call(call, 1)? == [0], "its links outlive the controller");
    controller::run("sweep")?.ensure_code(exit::OK)
}
