//! Corruption and duplication of packets that are not what they usually are: trains that the kernel cuts up later,
//! frames with a VLAN's tag among their data, packets whose checksum the device has made over all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, bail, ensure};
use kchaos::target::Netns;

use crate::{
    Test,
    clients::wait_until,
    controller::{self, exit},
    lab::{self, Cgroup, DEVICE, Lab, OUTSIDE, PEER_DEVICE, run_in},
    offload::{self, Offload},
    tests,
    victim::{Answer, Ask, Socket, Victim, program},
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: corrupt_of_a_train_reaches_the_application, corrupt_of_a_train_with_a_broken_checksum_loses_it, duplicate_sends_trains_again;
        VLAN_IN_DATA on one kernel: duplicate_of_frames_with_a_tag_in_their_data,
            corrupt_of_frames_with_a_tag_in_their_data;
        VXLAN on one kernel: duplicate_of_what_arrives_with_a_complete_checksum,
            corrupt_of_what_arrives_with_a_complete_checksum
    ]
}

const TRAINS: u64 = 40;
const LENGTH: u64 = 16;
/// How many bits a corrupted packet has flipped.
const BITS: u32 = 3;

/// Both ends of a way, which victims and we send numbers along.
struct Ends<'a> {
    victim: &'a Victim,
    socket: Socket,
    ours: UdpSocket,
}

impl<'a> Ends<'a> {
    fn new(victim: &'a Victim, inside: IpAddr, netns: &Netns, outside: IpAddr) -> anyhow::Result<Self> {
        let ours = lab::receiver(netns, outside)?;
        let inside = SocketAddr::new(inside, 7001);
        let socket = victim.udp(inside, Some(ours.local_addr()?))?;
        ours.connect(inside)?;
        Ok(Self { victim, socket, ours })
    }

    /// What arrives of the numbers from 0, that the victim sends in trains.
    fn trains(&self) -> anyhow::Result<Vec<u64>> {
        self.victim.ask(Ask::SendTrains { socket: self.socket, first: 0, trains: TRAINS, length: LENGTH })?;
        Ok(program::numbers(&self.ours)?)
    }

    /// What arrives of the numbers from 0, that the victim sends one by one.
    fn out(&self) -> anyhow::Result<Vec<u64>> {
        let send = Ask::SendNumbers { socket: self.socket, to: None, first: 0, count: TRAINS * LENGTH };
        self.victim.ask(send)?;
        Ok(program::numbers(&self.ours)?)
    }

    /// The same the other way.
    fn back(&self) -> anyhow::Result<Vec<u64>> {
        program::send_numbers(&self.ours, None, 0, TRAINS * LENGTH);
        match self.victim.ask(Ask::Numbers { socket: self.socket })? {
            Answer::Numbers(arrived) => Ok(arrived),
            other => bail!("expected numbers, got {other:?}"),
        }
    }
}

/// All that is sent, once.
fn all() -> Vec<u64> {
    (0..TRAINS * LENGTH).collect()
}

/// Of what is sent and arrives in order: how many bits of each number are flipped.
fn flipped(arrived: &[u64]) -> anyhow::Result<Vec<u32>> {
    ensure!(arrived.len() == all().len(), "{} of {} arrived", arrived.len(), all().len());
    Ok((0..).zip(arrived).map(|(sent, arrived): (u64, _)| (sent ^ arrived).count_ones()).collect())
}

/// What arrives before, during and after a fault; before and after it is what was sent. Says how many were hit.
fn during(
    cgroup: &Cgroup,
    fault: &str,
    arrives: impl Fn() -> anyhow::Result<Vec<u64>>,
) -> anyhow::Result<(Vec<u64>, u64)> {
    ensure!(arrives()? == all(), "{fault}: not quiet before");
    let kchaos = controller::inject(&format!("{fault} --on {}", cgroup.target()))?;
    let seen = arrives()?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(arrives()? == all(), "{fault}: not quiet afterwards");
    Ok((seen, ended.outcome("injected")?))
}

