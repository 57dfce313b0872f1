//! Probability in fixed point: the kernel half has no floating point.

/// How many equally likely outcomes a draw has: 2^32.
pub const ONE: u64 = 1 << 32;

/// A probability in units of 2^-32, from 0 (never) to [`ONE`] (always).
///
/// A draw is a uniform `u32`; it hits when it is below the threshold. Because the threshold needs 33
/// bits, 0 never hits and [`ONE`] always does, with no special case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u64);

impl Chance {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(ONE);

    /// From the number of 2^-32 units; anything above [`ONE`] means always.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(if bits > ONE { ONE } else { bits })
    }

    /// The number of 2^-32 units.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether a uniform draw hits.
    #[inline(always)]
    pub const fn hits(self, draw: u32) -> bool {
        (draw as u64) < self.0
    }

    /// The chance that this does not happen.
    #[inline(always)]
    pub const fn complement(self) -> Self {
        Self(ONE - self.0)
    }

    /// The chance that two independent things both happen, rounded down.
    pub const fn and(self, other: Self) -> Self {
        Self(((self.0 as u128 * other.0 as u128) >> 32) as u64)
    }

    /// From a fraction of one. `None` outside 0..=1, for NaN, and for a non-zero fraction so small
    /// (below 2^-33) that it would silently become "never".
    #[cfg(not(target_arch = "bpf"))]
    pub fn from_fraction(fraction: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&fraction) {
            return None;
        }
        let bits = (fraction * ONE as f64 + 0.5) as u64;
        (bits > 0 || fraction == 0.0).then_some(Self(bits))
    }

    /// As a fraction of one.
    #[cfg(not(target_arch = "bpf"))]
    pub fn fraction(self) -> f64 {
        self.0 as f64 / ONE as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_never_hits() {
        assert!(!Chance::NEVER.hits(0) && !Chance::NEVER.hits(u32::MAX));
        assert_eq!(Chance::from_fraction(0.0), Some(Chance::NEVER));
    }

    #[test]
    fn one_hundred_percent_always_hits() {
        assert!(Chance::ALWAYS.hits(0) && Chance::ALWAYS.hits(u32::MAX));
        assert_eq!(Chance::from_fraction(1.0), Some(Chance::ALWAYS));
        assert_eq!(Chance::from_bits(u64::MAX), Chance::ALWAYS);
    }

    #[test]
    fn one_in_ten_million_survives() {
        let tiny = Chance::from_fraction(1e-7).unwrap();
        assert_eq!(tiny.bits(), 429);
        assert!(tiny.hits(428) && !tiny.hits(429));
        assert!((tiny.fraction() - 1e-7).abs() < 1e-9);
    }

    #[test]
    fn what_would_round_to_never_is_refused() {
        assert_eq!(Chance::from_fraction(1e-10), None);
        for outside in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Chance::from_fraction(outside), None);
        }
    }

    #[test]
    fn products_and_complements() {
        let half = Chance::from_fraction(0.5).unwrap();
        assert_eq!(half.and(half), Chance::from_fraction(0.25).unwrap());
        assert_eq!(Chance::ALWAYS.and(half), half);
        assert_eq!(half.complement(), half);
        assert_eq!(Chance::NEVER.complement(), Chance::ALWAYS);
    }
}
