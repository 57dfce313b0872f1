//! One call on a new socket, and what it comes to.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, sendto,
        setsockopt, socket, sockopt,
    },
};
use serde::{Deserialize, Serialize};

/// One call on a new socket. Where a port is given, the socket is bound to it first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Call {
    /// Connect, and wait until it is done.
    Connect { kind: Kind, from: Option<SocketAddr>, to: SocketAddr },
    /// Bind.
    Bind { kind: Kind, at: SocketAddr },
    /// Send a packet to somebody.
    SendTo { to: SocketAddr },
    /// Send a packet through a socket that is connected already.
    SendConnected { to: SocketAddr },
    /// Make the socket.
    Socket { kind: Kind, v6: bool },
    /// Set an option with a value of so many bytes.
    SetOption { kind: Kind, bytes: usize },
    /// Read an option.
    GetOption { kind: Kind },
    /// Read an option of a socket that has no IP.
    GetOptionOfPipe,
}

/// What kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Tcp,
    Udp,
}

impl Call {
    /// Makes it: 0 or the errno. An error is one of the calls that prepare it.
    pub fn perform(self) -> io::Result<i32> {
        let result = match self {
            Self::Connect { kind, from, to } => {
                let fd = new(kind, to.is_ipv6())?;
                if let Some(from) = from {
                    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
                    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
                }
                connect(fd.as_raw_fd(), &SockaddrStorage::from(to))
            }
            Self::Bind { kind, at } => {
                let fd = new(kind, at.is_ipv6())?;
                bind(fd.as_raw_fd(), &SockaddrStorage::from(at))
            }
            Self::SendTo { to } => {
                let fd = new(Kind::Udp, to.is_ipv6())?;
                send(&fd, Some(to))
            }
            Self::SendConnected { to } => {
                let fd = new(Kind::Udp, to.is_ipv6())?;
                connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
                send(&fd, None)
            }
            Self::Socket { kind, v6 } => new(kind, v6).map(drop),
            Self::SetOption { kind, bytes } => set_option(&new(kind, false)?, bytes),
            Self::GetOption { kind } => getsockopt(&new(kind, false)?, sockopt::KeepAlive).map(drop),
            Self::GetOptionOfPipe => {
                let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
                getsockopt(&fd, sockopt::KeepAlive).map(drop)
            }
        };
        Ok(result.err().map_or(0, |errno| errno as i32))
    }
}

fn new(kind: Kind, v6: bool) -> nix::Result<OwnedFd> {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let kind = if kind == Kind::Tcp { SockType::Stream } else { SockType::Datagram };
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None)
}

fn send(fd: &OwnedFd, to: Option<SocketAddr>) -> nix::Result<()> {
    match to {
        Some(to) => sendto(fd.as_raw_fd(), b"?", &SockaddrStorage::from(to), MsgFlags::empty()).map(drop),
        None => nix::sys::socket::send(fd.as_raw_fd(), b"?", MsgFlags::empty()).map(drop),
    }
}

/// SO_KEEPALIVE takes an `int` and does not mind if more follows.
fn set_option(fd: &OwnedFd, bytes: usize) -> nix::Result<()> {
    let value = vec![0_u8; bytes];
    // SAFETY: the value is as long as it says.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_KEEPALIVE,
            value.as_ptr().cast(),
            bytes as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}
