//! What is counted together, because the same programs count it.

use chaos_common::{
    names::program,
    steady::{CLASSES, class, series},
};
use serde::Serialize;

/// What is counted by programs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Packets, at the targets alone.
    Net,
    /// System calls that end.
    Calls,
    /// How long they take, and TCP's round trips.
    Latency,
    /// TCP's connections.
    Tcp,
    /// Processes that end, and signals.
    Processes,
    /// How long threads wait for a processor.
    RunQueue,
    /// How long block devices take.
    Block,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Net, Self::Calls, Self::Latency, Self::Tcp, Self::Processes, Self::RunQueue, Self::Block];

    /// Those that are always counted.
    pub const ALWAYS: [Self; 4] = [Self::Net, Self::Calls, Self::Tcp, Self::Processes];

    /// As users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Calls => "calls",
            Self::Latency => "latency",
            Self::Tcp => "tcp",
            Self::Processes => "processes",
            Self::RunQueue => "run_queue",
            Self::Block => "block",
        }
    }

    /// Its programs at the host's tracepoints.
    pub const fn tracepoints(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Net => &[],
            Self::Calls => &[(program::STEADY_SYSCALLS, "sys_exit")],
            Self::Latency => {
                &[(program::STEADY_CALL_BEGINS, "sys_enter"), (program::STEADY_ROUND_TRIPS, "tcp_probe")]
            }
            Self::Tcp => &[
                (program::STEADY_CONNECTIONS, "inet_sock_set_state"),
                (program::STEADY_RETRANSMITS, "tcp_retransmit_skb"),
                (program::STEADY_RESETS_SENT, "tcp_send_reset"),
                (program::STEADY_RESETS_RECEIVED, "tcp_receive_reset"),
            ],
            Self::Processes => {
                &[(program::STEADY_EXITS, "sched_process_exit"), (program::STEADY_SIGNALS, "signal_deliver")]
            }
            Self::RunQueue => &[
                (program::STEADY_SWITCHES, "sched_switch"),
                (program::STEADY_WAKEUPS, "sched_wakeup"),
                (program::STEADY_WAKEUPS, "sched_wakeup_new"),
            ],
            Self::Block => &[
                (program::STEADY_BLOCK_ENDS, "block_rq_complete"),
                (program::STEADY_BLOCK_ISSUES, "block_rq_issue"),
            ],
        }
    }

    /// What it times.
    pub fn series(self) -> Vec<u32> {
        match self {
            Self::Latency => {
                let classes = (0..CLASSES as u32).filter(|class| class::is_timed(*class));
                classes.chain([series::ROUND_TRIP]).collect()
            }
            Self::RunQueue => vec![series::RUN_QUEUE],
            Self::Block => vec![series::BLOCK_READ, series::BLOCK_WRITE, series::BLOCK_OTHER],
            Self::Net | Self::Calls | Self::Tcp | Self::Processes => Vec::new(),
        }
    }

    /// Whether its programs read what BTF alone says where to find.
    pub const fn needs_btf(self) -> bool {
        !matches!(self, Self::Net | Self::Calls)
    }
}
