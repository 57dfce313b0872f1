//! Whom anything concerns: a table of cgroup ids, hashed and with open addressing.
//!
//! Not one of the kernel's hash maps: everybody's packets and calls ask it, and an array is looked up without calling
//! anything. Who fills it in chooses the multiplier, so that a search ends after [`MAX_PROBES`] entries at most.

crate::pod! {
    /// What concerns one cgroup and everything below it.
    pub struct Target {
        /// The cgroup's id; 0 where there is no target.
        pub id: u64,
        /// Bit *n* set: rule *n* is for this cgroup.
        pub rules: u64,
        /// Where its state and counters are.
        pub slot: u32,
        /// Unused. The size is a power of two, so that an index is shifted and not multiplied.
        pub spare: [u32; 3],
    }
}

impl Target {
    /// No cgroup.
    pub const NOBODY: Self = Self::of(0, 0, 0);

    /// These rules, for a cgroup with this slot.
    pub const fn of(id: u64, rules: u64, slot: u32) -> Self {
        Self { id, rules, slot, spare: [0; 3] }
    }
}

/// How many entries are looked at for one id. Behind the last home there are as many, less one.
pub const MAX_PROBES: u32 = 4;

crate::pod! {
    /// How ids are hashed: multiplicatively (Knuth, The Art of Computer Programming 3, 2nd ed., 6.4).
    pub struct TargetHash {
        /// An odd number.
        pub multiplier: u64,
        /// 64 less the table's bits; at most 63.
        pub shift: u32,
        /// Unused.
        pub spare: u32,
    }
}

impl TargetHash {
    /// For a table of two homes.
    pub const SMALLEST: Self = Self { multiplier: 1, shift: 63, spare: 0 };

    /// How many homes there are.
    pub const fn homes(self) -> u32 {
        1 << (64 - self.shift)
    }

    /// Where an id belongs, if nobody else is there.
    #[inline(always)]
    pub const fn home(self, id: u64) -> u32 {
        (id.wrapping_mul(self.multiplier) >> (self.shift & 63)) as u32
    }

    /// The entry of an id; `entry` gives that at an index.
    #[inline(always)]
    pub fn find<'a>(self, id: u64, entry: impl Fn(u32) -> Option<&'a Target>) -> Option<&'a Target> {
        let home = self.home(id);
        for probe in 0..MAX_PROBES {
            let target = entry(home + probe)?;
            if target.id == 0 {
                return None;
            }
            if target.id == id {
                return Some(target);
            }
        }
        None
    }
}
