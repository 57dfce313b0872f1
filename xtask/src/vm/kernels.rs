//! The lab's kernels: where each comes from, and what it must be able to do.

use clap::ValueEnum;

/// A kernel of the lab. Mechanisms differ by kernel, so each stands for what others lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum LabKernel {
    /// Debian 12's: BPF LSM, `fmod_ret` on `security_*`, no TCX.
    Deb61,
    /// Debian 12's newer one: the same with TCX.
    Deb612,
    /// Debian backports': `fmod_ret` on system calls without error injection.
    Deb73,
    /// Our own build: error injection by kprobes, and what Debian leaves out.
    Fei612,
}

/// Where a kernel comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Packages of Debian.
    Packages(Packages),
    /// An image that `cargo xtask kernel` builds, with everything built in.
    Built,
}

/// Packages of Debian, the first of which names the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packages {
    /// Names up to the version; all have the same version and end in `-amd64`.
    pub(crate) names: &'static [&'static str],
    /// How the version begins.
    pub(crate) series: &'static str,
    /// The release, and which of its suites.
    pub(crate) suites: &'static [&'static str],
}

/// What every kernel of the lab can do. The names are those of `kchaos doctor --json`.
const EVERYWHERE: &[&str] = &[
    "btf",
    "clsact",
    "clsact_ingress",
    "cgroup_skb",
    "sock_addr",
    "sock_ops",
    "sock_destroy",
    "syscall_tracepoint",
    "retransmit_tracepoint",
    "fentry",
    "lsm",
    "fmod_ret_security",
    "kprobe",
    "fq",
    "netem",
    "ifb",
];

const BOOKWORM: &[&str] = &["bookworm", "bookworm-security"];
const BOOKWORM_NEWER: &[&str] = &["bookworm-backports", "bookworm-security"];
const TRIXIE_BACKPORTS: &[&str] = &["trixie-backports"];

impl LabKernel {
    /// As it is called on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Deb61 => "deb61",
            Self::Deb612 => "deb612",
            Self::Deb73 => "deb73",
            Self::Fei612 => "fei612",
        }
    }

    /// How long it takes for a test, beside the others: our own has little that is built in, and is emulated as quickly as that.
    const fn pace(self) -> usize {
        match self {
            Self::Deb61 | Self::Deb612 | Self::Deb73 => 3,
            Self::Fei612 => 2,
        }
    }

    /// All of them with their pace and what each must be able to do: `deb61*3=btf,fq;fei612*2=btf,fq,tcx`.
    pub(crate) fn all() -> String {
        let with =
            |kernel: &Self| format!("{}*{}={}", kernel.name(), kernel.pace(), kernel.must_have().join(","));
        Self::value_variants().iter().map(with).collect::<Vec<_>>().join(";")
    }

    /// Where it comes from.
    pub(crate) const fn source(self) -> Source {
        match self {
            Self::Deb61 => packages(&["linux-image-"], "6.1.", BOOKWORM),
            Self::Deb612 => packages(&["linux-image-"], "6.12.", BOOKWORM_NEWER),
            Self::Deb73 => packages(&["linux-binary-", "linux-modules-"], "7.3.", TRIXIE_BACKPORTS),
            Self::Fei612 => Source::Built,
        }
    }

    /// What `kchaos doctor` must find on it.
    pub(crate) fn must_have(self) -> Vec<&'static str> {
        let more: &[&str] = match self {
            Self::Deb61 => &[],
            Self::Deb612 => &["tcx", "tcx_ingress", "fuse_sleep"],
            Self::Deb73 => &["tcx", "tcx_ingress", "fmod_ret_syscall", "fuse_sleep"],
            Self::Fei612 => &["tcx", "tcx_ingress", "fmod_ret_syscall", "override", "fuse_sleep"],
        };
        EVERYWHERE.iter().chain(more).copied().collect()
    }
}

const fn packages(
    names: &'static [&'static str],
    series: &'static str,
    suites: &'static [&'static str],
) -> Source {
    Source::Packages(Packages { names, series, suites })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for kernel in LabKernel::value_variants() {
            let value = kernel.to_possible_value().unwrap();
            assert_eq!(value.get_name(), kernel.name());
        }
    }

    #[test]
    fn only_the_oldest_has_no_tcx() {
        let without: Vec<_> = LabKernel::value_variants()
            .iter()
            .filter(|kernel| !kernel.must_have().contains(&"tcx"))
            .collect();
        assert_eq!(without, [&LabKernel::Deb61]);
    }
}
