//! Headers of answers that the kernel half makes up, and their checksums.

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;
/// Bytes of a TCP header without options.
pub const TCP_BYTES: usize = 20;
/// Bytes of a UDP header.
pub const UDP_BYTES: usize = 8;

/// The most there is: a socket may ask for a least TTL (IP_MINTTL), and an answer made here has crossed nothing.
const TTL: u8 = 255;

/// The carries of a sum of 16-bit words, taken in (RFC 1071).
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The checksum over whatever was summed.
#[inline(always)]
pub const fn checksum(sum: u32) -> u16 {
    !fold(sum)
}

/// The same for UDP, in which 0 says that there is none (RFC 768).
#[inline(always)]
pub const fn udp_checksum(sum: u32) -> u16 {
    match checksum(sum) {
        0 => u16::MAX,
        checksum => checksum,
    }
}

/// Where the addresses of an IPv4 header start, of which the first is the source's.
pub const IPV4_ADDRESSES: usize = 12;
/// Where the addresses of an IPv6 header start.
pub const IPV6_ADDRESSES: usize = 8;

/// An IPv4 header for so many bytes of `protocol`, up to its addresses and without its checksum.
#[inline(always)]
pub const fn ipv4_start(protocol: u8, bytes: u16) -> [u8; IPV4_ADDRESSES] {
    const DO_NOT_FRAGMENT: u8 = 0x40;
    let [high, low] = (IPV4_BYTES as u16 + bytes).to_be_bytes();
    [0x45, 0, high, low, 0, 0, DO_NOT_FRAGMENT, 0, TTL, protocol, 0, 0]
}

/// An IPv6 header for so many bytes of `protocol`, up to its addresses.
#[inline(always)]
pub const fn ipv6_start(protocol: u8, bytes: u16) -> [u8; IPV6_ADDRESSES] {
    let [high, low] = bytes.to_be_bytes();
    [0x60, 0, 0, 0, high, low, protocol, TTL]
}

/// Flags of a TCP header.
mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// What tells our resets from others: a window and an urgent pointer, to which nobody looks in a reset.
const SIGNATURE: [u8; 4] = *b"kcha";

/// Makes zeros the reset that answers a segment with this header and so many bytes of data, without its checksum
/// (RFC 9293, section 3.10.7.1: as if the connection did not exist). `None` for a reset, which is not answered.
#[inline(always)]
pub fn write_reset(reset: &mut [u8; TCP_BYTES], sent: &[u8; TCP_BYTES], data_bytes: u32) -> Option<()> {
    let flags = sent[13];
    if flags & flag::RST != 0 {
        return None;
    }
    reset[..2].copy_from_slice(&sent[2..4]);
    reset[2..4].copy_from_slice(&sent[..2]);
    if flags & flag::ACK != 0 {
        reset[4..8].copy_from_slice(&sent[8..12]);
        reset[13] = flag::RST;
    } else {
        let sequence = u32::from_be_bytes([sent[4], sent[5], sent[6], sent[7]]);
        let ends = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        reset[8..12].copy_from_slice(&sequence.wrapping_add(data_bytes).wrapping_add(ends).to_be_bytes());
        reset[13] = flag::RST | flag::ACK;
    }
    reset[12] = 5 << 4;
    reset[14..16].copy_from_slice(&SIGNATURE[..2]);
    reset[18..20].copy_from_slice(&SIGNATURE[2..]);
    Some(())
}

/// Whether a segment is one of our resets, by the seven bytes of its header that begin with the flags.
#[inline(always)]
pub const fn is_our_reset(tail: &[u8; 7]) -> bool {
    let [flags, window_high, window_low, _, _, urgent_high, urgent_low] = *tail;
    let signature = [window_high, window_low, urgent_high, urgent_low];
    flags & flag::RST != 0 && u32::from_be_bytes(signature) == u32::from_be_bytes(SIGNATURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u32 {
        bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
    }

    fn tcp_reset(sent: &[u8; TCP_BYTES], data_bytes: u32) -> Option<[u8; TCP_BYTES]> {
        let mut reset = [0; TCP_BYTES];
        write_reset(&mut reset, sent, data_bytes).map(|()| reset)
    }

    #[test]
    fn the_checksum_of_a_known_header() {
        // The example of Wikipedia's "Internet checksum", from a capture.
        let header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(sum(&header)), 0xb861);
        assert_eq!(fold(0x0002_ffff), 2);
        assert_eq!(udp_checksum(0xffff), 0xffff);
    }

    #[test]
    fn headers_start_with_length_and_protocol() {
        let header = ipv4_start(protocol::TCP, 300);
        assert_eq!((header[0], &header[2..4], header[9]), (0x45, &[1, 64][..], 6));
        let header = ipv6_start(protocol::UDP, 300);
        assert_eq!((header[0] >> 4, &header[4..8]), (6, &[1, 44, 17, 255][..]));
    }

    /// Ports 1000 to 80, sequence 7, acknowledging 9.
    fn segment(flags: u8) -> [u8; TCP_BYTES] {
        let mut header = [0; TCP_BYTES];
        header[..2].copy_from_slice(&1000_u16.to_be_bytes());
        header[2..4].copy_from_slice(&80_u16.to_be_bytes());
        (header[7], header[11], header[12], header[13]) = (7, 9, 5 << 4, flags);
        header
    }

    #[test]
    fn a_connection_attempt_is_answered_by_its_acknowledgement() {
        let reset = tcp_reset(&segment(flag::SYN), 0).unwrap();
        assert_eq!(u16::from_be_bytes([reset[0], reset[1]]), 80);
        assert_eq!(u16::from_be_bytes([reset[2], reset[3]]), 1000);
        assert_eq!((&reset[4..8], &reset[8..12]), (&[0, 0, 0, 0][..], &[0, 0, 0, 8][..]));
        assert_eq!(reset[13], flag::RST | flag::ACK);
        let with_data = tcp_reset(&segment(flag::SYN), 100).unwrap();
        assert_eq!(with_data[8..12], [0, 0, 0, 108]);
    }

    #[test]
    fn an_established_connection_is_reset_where_it_expects_the_next_byte() {
        for flags in [flag::ACK, flag::ACK | flag::FIN, flag::ACK | flag::SYN] {
            let reset = tcp_reset(&segment(flags), 1460).unwrap();
            assert_eq!((&reset[4..8], reset[13]), (&[0, 0, 0, 9][..], flag::RST));
        }
    }

    #[test]
    fn the_sequence_wraps() {
        let mut last = segment(flag::SYN);
        last[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(tcp_reset(&last, 0).unwrap()[8..12], [0; 4]);
    }

    #[test]
    fn resets_are_known_and_not_answered() {
        assert_eq!(tcp_reset(&segment(flag::RST), 0), None);
        assert_eq!(tcp_reset(&segment(flag::RST | flag::ACK), 0), None);
        let tail = |header: [u8; TCP_BYTES]| -> [u8; 7] { header[13..].try_into().unwrap() };
        assert!(is_our_reset(&tail(tcp_reset(&segment(flag::SYN), 0).unwrap())));
        assert!(!is_our_reset(&tail(segment(flag::RST))));
        assert!(!is_our_reset(&tail(segment(flag::ACK))));
    }
}
