//! Places at which a test can make the controller die, to show that it may die anywhere. Only in builds with the
//! feature `fault-points`, which nothing but the tests asks for.

/// A step of injecting or rolling back that has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// The programs are in the kernel, the maps filled.
    Filled,
    /// The journal is open.
    Journalled,
    /// An ifb device is noted in the journal, and not there.
    IfbNoted,
    /// An ifb device is there, and does nothing.
    IfbAdded,
    /// An ifb device is there and up.
    IfbUp,
    /// The first program is attached.
    AttachedFirst,
    /// A clsact qdisc is noted in the journal, and not there.
    ClsactNoted,
    /// A clsact qdisc is there, without our filter.
    ClsactAdded,
    /// An fq qdisc is noted in the journal, and not there.
    FqNoted,
    /// An fq qdisc is there.
    FqAdded,
    /// A prio qdisc with netem is noted in the journal, and not there.
    NetemNoted,
    /// The prio qdisc is there, and nothing below it.
    PrioAdded,
    /// All of it is there.
    NetemAdded,
    /// Everything is attached, nothing armed.
    AttachedAll,
    /// The faults happen.
    Armed,
    /// The faults are over.
    Disarmed,
    /// The links are gone.
    Detached,
    /// What outlives us is undone, the journal still there.
    Undone,
    /// The journal is gone.
    Forgotten,
}

impl FaultPoint {
    /// All of them, in the order they are reached.
    pub const ALL: [Self; 19] = [
        Self::Filled,
        Self::Journalled,
        Self::IfbNoted,
        Self::IfbAdded,
        Self::IfbUp,
        Self::AttachedFirst,
        Self::ClsactNoted,
        Self::ClsactAdded,
        Self::FqNoted,
        Self::FqAdded,
        Self::NetemNoted,
        Self::PrioAdded,
        Self::NetemAdded,
        Self::AttachedAll,
        Self::Armed,
        Self::Disarmed,
        Self::Detached,
        Self::Undone,
        Self::Forgotten,
    ];

    /// What `KCHAOS_DIE_AT` is set to.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filled => "filled",
            Self::Journalled => "journalled",
            Self::IfbNoted => "ifb-noted",
            Self::IfbAdded => "ifb-added",
            Self::IfbUp => "ifb-up",
            Self::AttachedFirst => "attached-first",
            Self::ClsactNoted => "clsact-noted",
            Self::ClsactAdded => "clsact-added",
            Self::FqNoted => "fq-noted",
            Self::FqAdded => "fq-added",
            Self::NetemNoted => "netem-noted",
            Self::PrioAdded => "prio-added",
            Self::NetemAdded => "netem-added",
            Self::AttachedAll => "attached-all",
            Self::Armed => "armed",
            Self::Disarmed => "disarmed",
            Self::Detached => "detached",
            Self::Undone => "undone",
            Self::Forgotten => "forgotten",
        }
    }

    /// Dies here, by SIGKILL, if a test wants it.
    #[cfg(feature = "fault-points")]
    pub fn reached(self) {
        if std::env::var("KCHAOS_DIE_AT").is_ok_and(|wanted| wanted == self.name()) {
            // It cannot fail: the process is our own.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Nothing, outside tests.
    #[cfg(not(feature = "fault-points"))]
    pub const fn reached(self) {}
}
