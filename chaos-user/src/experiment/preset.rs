//! Gates for those who do not want to choose: `steady_state: { use: http }`.

use super::{
    hypothesis::{Gate, Level, Margin, Metric, Stat, Timed},
    metric::{ProbeStat, Word},
};
use crate::judge::Design;

/// A kind of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Anything that answers to something.
    Generic,
    /// What a probe asks over HTTP.
    Http,
    /// What keeps data.
    KvStore,
    /// What asks others.
    Client,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Generic, Self::Http, Self::KvStore, Self::Client];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Http => "http",
            Self::KvStore => "kv-store",
            Self::Client => "client",
        }
    }

    /// Its gates: at most eight with one probe. Levels are left out where there is no hold to judge them by.
    pub fn gates(self, probes: &[Word], design: Design) -> Vec<Gate> {
        let unexpected = |by| rises(Metric::UnexpectedErrorRatio, by);
        let memory = rises(Metric::Level(Level::Memory), 0.15);
        let probed = |stats: &[(ProbeStat, f64)]| {
            let of_probe = |id: &Word| {
                let gate = |(stat, by): &(ProbeStat, f64)| match stat {
                    ProbeStat::Throughput => falls(Metric::Probe(*id, *stat), *by),
                    _ => rises(Metric::Probe(*id, *stat), *by),
                };
                stats.iter().map(gate).collect::<Vec<_>>()
            };
            probes.iter().flat_map(of_probe).collect::<Vec<_>>()
        };
        let p99 = ProbeStat::Latency(Stat::P99);
        let mut gates = match self {
            Self::Generic => vec![unexpected(0.005), rises(Metric::CpuPerPacket, 0.25), memory],
            Self::Http => vec![],
            Self::KvStore => {
                let fsync = Timed::named("latency.fsync").map(|timed| Metric::Time(timed, Stat::P99));
                let mut gates = vec![unexpected(0.001), memory];
                gates.extend(fsync.map(|metric| rises(metric, 0.5)));
                gates
            }
            Self::Client => {
                vec![either(Metric::RxBytes, 0.2), rises(Metric::TcpRetransRatio, 0.01), unexpected(0.005)]
            }
        };
        gates.retain(|gate| design.has_hold() || gate.metric.kind().follows_pulses());
        gates.extend(match self {
            Self::Http => probed(&[
                (ProbeStat::ErrorRatio, 0.005),
                (ProbeStat::Throughput, 0.1),
                (ProbeStat::Latency(Stat::P50), 0.15),
                (p99, 0.25),
            ]),
            _ => probed(&[(ProbeStat::ErrorRatio, 0.01), (p99, 0.25)]),
        });
        gates.extend([Metric::Killed, Metric::OomKills].map(|metric| rises(metric, 0.0)));
        gates
    }
}

const fn rises(metric: Metric, increase: f64) -> Gate {
    Gate { metric, margin: Margin { increase: Some(increase), decrease: None } }
}

const fn falls(metric: Metric, decrease: f64) -> Gate {
    Gate { metric, margin: Margin { increase: None, decrease: Some(decrease) } }
}

const fn either(metric: Metric, by: f64) -> Gate {
    Gate { metric, margin: Margin { increase: Some(by), decrease: Some(by) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::histogram::WIDTH;

    #[test]
    fn every_preset_has_gates_that_can_be_judged() {
        for preset in Preset::ALL {
            for design in [Design::Hold, Design::Pulse, Design::Both] {
                let gates = preset.gates(&[Word::new("get")], design);
                assert!((4..=8).contains(&gates.len()), "{preset:?}: {}", gates.len());
                for gate in &gates {
                    assert_eq!(gate.margin.check(gate.metric.kind(), WIDTH), Ok(()), "{}", gate.metric);
                    assert!(gate.metric.kind().follows_pulses() || design.has_hold(), "{}", gate.metric);
                }
            }
        }
    }
}
