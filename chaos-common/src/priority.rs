//! By which queue a packet leaves where `prio` with `netem` below holds packets back: its priority says so. prio takes
//! the band from the lower half of a priority whose upper half is its own handle (net/sched/sch_prio.c, `prio_classify`,
//! 6.18), so a packet that no program of ours has met passes as it would without us.

/// The handle of our root qdiscs ("kc"), by which we know them again. SO_PRIORITY goes up to 6 for those without
/// CAP_NET_ADMIN (net/core/sock.c, `sk_setsockopt`, 6.18), so nobody has such a priority by chance.
pub const HANDLE: u16 = 0x6b63;

/// The bands of all other packets: as many as `pfifo_fast` has.
pub const BANDS_OF_OTHERS: u32 = 3;

/// How many slots can have a band to themselves: a prio has 16 bands (include/uapi/linux/pkt_sched.h, TCQ_PRIO_BANDS).
pub const MAX_BANDS: u32 = 16 - BANDS_OF_OTHERS;

/// The class of prio by which packets of a slot leave that are held back; slots share classes where they are many.
#[inline(always)]
pub const fn class(slot: u32) -> u16 {
    (1 + BANDS_OF_OTHERS + slot % MAX_BANDS) as u16
}

/// The priority that says so.
#[inline(always)]
pub const fn of_slot(slot: u32) -> u32 {
    (HANDLE as u32) << 16 | class(slot) as u32
}

/// Whether a priority is one of these.
#[inline(always)]
pub const fn is_ours(priority: u32) -> bool {
    priority >> 16 == HANDLE as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_a_class_behind_those_of_others() {
        assert_eq!(of_slot(0), 0x6b63_0004);
        assert_eq!(class(MAX_BANDS - 1), 16);
        assert_eq!(class(MAX_BANDS), class(0));
        assert!(is_ours(of_slot(5)) && !is_ours(7) && !is_ours(0));
    }
}