/// For devices that are believed to cut up trains and to make checksums, and for those that do less.
fn with_trains(test: impl Fn(&Ends<'_>, &Cgroup) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for without in [&[][..], &[Offload::Segmentation], &[Offload::Segmentation, Offload::Checksums]] {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        offload::turn_off(&lab, without)?;
        let victim = Victim::start(&lab, &cgroup)?;
        let ends = Ends::new(&victim, lab::INSIDE, &lab.outside, OUTSIDE)?;
        // Before 6.11 the kernel makes no trains for a device that makes no checksums (net/ipv4/udp.c, `udp_send_skb`).
        match ends.trains() {
            Err(error) if error.to_string().contains("os error 5") && !without.is_empty() => continue,
            sent => sent?,
        };
        test(&ends, &cgroup).with_context(|| format!("without {without:?}"))?;
    }
    Ok(())
}

/// A train is one packet, of which one has its bits flipped, or more of them some each.
fn corrupt_of_a_train_reaches_the_application() -> anyhow::Result<()> {
    with_trains(|ends, cgroup| {
        let fault = format!("corrupt --every 2 --bits {BITS}");
        let (seen, injected) = during(cgroup, &fault, || ends.trains())?;
        let bits: Vec<u32> =
            flipped(&seen)?.chunks(LENGTH as usize).map(|train| train.iter().sum()).collect();
        let expected = [0, BITS].repeat(TRAINS as usize / 2);
        ensure!(
            bits == expected && injected == TRAINS / 2,
            "{injected} were hit, bits of each train: {bits:?}"
        );
        Ok(())
    })
}

fn corrupt_of_a_train_with_a_broken_checksum_loses_it() -> anyhow::Result<()> {
    with_trains(|ends, cgroup| {
        let (seen, injected) = during(cgroup, "corrupt --every 2 --checksum break", || ends.trains())?;
        let lost = all().len() - seen.len();
        let intact = seen.iter().all(|number| *number < TRAINS * LENGTH);
        ensure!(intact && lost > 0 && injected == TRAINS / 2, "{injected} were hit, {lost} lost");
        println!("of {injected} trains of {LENGTH}, {lost} packets were lost");
        Ok(())
    })
}

fn duplicate_sends_trains_again() -> anyhow::Result<()> {
    with_trains(|ends, cgroup| {
        let (mut seen, injected) = during(cgroup, "duplicate --percent 100 --copies 2", || ends.trains())?;
        seen.sort_unstable();
        let thrice: Vec<u64> = all().into_iter().flat_map(|number| [number; 3]).collect();
        ensure!(seen == thrice && injected == TRAINS, "{} arrived, {injected} were hit", seen.len());
        Ok(())
    })
}

const fn address(net: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 107, net, host))
}

/// A victim and a device of a network of its own on top of the lab's wire.
struct Above {
    lab: Lab,
    cgroup: Cgroup,
    victim: Victim,
    net: u8,
}

impl Above {
    /// Makes the device at both ends by these options of `ip link add`, given the wire's device and whether it is inside.
    fn new(net: u8, kind: impl Fn(&str, bool) -> String) -> anyhow::Result<Self> {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        for (netns, device, host) in [(&lab.inside, DEVICE, 1), (&lab.outside, PEER_DEVICE, 2)] {
            run_in(
                netns,
                &format!(
                    "ip link add name above {}
                     ip address add {}/24 dev above
                     ip link set above up",
                    kind(device, host == 1),
                    address(net, host)
                ),
            )?;
        }
        let victim = Victim::start(&lab, &cgroup)?;
        Ok(Self { lab, cgroup, victim, net })
    }

