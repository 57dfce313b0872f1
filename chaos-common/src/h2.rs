//! Histograms of durations with buckets that grow with the value: 32 to each doubling, so that none is wider than 3.1 %
//! of what it holds. The kernel half counts and the user half reads by the same function.
//!
//! The scheme is the one of H2 histograms (<https://h2histogram.org/>, grouping power 5): values below 64 have a bucket
//! each, and from there on the 5 bits below the highest say which of the 32.

/// Buckets of one doubling, as a power of two.
const GROUPING: u32 = 5;
/// Values from here on are counted in the last bucket: 2^36 ns are 68.7 s.
const HIGHEST: u64 = 1 << 36;
/// How many buckets there are.
pub const BUCKETS: usize = 1024;

/// The bucket of a value; always below [`BUCKETS`].
#[inline(always)]
pub const fn bucket(value: u64) -> u32 {
    if value < 2 << GROUPING {
        return value as u32;
    }
    if value >= HIGHEST {
        return BUCKETS as u32 - 1;
    }
    let power = highest_bit(value);
    let within = ((value - (1 << power)) >> (power - GROUPING)) as u32;
    // The mask changes nothing: it is for the verifier, which cannot follow the shifts.
    (((power - GROUPING + 1) << GROUPING) + within) & (BUCKETS as u32 - 1)
}

/// The least value of a bucket.
pub const fn lower(bucket: u32) -> u64 {
    if bucket < 2 << GROUPING {
        return bucket as u64;
    }
    let power = (bucket >> GROUPING) + GROUPING - 1;
    let within = (bucket & ((1 << GROUPING) - 1)) as u64;
    (1 << power) + (within << (power - GROUPING))
}

/// The least value above a bucket.
pub const fn upper(bucket: u32) -> u64 {
    lower(bucket + 1)
}

/// The place of the highest bit that is set, of a value that is not 0. By comparisons, of which the verifier keeps track.
#[inline(always)]
const fn highest_bit(value: u64) -> u32 {
    let (mut rest, mut power) = (value, 0);
    if rest >> 32 != 0 {
        (rest, power) = (rest >> 32, power + 32);
    }
    if rest >> 16 != 0 {
        (rest, power) = (rest >> 16, power + 16);
    }
    if rest >> 8 != 0 {
        (rest, power) = (rest >> 8, power + 8);
    }
    if rest >> 4 != 0 {
        (rest, power) = (rest >> 4, power + 4);
    }
    if rest >> 2 != 0 {
        (rest, power) = (rest >> 2, power + 2);
    }
    if rest >> 1 != 0 { power + 1 } else { power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_holds_what_lies_between_its_bounds() {
        for number in 0..BUCKETS as u32 {
            let (least, above) = (lower(number), upper(number));
            assert!(least < above, "{number}");
            assert_eq!((bucket(least), bucket(above - 1)), (number, number));
        }
        assert_eq!(upper(BUCKETS as u32 - 1), HIGHEST);
    }

    #[test]
    fn no_bucket_is_wider_than_a_32nd_of_what_it_holds() {
        for number in 64..BUCKETS as u32 {
            assert!((upper(number) - lower(number)) * 32 <= lower(number), "{number}");
        }
    }

    #[test]
    fn what_is_too_long_is_in_the_last_bucket() {
        for value in [HIGHEST, 1 << 40, u64::MAX] {
            assert_eq!(bucket(value), BUCKETS as u32 - 1);
        }
    }

    #[test]
    fn bits() {
        for power in 0..64 {
            assert_eq!(highest_bit(1 << power), power);
            assert_eq!(highest_bit(u64::MAX >> (63 - power)), power);
        }
    }
}
