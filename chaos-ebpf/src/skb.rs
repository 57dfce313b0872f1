//! What both kinds of packet programs need of `struct __sk_buff`.

use core::{arch::asm, array, ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_skb_ancestor_cgroup_id, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_load_bytes_relative,
        bpf_skb_store_bytes,
    },
};

use crate::maps::{COPY, global};

/// The ifindex of `lo` in every network namespace (include/linux/netdevice.h, LOOPBACK_IFINDEX, 6.18).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// Offsets count from the network header, whatever link layer the device has (include/uapi/linux/bpf.h).
const BPF_HDR_START_NET: u32 = 1;

/// Length of an Ethernet header (include/uapi/linux/if_ether.h, ETH_HLEN).
const ETHERNET_BYTES: u32 = 14;

/// A packet, wherever it was met.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    /// Id of the ancestor, at `level`, of the cgroup of the socket that owns this packet; 0 if it has no
    /// socket, or one in a cgroup that is not as deep (net/core/filter.c, `__bpf_sk_ancestor_cgroup_id`).
    #[inline(always)]
    pub fn ancestor_cgroup_id(self, level: u32) -> u64 {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { bpf_skb_ancestor_cgroup_id(self.0, level as i32) }
    }

    /// The bytes at `offset` after the start of the network header.
    #[inline(always)]
    pub fn bytes<const N: usize>(self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the destination is N bytes long, and written if the helper succeeds.
        unsafe {
            let to = bytes.as_mut_ptr().cast();
            let result =
                bpf_skb_load_bytes_relative(self.0.cast::<c_void>(), offset, to, N as u32, BPF_HDR_START_NET);
            (result == 0).then(|| bytes.assume_init())
        }
    }

    /// The same as words of four bytes, in their own order. Bytes would be put together one by one.
    #[inline(always)]
    pub fn words<const N: usize>(self, offset: u32) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the destination is N words long, and written if the helper succeeds.
        unsafe {
            let (to, length) = (words.as_mut_ptr().cast(), 4 * N as u32);
            let result =
                bpf_skb_load_bytes_relative(self.0.cast::<c_void>(), offset, to, length, BPF_HDR_START_NET);
            (result == 0).then(|| words.assume_init())
        }
    }

    /// The same where the packet has an Ethernet header in front, without calling anything: `None` if they are not in the
    /// packet's first piece. For programs of tc, whose packets begin with the link layer's header.
    #[inline(always)]
    pub fn words_behind_ethernet<const N: usize>(self, offset: u32) -> Option<[u32; N]> {
        // SAFETY: the verifier allows reading these fields of the context.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        let from = data + (ETHERNET_BYTES + offset) as usize;
        if from + 4 * N > end {
            return None;
        }
        // SAFETY: in bounds, as has been seen. Who makes room for headers has the network header at a multiple of 4
        // (include/linux/netdevice.h, HH_DATA_OFF, 6.18), and where not, the verifier allows it if the processor does.
        Some(array::from_fn(|word| unsafe { (from as *const u32).add(word).read_volatile() }))
    }

    /// The bytes there, to where there is room for them.
    #[inline(always)]
    pub fn load(self, offset: u32, bytes: &mut [u8]) -> Option<()> {
        let (to, length) = (bytes.as_mut_ptr().cast(), bytes.len() as u32);
        // SAFETY: the destination is that long.
        let result = unsafe {
            bpf_skb_load_bytes_relative(self.0.cast::<c_void>(), offset, to, length, BPF_HDR_START_NET)
        };
        (result == 0).then_some(())
    }

    /// The bytes at `offset` after the start of the packet, whatever the hook's packet data starts with.
    #[inline(always)]
    pub fn bytes_at<const N: usize>(self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the destination is N bytes long, and written if the helper succeeds.
        unsafe {
            let to = bytes.as_mut_ptr().cast();
            let result = bpf_skb_load_bytes(self.0.cast::<c_void>(), offset, to, N as u32);
            (result == 0).then(|| bytes.assume_init())
        }
    }

    /// The same as words of four bytes, as [`words`](Self::words) gives them.
    #[inline(always)]
    pub fn words_at<const N: usize>(self, offset: u32) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the destination is N words long, and written if the helper succeeds.
        unsafe {
            let to = words.as_mut_ptr().cast();
            let result = bpf_skb_load_bytes(self.0.cast::<c_void>(), offset, to, 4 * N as u32);
            (result == 0).then(|| words.assume_init())
        }
    }

    /// Copies the bytes at `offset` after the start of the packet to where there is room for them.
    #[inline(always)]
    pub fn load_at<const N: usize>(self, offset: u32, to: &mut [u8; N]) -> bool {
        // SAFETY: the destination is N bytes long.
        unsafe { bpf_skb_load_bytes(self.0.cast::<c_void>(), offset, to.as_mut_ptr().cast(), N as u32) == 0 }
    }

    /// Overwrites the bytes at `offset` after the start of the packet. Nobody who shares the packet sees it: the
    /// kernel makes a copy first, and that is what can fail (net/core/filter.c, `bpf_skb_store_bytes`, 6.18).
    #[inline(always)]
    pub fn store_at<const N: usize>(self, offset: u32, bytes: &[u8; N], flags: u64) -> bool {
        // SAFETY: the source is N bytes long.
        unsafe { bpf_skb_store_bytes(self.0, offset, bytes.as_ptr().cast(), N as u32, flags) == 0 }
    }

    /// Makes the packet longer, with zeros, or shorter. It is no GSO packet any more then.
    #[inline(always)]
    pub fn resize(self, bytes: u32) -> bool {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_skb_change_tail(self.0, bytes, 0) == 0 }
    }

    /// Where in the packet the network header starts at a tc hook: behind an Ethernet header, or at once where the
    /// device has none, such as a tun. No field tells, so the places are compared.
    #[inline(always)]
    pub fn network_offset(self) -> Option<u32> {
        let header = u128::from_ne_bytes(self.bytes(0)?);
        let is_at = |offset| self.bytes_at(offset).map(u128::from_ne_bytes) == Some(header);
        if is_at(ETHERNET_BYTES) {
            Some(ETHERNET_BYTES)
        } else if is_at(0) {
            Some(0)
        } else {
            None
        }
    }

    /// EtherType, in host order.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        // SAFETY: the verifier allows reading this field of the context.
        u16::from_be(unsafe { (*self.0).protocol } as u16)
    }

    /// Length in bytes, from wherever the hook's packet data starts.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).len }
    }

    /// How many packets this is on the wire: a GSO packet is cut into `gso_segs` later.
    #[inline(always)]
    pub fn segments(self) -> u32 {
        // SAFETY: as above.
        let segments = unsafe { (*self.0).gso_segs };
        if segments == 0 { 1 } else { segments }
    }

    /// Length in bytes on the wire: a GSO packet has its headers again for each packet it is cut into
    /// (net/core/dev.c, `qdisc_pkt_len_init`, 6.18, which runs before tc).
    #[inline(always)]
    pub fn wire_len(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).wire_len }
    }

    /// How many bytes of payload each packet on the wire gets of a GSO packet; 0 for any other.
    #[inline(always)]
    pub fn segment_bytes(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).gso_size }
    }

    /// `skb->tc_index`; 0 where a kernel has no such field.
    #[inline(always)]
    pub fn index(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).tc_index }
    }

    /// Sets it; its lower half, that is.
    #[inline(always)]
    pub fn set_index(self, index: u32) {
        // SAFETY: the verifier allows writing this field to programs of tc.
        unsafe { (*self.0).tc_index = index }
    }

    /// `skb->priority`: by which queue it leaves, for qdiscs that look at it.
    #[inline(always)]
    pub fn priority(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).priority }
    }

    /// Sets it.
    #[inline(always)]
    pub fn set_priority(self, priority: u32) {
        // SAFETY: the verifier allows writing this field to programs of tc.
        unsafe { (*self.0).priority = priority }
    }

    /// Whether this is a copy that we have handed over to the device's ingress.
    #[inline(always)]
    pub fn is_copy(self) -> bool {
        self.index() != 0 && self.index() == global(&COPY)
    }

    /// The device the packet is on.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ifindex }
    }
}

/// The same number, of which the compiler knows nothing: it does not make one check of two around this, which the
/// verifier would not take for a bound of the number itself.
#[inline(always)]
pub fn opaque(mut number: usize) -> usize {
    // SAFETY: it moves a register to itself. Without an instruction, the line information would name one twice, which
    // the kernel refuses (kernel/bpf/verifier.c, `check_btf_line`, 6.18).
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}
