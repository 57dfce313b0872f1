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

/// Does something that shall take this long, but not on the processor.
pub fn sleeping(act: impl Fn() -> c_int, wanted_ns: u64) -> c_int {
    let (begin_ns, begin_used_ns) =
        (clock_ns(libc::CLOCK_MONOTONIC), clock_ns(libc::CLOCK_THREAD_CPUTIME_ID));
    let errno = act();
    let taken_ns = clock_ns(libc::CLOCK_MONOTONIC) - begin_ns;
    let used_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) - begin_used_ns;
    if errno != 0 {
        errno
    } else if taken_ns < wanted_ns {
        libc::ETIME
    } else if used_ns > wanted_ns / 2 {
        libc::EBUSY
    } else {
        0
    }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
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

/// Sends itself a byte by TCP that never arrives, and waits until the kernel has sent it again. The receiver drops
/// it by a filter that passes nothing: before TCP sees it, so that it is not acknowledged
/// (net/ipv4/tcp_ipv4.c, `tcp_filter`, 6.18). First it is sent again after 200 ms (include/net/tcp.h, TCP_RTO_MIN).
pub fn retransmit() -> c_int {
    let mut address = loopback(0);
    let mut length = LENGTH;
    let name = (&raw mut address).cast();
    // SAFETY: addresses and buffers are as long as they are said to be.
    unsafe {
        let [listener, sender] = [(); 2].map(|()| libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let connected = listener >= 0
            && sender >= 0
            && libc::bind(listener, name, LENGTH) == 0
            && libc::listen(listener, 1) == 0
            && libc::getsockname(listener, name, &raw mut length) == 0
            && libc::connect(sender, name, LENGTH) == 0;
        if !connected {
            return errno();
        }
        let receiver = libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut());
        if receiver < 0 || !deafen(receiver) || libc::send(sender, c"?".as_ptr().cast(), 1, 0) != 1 {
            return errno();
        }
        for _ in 0..RETRANSMISSION_MILLISECONDS / TICK_MILLISECONDS {
            libc::poll(std::ptr::null_mut(), 0, TICK_MILLISECONDS);
            match retransmissions(sender) {
                Some(0) => {}
                Some(_) => return 0,
                None => return errno(),
            }
        }
        libc::ETIMEDOUT
    }
}

/// How long to wait for a retransmission, and how often to look.
const RETRANSMISSION_MILLISECONDS: c_int = 5000;
const TICK_MILLISECONDS: c_int = 10;

/// Lets nothing get to a socket any more.
fn deafen(socket: c_int) -> bool {
    let mut keep_nothing =
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut keep_nothing };
    let length = mem::size_of::<libc::sock_fprog>() as socklen_t;
    // SAFETY: the program is that long, and so is its filter.
    unsafe {
        let program = (&raw const program).cast();
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program, length) == 0
    }
}

/// How many segments a socket has sent again, as TCP itself says.
fn retransmissions(socket: c_int) -> Option<u32> {
    // SAFETY: the structure is plain numbers.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::tcp_info>() as socklen_t;
    // SAFETY: the kernel writes no more than `length`.
    let asked = unsafe {
        let info = (&raw mut info).cast();
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut length)
    };
    (asked == 0).then_some(info.tcpi_total_retrans)
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
