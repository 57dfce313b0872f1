//! Which bits of a payload are flipped.

use crate::random;

/// How many bits of one packet can be flipped; bounds a loop.
pub const MAX_BITS: u32 = 64;

crate::pod! {
    /// How a packet's payload is changed.
    pub struct Corruption {
        /// The first byte of the payload that may be changed, counted from 0.
        pub first: u32,
        /// The last.
        pub last: u32,
        /// How many bits are flipped, from 1 to [`MAX_BITS`].
        pub bits: u32,
        /// When set to 1, the checksum is made wrong; otherwise it fits what was changed.
        pub breaks_checksum: u32,
    }
}

/// Bytes of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub first: u32,
    /// How many.
    pub bytes: u32,
}

/// A bit of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bit {
    /// In this byte.
    pub byte: u32,
    /// The bit alone.
    pub mask: u8,
}

impl Corruption {
    /// Nothing is flipped.
    pub const NONE: Self = Self { first: 0, last: 0, bits: 0, breaks_checksum: 0 };

    /// The part that may be changed of a payload of so many bytes; `None` if there is no such part.
    #[inline(always)]
    pub const fn window(&self, payload_bytes: u32) -> Option<Window> {
        if self.first >= payload_bytes {
            return None;
        }
        let last = if self.last < payload_bytes { self.last } else { payload_bytes - 1 };
        Some(Window { first: self.first, bytes: last.saturating_sub(self.first).saturating_add(1) })
    }

    /// How many bits are flipped in a window, which may have fewer than were asked for.
    #[inline(always)]
    pub const fn bits_in(&self, window: Window) -> u32 {
        let all = window.bytes as u64 * 8;
        if all < self.bits as u64 { all as u32 } else { self.bits }
    }

    /// The `n`-th bit to flip of `count`, in ascending order. The window is cut into as many equal parts and one bit
    /// is drawn in each, so that no two are the same and undo each other. The same `draw` gives the same bits.
    #[inline(always)]
    pub const fn bit(window: Window, n: u32, count: u32, draw: u32) -> Bit {
        let (all, count) = (window.bytes as u64 * 8, if count == 0 { 1 } else { count as u64 });
        let (start, end) = (all * n as u64 / count, all * (n as u64 + 1) / count);
        let uniform = random::draw(draw as u64, n, 0) as u64;
        let bit = start + ((uniform * (end - start)) >> 32);
        Bit { byte: window.first + (bit >> 3) as u32, mask: 1 << (bit & 7) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, vec::Vec};

    fn corruption(first: u32, last: u32, bits: u32) -> Corruption {
        Corruption { first, last, bits, breaks_checksum: 0 }
    }

    fn bits(corruption: &Corruption, payload_bytes: u32, draw: u32) -> Vec<Bit> {
        let window = corruption.window(payload_bytes).unwrap();
        let count = corruption.bits_in(window);
        (0..count).map(|n| Corruption::bit(window, n, count, draw)).collect()
    }

    #[test]
    fn windows_end_with_the_payload() {
        let window = |first, last, payload| corruption(first, last, 1).window(payload);
        assert_eq!(window(0, u32::MAX, 100), Some(Window { first: 0, bytes: 100 }));
        assert_eq!(window(10, 19, 100), Some(Window { first: 10, bytes: 10 }));
        assert_eq!(window(10, 19, 15), Some(Window { first: 10, bytes: 5 }));
        assert_eq!(window(99, u32::MAX, 100), Some(Window { first: 99, bytes: 1 }));
        assert_eq!(window(10, 19, 10), None);
        assert_eq!(window(0, u32::MAX, 0), None);
    }

    #[test]
    fn as_many_different_bits_as_asked_for_within_the_window() {
        for (first, last, count) in
            [(0, u32::MAX, 1), (3, 3, 8), (5, 9, 7), (0, 999, MAX_BITS), (2, 2, MAX_BITS)]
        {
            let corruption = corruption(first, last, count);
            for draw in 0..500 {
                let bits = bits(&corruption, 1000, draw);
                let window = corruption.window(1000).unwrap();
                assert_eq!(bits.len() as u64, u64::from(count).min(u64::from(window.bytes) * 8));
                assert_eq!(bits.iter().collect::<HashSet<_>>().len(), bits.len());
                assert!(bits.iter().all(|bit| bit.mask.count_ones() == 1));
                assert!(bits.is_sorted_by_key(|bit| bit.byte));
                assert!(bits.iter().all(|bit| (first..=last.min(999)).contains(&bit.byte)));
            }
        }
    }

    #[test]
    fn every_bit_has_its_turn_and_a_draw_replays() {
        let all = corruption(0, u32::MAX, 1);
        let seen: HashSet<Bit> = (0..2_000).flat_map(|draw| bits(&all, 8, draw)).collect();
        assert_eq!(seen.len(), 64);
        assert_eq!(bits(&corruption(0, 999, 16), 1000, 7), bits(&corruption(0, 999, 16), 1000, 7));
    }

    #[test]
    fn payloads_as_long_as_they_get() {
        let last = bits(&corruption(0, u32::MAX, MAX_BITS), 1 << 19, u32::MAX).pop().unwrap();
        assert!(last.byte < 1 << 19);
    }
}
