//! The TCP connections of a network namespace, listed and destroyed by sock_diag(7).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
        NetlinkSerializable, Nla as _,
    },
    sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG},
};

use crate::{fault::reset::Ends, target::Netns};

/// Attribute of an answer: the id of the socket's cgroup (include/uapi/linux/inet_diag.h, INET_DIAG_CGROUP_ID, 5.9),
/// which the crate does not know.
const CGROUP_ID: u16 = 21;
/// The kernel makes no answer longer than half of this (net/netlink/af_netlink.c, `netlink_dump`, 6.18).
const ANSWER_BYTES: usize = 64 << 10;
/// Messages within an answer begin at multiples of this (NLMSG_ALIGNTO).
const ALIGNMENT: usize = 4;

/// A door to sock_diag in one network namespace.
pub struct SockDiag(Socket);

/// A connection as sock_diag knows it. Its id has a cookie, so that nothing else is destroyed in its place.
#[derive(Clone, Debug)]
pub struct Connection {
    family: u8,
    id: SocketId,
    /// The cgroup that the socket was made in.
    pub cgroup: u64,
    /// Its ends.
    pub ends: Ends,
}

impl SockDiag {
    /// Opens it; from then on it can be used from any namespace.
    pub fn open(netns: &Netns) -> io::Result<Self> {
        netns.run(|| {
            let socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.connect(&NetlinkAddr::new(0, 0))?;
            Ok(Self(socket))
        })?
    }

    /// The established connections, those whose other end has closed already among them.
    pub fn connections(&self) -> io::Result<Vec<Connection>> {
        let mut found = Vec::new();
        for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let states = StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
            let request = request(family, states, socket_id);
            self.send(SockDiagMessage::InetRequest(request), NLM_F_DUMP)?;
            self.answers(|response| found.extend(Connection::new(&response)))?;
        }
        Ok(found)
    }

    /// Destroys one: its owner gets ECONNABORTED, the other end an RST (net/ipv4/tcp.c, `tcp_abort`, 6.18). Says
    /// whether it was still there.
    pub fn destroy(&self, connection: &Connection) -> io::Result<bool> {
        let request = request(connection.family, StateFlags::all(), connection.id.clone());
        self.send(SockDiagDestroy::new(SockDiagMessage::InetRequest(request)), NLM_F_ACK)?;
        match self.answers(|_| ()) {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send<M>(&self, message: M, flags: u16) -> io::Result<()>
    where
        M: NetlinkSerializable + Into<NetlinkPayload<M>>,
    {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop)
    }

    /// Takes the answers to one request, up to the last.
    fn answers(&self, mut each: impl FnMut(InetResponse)) -> io::Result<()> {
        loop {
            let mut bytes = Vec::with_capacity(ANSWER_BYTES);
            self.0.recv(&mut bytes, 0)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => each(*response),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(()),
                    other => return Err(io::Error::other(format!("unexpected answer: {other:?}"))),
                }
                let length = (message.header.length as usize).next_multiple_of(ALIGNMENT);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id }
}

/// It has ended by itself, or another has its ports by now (net/core/sock_diag.c, `sock_diag_check_cookie`, 6.18).
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

impl Connection {
    /// `None` for what has no socket any more and thus no cgroup, as TIME_WAIT has none.
    fn new(response: &InetResponse) -> Option<Self> {
        let cgroup = response.nlas.iter().find_map(|nla| match nla {
            Nla::Other(nla) if nla.kind() == CGROUP_ID && nla.value_len() == size_of::<u64>() => {
                let mut bytes = [0; size_of::<u64>()];
                nla.emit_value(&mut bytes);
                Some(u64::from_ne_bytes(bytes))
            }
            _ => None,
        })?;
        let id = response.header.socket_id.clone();
        let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
        let ends = Ends {
            local: end(id.source_address, id.source_port),
            peer: end(id.destination_address, id.destination_port),
        };
        Some(Self { family: response.header.family, id, cgroup, ends })
    }
}
