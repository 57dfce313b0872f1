//! The kernel programs of kchaos: one object, of which the controller loads what a plan needs.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unstable_features, reason = "BPF atomics exist only as inline assembly: the target has no CAS")]

mod atomic;
mod bench;
mod cgroup;
mod forget;
mod gate;
mod maps;
mod net;
mod note;
mod probe;
mod skb;
mod sleep;
mod sock;
mod steady;
mod syscall;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Many helpers are for GPL programs only (kernel/bpf/helpers.c, `gpl_only`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
