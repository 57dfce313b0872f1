//! Where the payload of a TCP segment or UDP datagram is.

use super::parse::{ethertype, ipproto, ipv4_transport, ipv6_transport};
use crate::skb::Skb;

const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;
const UDP_HEADER_BYTES: u32 = 8;

/// A whole TCP segment or UDP datagram. Offsets count from the start of the packet at a tc hook.
#[derive(Clone, Copy)]
pub struct Segment {
    /// 1 if it is.
    pub ipv6: u32,
    /// 1 if it is.
    pub udp: u32,
    pub network: u32,
    pub transport: u32,
    pub payload: u32,
    /// Behind the last byte; a frame may be longer.
    pub end: u32,
}

impl Segment {
    /// Finds it; `None` for anything else, fragments included.
    #[inline(always)]
    pub fn find(skb: Skb) -> Option<Self> {
        let mut segment = Self { ipv6: 0, udp: 0, network: 0, transport: 0, payload: 0, end: 0 };
        is_one(skb, &mut segment).then_some(segment)
    }

    #[inline(always)]
    fn parse(skb: Skb) -> Option<Self> {
        let network = skb.network_offset()?;
        let (ipv6, transport, says_bytes) = match skb.protocol() {
            ethertype::IPV4 => {
                let header = skb.words(0)?;
                let [_, _, high, low] = header[0].to_ne_bytes();
                (false, ipv4_transport(&header), u16::from_be_bytes([high, low]).into())
            }
            ethertype::IPV6 => {
                let payload_bytes = u32::from(u16::from_be_bytes(skb.bytes(4)?));
                let says_bytes = if payload_bytes == 0 { 0 } else { 40 + payload_bytes };
                (true, ipv6_transport(skb)?, says_bytes)
            }
            _ => return None,
        };
        if transport.fragment {
            return None;
        }
        let offset = transport.offset?;
        let (udp, header_bytes) = match transport.protocol {
            ipproto::TCP => (false, u32::from(skb.bytes::<1>(offset + 12)?[0] >> 4) * 4),
            ipproto::UDP => (true, UDP_HEADER_BYTES),
            _ => return None,
        };
        let (transport, payload) = (network + offset, network + offset + header_bytes);
        let all = skb.len();
        // A GSO packet too long for the field says 0 (include/linux/ipv6.h, `ipv6_hopopt_jumbo_remove`;
        // net/ipv4/ip_output.c, `iph_set_totlen`, 6.18).
        let end = if says_bytes == 0 || network + says_bytes > all { all } else { network + says_bytes };
        Some(Self { ipv6: ipv6.into(), udp: udp.into(), network, transport, payload, end })
    }

    pub fn payload_bytes(&self) -> u32 {
        self.end.saturating_sub(self.payload)
    }

    /// Where its checksum is. Calculated, as the verifier would follow both ways from here.
    pub fn checksum(&self) -> u32 {
        self.transport + TCP_CHECKSUM - self.udp * (TCP_CHECKSUM - UDP_CHECKSUM)
    }
}

/// A function of its own, for the sake of the stack.
#[inline(never)]
fn is_one(skb: Skb, segment: &mut Segment) -> bool {
    let Some(found) = Segment::parse(skb) else { return false };
    *segment = found;
    true
}
