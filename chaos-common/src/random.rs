//! Replayable randomness.

/// The increment of the splitmix64 sequence (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014): 2^64 divided by the golden ratio.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The `n`-th draw of the sequence that belongs to `seed` and `stream`. The same arguments give the same
/// draw for ever: this is what makes a seeded run replayable.
#[inline(always)]
pub const fn draw(seed: u64, stream: u32, n: u64) -> u32 {
    let start = mix(seed ^ mix(stream as u64 + 1));
    (mix(start.wrapping_add(n.wrapping_mul(GOLDEN_GAMMA))) >> 32) as u32
}

/// The output function of splitmix64.
#[inline(always)]
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn replays_and_differs_by_stream() {
        assert_eq!(draw(42, 7, 1), draw(42, 7, 1));
        let distinct: HashSet<u32> = (0..100).map(|stream| draw(42, stream, 1)).collect();
        assert_eq!(distinct.len(), 100);
    }

    #[test]
    fn is_uniform_enough_to_lose_packets_by() {
        let hits = (0..1_000_000).filter(|n| draw(1, 0, *n) < (u32::MAX / 100)).count();
        assert!((9_600..10_400).contains(&hits), "{hits} of 10,000 expected: outside 4 sigma");
    }
}
