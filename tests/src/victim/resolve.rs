//! A resolver as small as can be: one question over UDP, and what came of it (RFC 1035).

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The types of records that the tests ask for.
pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const TXT: u16 = 16;

const HEADER_BYTES: usize = 12;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// From where.
    pub bind: SocketAddr,
    /// Whom.
    pub server: SocketAddr,
    /// For which names: more than one make a message that no server answers.
    pub names: Vec<String>,
    /// For which type of record.
    pub kind: u16,
    /// With the additional record of EDNS (RFC 6891).
    pub edns: bool,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// How it went.
    pub rcode: u8,
    /// Whether it says what answers say: that it is one, and that recursion was and could be wished for.
    pub well_formed: bool,
    /// The addresses, and for how many seconds they are good.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// Asks, from a connected socket as resolvers have it. `None` if there is no answer in time.
pub fn resolve(question: &Question, within: Duration) -> io::Result<Option<Reply>> {
    let socket = UdpSocket::bind(question.bind)?;
    socket.connect(question.server)?;
    socket.set_read_timeout(Some(within))?;
    let query = query(question);
    socket.send(&query)?;
    let mut message = [0; 1500];
    match socket.recv(&mut message) {
        Ok(bytes) => understand(&query, &message[..bytes]).map(Some),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn query(question: &Question) -> Vec<u8> {
    let [high, low] = question.server.port().to_be_bytes();
    let questions = question.names.len() as u8;
    let mut query = vec![high, low, 0x01, 0x20, 0, questions, 0, 0, 0, 0, 0, question.edns.into()];
    for name in &question.names {
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.push(0);
        query.extend(question.kind.to_be_bytes());
        query.extend(1_u16.to_be_bytes());
    }
    if question.edns {
        // No name, OPT, 1232 bytes, no flags, and a cookie (RFC 7873), as dig sends it.
        query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
    query
}

/// An answer must repeat the question to the letter, and be nothing but itself.
fn understand(query: &[u8], message: &[u8]) -> io::Result<Reply> {
    let wrong = || io::Error::other(format!("no answer to {query:?}: {message:?}"));
    let question_end = question_end(query).ok_or_else(wrong)?;
    let same = message.get(..2) == query.get(..2)
        && message.get(HEADER_BYTES..question_end) == query.get(HEADER_BYTES..question_end);
    let (&[_, _, high, low, 0, 1, 0, answers, 0, 0, 0, additional], true) =
        (message.first_chunk::<HEADER_BYTES>().ok_or_else(wrong)?, same)
    else {
        return Err(wrong());
    };
    let mut rest = &message[question_end..];
    let mut addresses = Vec::new();
    for _ in 0..answers {
        let (record, after) = record(rest).ok_or_else(wrong)?;
        addresses.push(record);
        rest = after;
    }
    if !rest.is_empty() && additional == 0 {
        return Err(wrong());
    }
    let well_formed = high & 0xf9 == 0x81 && low & 0xf0 == 0x80;
    Ok(Reply { rcode: low & 0x0f, well_formed, addresses })
}

/// Where the first question of a query ends.
pub fn question_end(query: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        match *query.get(at)? {
            0 => return Some(at + 5),
            bytes => at += 1 + usize::from(bytes),
        }
    }
}

/// One record that points to the question's name, and what follows it.
fn record(bytes: &[u8]) -> Option<((IpAddr, u32), &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<12>()?;
    let &[0xc0, 12, 0, kind, 0, 1, a, b, c, d, 0, length] = header else { return None };
    let (data, rest) = rest.split_at_checked(length.into())?;
    let address = match u16::from(kind) {
        A => IpAddr::from(<[u8; 4]>::try_from(data).ok()?),
        AAAA => IpAddr::from(<[u8; 16]>::try_from(data).ok()?),
        _ => return None,
    };
    Some(((address, u32::from_be_bytes([a, b, c, d])), rest))
}

/// A server at the other end: for whatever it is asked, it has one address of each kind.
pub fn serve(socket: UdpSocket, v4: [u8; 4], v6: [u8; 16]) {
    let mut query = [0; 1500];
    // Ends with the test's process; the socket is in a network namespace of its own.
    while let Ok((bytes, from)) = socket.recv_from(&mut query) {
        let Some(end) = question_end(&query[..bytes]).filter(|end| *end <= bytes) else { continue };
        let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
        let data: &[u8] = match kind {
            A => &v4,
            AAAA => &v6,
            _ => &[],
        };
        let mut answer = query[..end].to_vec();
        answer[2..HEADER_BYTES].copy_from_slice(&[
            0x81,
            0x80,
            0,
            1,
            0,
            u8::from(!data.is_empty()),
            0,
            0,
            0,
            0,
        ]);
        if !data.is_empty() {
            answer.extend([0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 14, 16, 0, data.len() as u8]);
            answer.extend(data);
        }
        // Nobody may be there any more to get it.
        let _ = socket.send_to(&answer, from);
    }
}