    fn ends(&self) -> anyhow::Result<Ends<'_>> {
        let ends = Ends::new(&self.victim, address(self.net, 1), &self.lab.outside, address(self.net, 2))?;
        // Both ends get to know each other, and the kernel notices the carrier.
        wait_until("the way is open", || Ok(ends.out()? == all() && ends.back()? == all()))?;
        Ok(ends)
    }
}

/// The device that packets leave by sees the tag as their first data after the addresses.
fn tagged() -> anyhow::Result<Above> {
    Above::new(9, |device, _| format!("link {device} type vlan id 9 reorder_hdr off"))
}

fn corrupt_of_frames_with_a_tag_in_their_data() -> anyhow::Result<()> {
    let above = tagged()?;
    let ends = above.ends()?;
    let fault = format!("corrupt --percent 100 --bits {BITS} --peers {}", address(9, 2));
    let (seen, injected) = during(&above.cgroup, &fault, || ends.out())?;
    // Once each, though packets leave by two devices of the target's.
    ensure!(flipped(&seen)?.iter().all(|bits| *bits == BITS), "{:?}", flipped(&seen)?);
    ensure!(injected == TRAINS * LENGTH, "{injected} were hit");
    Ok(())
}

fn duplicate_of_frames_with_a_tag_in_their_data() -> anyhow::Result<()> {
    let above = tagged()?;
    let ends = above.ends()?;
    let fault = format!("duplicate --percent 100 --peers {}", address(9, 2));
    let (mut seen, injected) = during(&above.cgroup, &fault, || ends.out())?;
    seen.sort_unstable();
    let twice: Vec<u64> = all().into_iter().flat_map(|number| [number; 2]).collect();
    ensure!(seen == twice && injected == TRAINS * LENGTH, "{} arrived, {injected} were hit", seen.len());
    Ok(())
}

/// The wire's devices make checksums, so tunnels check the outer one over all data and keep it for what is inside
/// (include/linux/skbuff.h, `skb_checksum_try_convert`, 6.18): CHECKSUM_COMPLETE.
fn tunnelled() -> anyhow::Result<Above> {
    let above = Above::new(11, |device, inside| {
        let (own, other) = if inside { (lab::INSIDE, OUTSIDE) } else { (OUTSIDE, lab::INSIDE) };
        format!("type vxlan id 11 dev {device} local {own} remote {other} dstport 4789 udpcsum")
    })?;
    offload::turn_off(&above.lab, &[Offload::Segmentation, Offload::Checksums])?;
    Ok(above)
}

fn corrupt_of_what_arrives_with_a_complete_checksum() -> anyhow::Result<()> {
    let above = tunnelled()?;
    let ends = above.ends()?;
    let fault = format!("corrupt --direction ingress --percent 100 --bits {BITS} --peers {}", address(11, 2));
    let (seen, injected) = during(&above.cgroup, &fault, || ends.back())?;
    ensure!(flipped(&seen)?.iter().all(|bits| *bits == BITS), "{:?}", flipped(&seen)?);
    ensure!(injected == TRAINS * LENGTH, "{injected} were hit");
    // One bit, which the wrong checksum is likeliest to make up for.
    let fault = format!("{fault} --checksum break").replace(&format!("--bits {BITS}"), "");
    let (seen, _) = during(&above.cgroup, &fault, || ends.back())?;
    ensure!(seen.is_empty(), "{} arrived with a broken checksum", seen.len());
    Ok(())
}

fn duplicate_of_what_arrives_with_a_complete_checksum() -> anyhow::Result<()> {
    let above = tunnelled()?;
    let ends = above.ends()?;
    let fault = format!("duplicate --direction ingress --percent 100 --peers {}", address(11, 2));
    let (mut seen, injected) = during(&above.cgroup, &fault, || ends.back())?;
    seen.sort_unstable();
    let twice: Vec<u64> = all().into_iter().flat_map(|number| [number; 2]).collect();
    ensure!(seen == twice && injected == TRAINS * LENGTH, "{} arrived, {injected} were hit", seen.len());
    Ok(())
}
