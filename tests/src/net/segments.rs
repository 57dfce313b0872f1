//! Packets that are many segments: how they are counted, and what is lost of them.

use std::io;

use anyhow::{Context, ensure};
use kchaos::target::netns::with_netlink;
use rtnetlink::{LinkUnspec, packet_route::link::LinkAttribute};
use serde_json::Value;

use crate::{
    Test,
    controller::{self, Ended},
    flow::Flow,
    lab::{self, Cgroup, DEVICE, Lab, OUTSIDE},
    stream::Stream,
    tests,
    victim::Victim,
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: loss_takes_trains_whole_and_counts_their_segments,
            loss_of_single_segments_is_the_same_in_either_unit, loss_by_segment_has_bursts_of_segments,
            loss_counts_as_many_segments_as_tcp_sends
    ]
}

/// How much TCP puts into one packet for the victims' device: so many segments at most. Sockets take this over when they
/// connect; the device's features would not do, because TCP has the kernel cut its packets up in any case
/// (net/core/sock.c, `sk_setup_caps`, 6.18).
fn limit_segments(lab: &Lab, most: u32) -> anyhow::Result<()> {
    let limit = lab.inside.run(|| {
        with_netlink(async |handle| {
            let index = lab::ifindex(&handle, DEVICE).await?;
            let limit = LinkUnspec::new_with_index(index)
                .append_extra_attribute(LinkAttribute::GsoMaxSegs(most))
                .build();
            handle.link().set(limit).execute().await.map_err(io::Error::other)
        })
    });
    limit?.context("gso_max_segs of the victims' device")
}

struct Counted {
    packets: u64,
    segments: u64,
    hit: u64,
}

fn counted(ended: &Ended) -> anyhow::Result<Counted> {
    let report = ended.json()?;
    let number = |value: &Value| value.as_u64().with_context(|| format!("no number in {report:#}"));
    let segments = &report["segments"];
    Ok(Counted {
        packets: number(&report["eligible"])?,
        segments: number(&segments["eligible"])?,
        hit: number(&segments["hit"])?,
    })
}

/// To the segment, whether packets have many of them or one each.
fn loss_counts_as_many_segments_as_tcp_sends() -> anyhow::Result<()> {
    const BYTES: u64 = 1 << 20;
    for (most, large) in [(65_535, true), (1, false)] {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        limit_segments(&lab, most)?;
        let victim = Victim::start(&lab, &cgroup)?;
        let kchaos = controller::inject(&format!("loss --percent 0 --on {}", cgroup.target()))?;
        let stream = Stream::new(&lab, &victim, OUTSIDE)?;
        stream.deliver(BYTES)?;
        let sent = u64::from(stream.sender()?.segments_out);
        let Counted { packets, segments, hit } = counted(&kchaos.interrupt()?)?;
        println!("at most {most} segments: {sent} sent by TCP, counted {segments} in {packets} packets");
        ensure!(
            (segments, hit) == (sent, 0),
            "TCP has sent {sent} segments, {segments} are counted, {hit} hit"
        );
        let as_expected = if large { packets * 5 < segments } else { packets == segments };
        ensure!(as_expected, "{segments} segments in {packets} packets, with {most} at most");
    }
    Ok(())
}

/// Of the trains that a victim sends, the losses in order: of each train, how many of its packets.
fn trains(options: &str, count: u64, length: u64) -> anyhow::Result<(Vec<u64>, Ended)> {
    /// As many packets at a time as the receiver's buffer holds.
    const AT_ONCE: u64 = 8_000;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss {options} --on {}", cgroup.target()))?;
    let mut losses = Vec::new();
    while (losses.len() as u64) < count {
        let batch = (AT_ONCE / length).min(count - losses.len() as u64);
        let mut lost = vec![length; batch as usize];
        flow.send_trains(batch, length)?.iter().for_each(|number| lost[(number / length) as usize] -= 1);
        losses.append(&mut lost);
    }
    let ended = kchaos.interrupt()?;
    flow.is_open("after")?;
    Ok((losses, ended))
}

fn loss_takes_trains_whole_and_counts_their_segments() -> anyhow::Result<()> {
    const TRAINS: u64 = 1_000;
    const LENGTH: u64 = 16;
    let (losses, ended) = trains("--percent 30 --seed 3", TRAINS, LENGTH)?;
    ensure!(losses.iter().all(|lost| [0, LENGTH].contains(lost)), "trains were broken up: {losses:?}");
    let lost: u64 = losses.iter().sum();
    let Counted { packets, segments, hit } = counted(&ended)?;
    ensure!(
        (packets, segments, hit) == (TRAINS, TRAINS * LENGTH, lost),
        "{lost} packets of {TRAINS} trains were lost; counted {hit} of {segments} segments in {packets}"
    );
    let share = lost as f64 / (TRAINS * LENGTH) as f64;
    // Four standard deviations of the share of 1,000 trains are 6 %.
    ensure!((share - 0.3).abs() < 0.06, "{share:.3} of the segments were lost, asked for 0.3");
    Ok(())
}

const BURSTS: &str = "--gemodel 1%,20% --seed 11";

/// A packet of one segment is one step of the chain, whatever that counts.
fn loss_of_single_segments_is_the_same_in_either_unit() -> anyhow::Result<()> {
    let (by_packet, _) = trains(&format!("{BURSTS} --unit packets"), 4_000, 1)?;
    let (by_segment, _) = trains(&format!("{BURSTS} --unit segments"), 4_000, 1)?;
    ensure!(by_packet == by_segment, "single segments are lost in another order");
    ensure!(bursts(&by_packet).1 > 3.0, "nothing to compare: no bursts");
    Ok(())
}

/// Share of trains lost, and mean number in a row.
fn bursts(losses: &[u64]) -> (f64, f64) {
    let lost = losses.iter().filter(|lost| **lost > 0).count() as f64;
    let runs = losses.chunk_by(|one, next| (*one > 0) == (*next > 0)).filter(|run| run[0] > 0).count() as f64;
    (lost / losses.len() as f64, lost / runs)
}

/// A burst of 1/r = 5 is 5 trains if the chain counts packets. Counting segments it has left a train of 16 before its
/// end: the next is lost with chance π + (1-π)(1-p-r)^16 = 0.07, which makes bursts of 1.07 trains. The share is the same.
fn loss_by_segment_has_bursts_of_segments() -> anyhow::Result<()> {
    const TRAINS: u64 = 4_000;
    let (by_packet, _) = trains(&format!("{BURSTS} --unit packets"), TRAINS, 16)?;
    let (by_segment, ended) = trains(&format!("{BURSTS} --unit segments"), TRAINS, 16)?;
    let (packets, segments) = (bursts(&by_packet), bursts(&by_segment));
    println!("(share, burst in trains) by packet {packets:.3?}, by segment {segments:.3?}");
    let expected: f64 = 0.01 / 0.21;
    // Some 190 trains, most of them alone: four standard deviations are 30 %. By packet there are 38 bursts.
    ensure!((segments.0 / expected - 1.0).abs() < 0.3, "by segment {:.4} were lost", segments.0);
    ensure!((packets.0 / expected - 1.0).abs() < 0.6, "by packet {:.4} were lost", packets.0);
    ensure!((1.0..1.2).contains(&segments.1), "by segment, bursts of {:.2} trains", segments.1);
    ensure!((3.5..6.5).contains(&packets.1), "by packet, bursts of {:.2} trains", packets.1);
    let counted = counted(&ended)?;
    ensure!(counted.hit == by_segment.iter().sum::<u64>(), "{} segments counted as hit", counted.hit);
    Ok(())
}
