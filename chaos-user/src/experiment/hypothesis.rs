//! What should stay true: metrics, and margins declared before the run.

/// Something measured for each group, once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// `net.tx_packets`: packets sent per second.
    TxPackets,
    /// `net.tx_bytes`: bytes sent per second.
    TxBytes,
    /// `net.rx_packets`: packets received per second.
    RxPackets,
    /// `net.rx_bytes`: bytes received per second.
    RxBytes,
    /// `syscalls`: system calls per second.
    Syscalls,
    /// `syscall.error_ratio`: failed system calls per system call.
    SyscallErrorRatio,
    /// `syscall.organic_error_ratio`: the same without the errors that faults gave.
    OrganicErrorRatio,
    /// `tcp.retrans_ratio`: TCP retransmissions per packet sent.
    TcpRetransRatio,
}

/// How a metric is made of counters, and so on which scale it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Count per second: compared as a ratio, on the log scale.
    Rate,
    /// Count per other count, usually near zero: compared as a difference, in percentage points.
    RareRatio,
}

/// One gate: a metric that decides, and how far it may move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// What is measured.
    pub metric: Metric,
    /// How far it may move.
    pub margin: Margin,
}

/// How far a metric of the experimental group may move against the control group. For a [`Kind::Rate`] the
/// numbers are fractions (0.1 is 10 %), for a [`Kind::RareRatio`] they are absolute (0.005 is 0.5 pp).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// Most increase, `None` if an increase never hurts.
    pub increase: Option<f64>,
    /// Most decrease, `None` if a decrease never hurts. Below 1 for a rate.
    pub decrease: Option<f64>,
}

impl Metric {
    /// All of them, in the order they are reported.
    pub const ALL: [Self; 8] = [
        Self::RxBytes,
        Self::TxBytes,
        Self::RxPackets,
        Self::TxPackets,
        Self::Syscalls,
        Self::SyscallErrorRatio,
        Self::OrganicErrorRatio,
        Self::TcpRetransRatio,
    ];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TxPackets => "net.tx_packets",
            Self::TxBytes => "net.tx_bytes",
            Self::RxPackets => "net.rx_packets",
            Self::RxBytes => "net.rx_bytes",
            Self::Syscalls => "syscalls",
            Self::SyscallErrorRatio => "syscall.error_ratio",
            Self::OrganicErrorRatio => "syscall.organic_error_ratio",
            Self::TcpRetransRatio => "tcp.retrans_ratio",
        }
    }

    /// How it is compared.
    pub const fn kind(self) -> Kind {
        match self {
            Self::TxPackets | Self::TxBytes | Self::RxPackets | Self::RxBytes | Self::Syscalls => Kind::Rate,
            Self::SyscallErrorRatio | Self::OrganicErrorRatio | Self::TcpRetransRatio => Kind::RareRatio,
        }
    }
}
