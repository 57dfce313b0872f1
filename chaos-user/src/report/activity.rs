//! What a target did, as people read it: rates, and what is there.

use super::number::short;
use crate::steady::activity::{Activity, Times};

/// Each metric by its name. Which there are does not depend on what happened, but on what is measured.
pub fn rows(activity: &Activity, seconds: f64) -> Vec<(&'static str, String)> {
    let rate = |count: Option<u64>| shown(count, |count| format!("{}/s", short(count as f64 / seconds)));
    let bytes = |count: Option<u64>| shown(count, |count| format!("{}B", short(count as f64)));
    let byte_rate =
        |count: Option<u64>| shown(count, |count| format!("{}B/s", short(count as f64 / seconds)));
    let share = |us: Option<u64>| shown(us, |us| format!("{:.1} %", us as f64 / 1e4 / seconds));
    let count = |count: Option<u64>| shown(count, |count| count.to_string());
    let (net, calls, tcp) = (activity.net, activity.calls.as_ref(), activity.tcp);
    let mut rows = vec![
        ("sent", rate(net.map(|net| net.tx_packets))),
        ("sent bytes", byte_rate(net.map(|net| net.tx_bytes))),
        ("received", rate(net.map(|net| net.rx_packets))),
        ("received bytes", byte_rate(net.map(|net| net.rx_bytes))),
        ("calls", rate(calls.map(|calls| calls.total))),
        ("failed", rate(calls.map(|calls| calls.failed))),
        ("connects", rate(tcp.map(|tcp| tcp.connects))),
        ("accepted", rate(tcp.map(|tcp| tcp.accepted))),
        ("resets sent", rate(tcp.map(|tcp| tcp.resets_sent))),
        ("resets received", rate(tcp.map(|tcp| tcp.resets_received))),
        ("sent again", rate(tcp.and_then(|tcp| tcp.retransmits))),
        ("cpu", share(activity.cpu.usage_us)),
        ("cpu throttled", share(activity.cpu.throttled_us)),
        ("waits for cpu", share(activity.pressure.cpu.some_us)),
        ("memory", bytes(activity.memory.current_bytes)),
        ("waits for memory", share(activity.pressure.memory.some_us)),
        ("major faults", rate(activity.memory.major_faults)),
        ("oom kills", count(activity.memory.oom_kills)),
        ("disk read", byte_rate(activity.io.map(|io| io.read_bytes))),
        ("disk written", byte_rate(activity.io.map(|io| io.written_bytes))),
        ("waits for disk", share(activity.pressure.io.some_us)),
        ("tasks", count(activity.pids)),
        ("exits", count(activity.processes.as_ref().map(|processes| processes.exits))),
        ("killed", count(activity.processes.as_ref().map(|processes| processes.killed.values().sum()))),
    ];
    rows.extend(activity.latency.iter().flatten().map(|(class, times)| (*class, durations(times))));
    let timed = [("round trip", &activity.round_trip), ("run queue", &activity.run_queue)];
    let timed = timed.into_iter().filter_map(|(name, times)| Some((name, durations(times.as_ref()?))));
    rows.extend(timed);
    if let Some(block) = &activity.block {
        rows.push(("block read", durations(&block.read)));
        rows.push(("block write", durations(&block.write)));
    }
    rows
}

/// The most telling of them on one line, without those that were not measured.
pub fn line(activity: &Activity, seconds: f64) -> String {
    const TOLD: [&str; 8] =
        ["sent", "received", "calls", "failed", "sent again", "cpu", "memory", "waits for disk"];
    let rows = rows(activity, seconds);
    let told = rows.iter().filter(|(name, value)| TOLD.contains(name) && value != NOTHING);
    let told: Vec<String> = told.map(|(name, value)| format!("{name} {value}")).collect();
    told.join(", ")
}

/// Stands for what was not measured, and for durations of nothing.
pub const NOTHING: &str = "-";

fn shown(value: Option<u64>, show: impl Fn(u64) -> String) -> String {
    value.map_or_else(|| NOTHING.into(), show)
}

fn durations(times: &Times) -> String {
    match (times.p50_ns, times.p99_ns) {
        (Some(p50_ns), Some(p99_ns)) => {
            format!("p50 {}s, p99 {}s", seconds(p50_ns), seconds(p99_ns))
        }
        _ => NOTHING.into(),
    }
}

fn seconds(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} n"),
        1_000..1_000_000 => format!("{:.1} µ", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} m", ns as f64 / 1e6),
        _ => format!("{:.2} ", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_unit() {
        let of = |ns| durations(&Times { count: 1, p50_ns: Some(ns), p99_ns: Some(ns), max_ns: Some(ns) });
        assert_eq!(of(999), "p50 999 ns, p99 999 ns");
        assert_eq!(of(20_447_231), "p50 20.4 ms, p99 20.4 ms");
        assert_eq!(of(1_500), "p50 1.5 µs, p99 1.5 µs");
        assert_eq!(of(2_000_000_000), "p50 2.00 s, p99 2.00 s");
        assert_eq!(durations(&Times { count: 0, p50_ns: None, p99_ns: None, max_ns: None }), "-");
    }
}
