//! What a child of the probe does to make a program run. Each returns 0 or an errno, and makes nothing but
//! system calls: see [`super::scratch::ScratchCgroup::act`].

use std::mem;

use libc::{c_int, sockaddr_in, socklen_t};

/// How long a packet may be on its way from a process to itself.
const PACKET_MILLISECONDS: c_int = 2000;

fn errno() -> c_int {
    // SAFETY: it is this thread's.
    unsafe { *libc::__errno_location() }
}

/// 0 or the errno of a call's result.
fn result(result: libc::c_long) -> c_int {
    if result < 0 { errno() } else { 0 }
}

/// Opens a file that is always there.
pub fn open() -> c_int {
    // SAFETY: the path ends with a zero.
    result(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }.into())
}

/// Asks for its own priority. The call itself, as libc's function returns negative priorities.
pub fn getpriority() -> c_int {
    // SAFETY: the call takes no pointers.
    result(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) })
}

/// Says where a socket's packets shall go; nothing is sent.
pub fn connect_udp() -> c_int {
    connect(libc::SOCK_DGRAM)
}

/// Asks for a connection that nobody listens for.
pub fn connect_tcp() -> c_int {
    connect(libc::SOCK_STREAM)
}

fn connect(kind: c_int) -> c_int {
    const DISCARD: u16 = 9;
    let address = loopback(DISCARD);
    // SAFETY: the address is as long as it is said to be.
    unsafe {
        let socket = libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return errno();
        }
        result(libc::connect(socket, (&raw const address).cast(), LENGTH).into())
    }
}

/// Sends itself a packet and receives it.
pub fn send_to_itself() -> c_int {
    let mut address = loopback(0);
    let mut length = LENGTH;
    // SAFETY: addresses and buffers are as long as they are said to be.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let sent = socket >= 0
            && libc::bind(socket, (&raw const address).cast(), LENGTH) == 0
            && libc::getsockname(socket, (&raw mut address).cast(), &raw mut length) == 0
            && libc::sendto(socket, c"?".as_ptr().cast(), 1, 0, (&raw const address).cast(), LENGTH) == 1;
        if !sent {
            return errno();
        }
        let mut readable = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
        match libc::poll(&raw mut readable, 1, PACKET_MILLISECONDS) {
            1 => 0,
            0 => libc::ETIMEDOUT,
            _ => errno(),
        }
    }
}

const LENGTH: socklen_t = mem::size_of::<sockaddr_in>() as socklen_t;

fn loopback(port: u16) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
        sin_zero: [0; 8],
    }
}
