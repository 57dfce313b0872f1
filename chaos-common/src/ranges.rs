//! What filters say of addresses and ports: all there are, in ranges, each with the clauses that name it. A range ends where
//! the next one begins, and the first begins at 0, so every key is in just one.

/// Steps of the longest search: as many ranges as there are entries for ports, which is the most that can differ.
pub const MAX_STEPS: u32 = 17;

crate::pod! {
    /// A range of ports or of IPv4 addresses.
    pub struct Range {
        /// Where it begins; less than 2^63.
        pub from: u64,
        /// The clauses that name it.
        pub clauses: u64,
    }
}

crate::pod! {
    /// A range of IPv6 addresses.
    pub struct WideRange {
        /// Where it begins: the upper half, and the lower one.
        pub from: [u64; 2],
        /// The clauses that name it.
        pub clauses: u64,
    }
}

/// How many steps it takes to find a key in so many ranges. Where these are less than 2^steps, the last one is repeated.
pub const fn steps(ranges: usize) -> u32 {
    ranges.next_power_of_two().trailing_zeros()
}

/// Which of 2^`steps` ranges a key is in. `is_before` says (1 or 0) whether it comes before the beginning of the range with
/// this number, and nothing where there is none, which ends the search.
///
/// Nothing else is decided by a branch on the way: the kernel's verifier would walk through what comes after each once more, and
/// a processor guess wrong at every second one.
#[inline(always)]
pub fn search(steps: u32, is_before: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    let (mut at, mut reach) = (0, 1 << steps);
    for _ in 0..MAX_STEPS {
        reach >>= 1;
        if reach == 0 {
            break;
        }
        // Not `&` of a mask of nothing or all: newer verifiers look at either by itself (kernel/bpf/verifier.c,
        // `maybe_fork_scalars`).
        at += reach * (1 - is_before(at + reach)?);
    }
    Some(at)
}

/// 1 if `one` is less than `other`, else 0; both are less than 2^63.
#[inline(always)]
pub const fn is_less(one: u64, other: u64) -> u32 {
    (one.wrapping_sub(other) >> 63) as u32
}

/// The same for numbers of 128 bits, whose upper halves come first: the borrow of their difference (H. S. Warren, Hacker's
/// Delight, 2nd ed., 2-13).
#[inline(always)]
pub const fn is_less_wide(one: [u64; 2], other: [u64; 2]) -> u32 {
    let low = borrow(one[1], other[1], 0);
    borrow(one[0], other[0], low) as u32
}

#[inline(always)]
const fn borrow(one: u64, other: u64, before: u64) -> u64 {
    let difference = one.wrapping_sub(other).wrapping_sub(before);
    ((!one & other) | (!(one ^ other) & difference)) >> 63
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_last_range_that_begins_at_or_before_it() {
        for ranges in [1, 2, 3, 4, 5, 16, 17] {
            let begins: std::vec::Vec<u64> = (0..ranges as u64).map(|range| range * 10).collect();
            let steps = steps(ranges);
            for key in 0..ranges as u64 * 10 + 20 {
                let from = |range: u32| begins.get(range as usize).copied().unwrap_or(begins[ranges - 1]);
                let found = search(steps, |range| Some(is_less(key, from(range)))).unwrap();
                let expected = begins.iter().rposition(|begin| *begin <= key);
                assert_eq!(
                    begins.get(found as usize).or(begins.last()),
                    expected.map(|i| &begins[i]),
                    "{key} in {ranges}"
                );
            }
        }
    }

    #[test]
    fn wide_numbers_are_compared_as_numbers() {
        let numbers = [0, 1, u64::MAX >> 1, 1 << 63, u64::MAX - 1, u64::MAX];
        let pairs: std::vec::Vec<[u64; 2]> =
            numbers.iter().flat_map(|high| numbers.iter().map(|low| [*high, *low])).collect();
        for one in &pairs {
            for other in &pairs {
                assert_eq!(is_less_wide(*one, *other) == 1, one < other, "{one:x?} {other:x?}");
            }
        }
    }
}
