//! What both kinds of packet programs need of `struct __sk_buff`.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_skb_ancestor_cgroup_id, bpf_skb_load_bytes_relative},
};

/// The ifindex of `lo` in every network namespace (include/linux/netdevice.h, LOOPBACK_IFINDEX, 6.18).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// Offsets count from the network header, whatever link layer the device has (include/uapi/linux/bpf.h).
const BPF_HDR_START_NET: u32 = 1;

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
        let mut bytes = [0; N];
        self.load(offset, &mut bytes)?;
        Some(bytes)
    }

    /// The same, to where there is room for them.
    #[inline(always)]
    pub fn load(self, offset: u32, bytes: &mut [u8]) -> Option<()> {
        let (to, length) = (bytes.as_mut_ptr().cast(), bytes.len() as u32);
        // SAFETY: the destination is that long.
        let result = unsafe {
            bpf_skb_load_bytes_relative(self.0.cast::<c_void>(), offset, to, length, BPF_HDR_START_NET)
        };
        (result == 0).then_some(())
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
