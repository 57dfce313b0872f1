//! DNS messages (RFC 1035, section 4), as far as a query can be answered from itself.

/// Bytes of a message's header.
pub const HEADER_BYTES: usize = 12;
/// Most bytes of a name, with its last, empty label (RFC 1035, section 2.3.4).
pub const MAX_NAME_BYTES: usize = 255;
/// Most bytes of a label.
pub const MAX_LABEL_BYTES: usize = 63;
/// Most labels of a name.
const MAX_LABELS: usize = 128;
/// Type and class, which follow the name of a question.
pub const QUESTION_TAIL_BYTES: usize = 4;
/// Most bytes up to the end of the first question.
pub const MAX_QUESTION_END: usize = HEADER_BYTES + MAX_NAME_BYTES + QUESTION_TAIL_BYTES;
/// Room for a message; a power of two, so that a mask keeps indices in bounds.
pub const MESSAGE_BYTES: usize = 512;
/// Room for a name as a key.
pub const KEY_BYTES: usize = 256;

/// How many names one fault may name.
pub const MAX_NAMES: usize = 16;
/// Entries of the map of names: as many as all rules of a hook may name, twice as a name that means only what is
/// below it needs one for itself, and one for all names.
pub const MAX_NAME_ENTRIES: u32 = crate::rule::MAX_RULES_PER_HOOK * 2 * MAX_NAMES as u32 + 1;

/// What a server says (RFC 1035, section 4.1.1).
pub mod rcode {
    /// Here is the answer.
    pub const NOERROR: u32 = 0;
    /// Something is wrong with the server.
    pub const SERVFAIL: u32 = 2;
    /// There is no such name.
    pub const NXDOMAIN: u32 = 3;
    /// The server does not want to.
    pub const REFUSED: u32 = 5;
}

/// Types of records (RFC 1035, section 3.2.2; RFC 3596).
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
}

/// The class of the Internet.
pub const CLASS_IN: u16 = 1;

crate::pod! {
    /// What becomes of a query.
    pub struct DnsAnswer {
        /// When set to 1, it disappears, and the rest means nothing.
        pub drop: u32,
        /// One of [`rcode`].
        pub rcode: u32,
        /// How long forged addresses may be kept.
        pub ttl_s: u32,
        /// When set to 1, `v4` answers questions for an IPv4 address.
        pub has_v4: u32,
        /// When set to 1, `v6` answers questions for an IPv6 address.
        pub has_v6: u32,
        /// A forged address: the first four bytes, with zeros behind them.
        pub v4: [u8; 16],
        /// A forged address.
        pub v6: [u8; 16],
    }
}

/// Whether a message asks one question and says nothing else. What EDNS adds (RFC 6891) is additional, so it
/// does not matter here.
#[inline(always)]
pub const fn asks_one_question(header: &[u8; HEADER_BYTES]) -> bool {
    const RESPONSE: u8 = 0x80;
    const OPCODE: u8 = 0x78;
    let counts = [header[4], header[5], header[6], header[7], header[8], header[9]];
    let one_question = counts[0] == 0 && counts[1] == 1;
    let nothing_said = counts[2] | counts[3] | counts[4] | counts[5] == 0;
    header[2] & (RESPONSE | OPCODE) == 0 && one_question && nothing_said
}

/// Makes the header of such a question that of its answer.
///
/// The answer says that recursion is available, and has no additional section: that is how a server answers that
/// does not know EDNS (RFC 6891, section 7).
#[inline(always)]
pub const fn make_answer(header: &mut [u8; HEADER_BYTES], rcode: u32, answers: u8) {
    const RESPONSE: u8 = 0x80;
    const RECURSION_DESIRED: u8 = 0x01;
    const RECURSION_AVAILABLE: u8 = 0x80;
    const CHECKING_DISABLED: u8 = 0x10;
    header[2] = RESPONSE | header[2] & RECURSION_DESIRED;
    header[3] = RECURSION_AVAILABLE | header[3] & CHECKING_DISABLED | rcode as u8 & 0x0f;
    header[7] = answers;
    (header[10], header[11]) = (0, 0);
}

/// Bytes of a record with an IPv4 address, the first of [`AAAA_BYTES`].
pub const A_BYTES: usize = 16;
/// Bytes of a record with an IPv6 address.
pub const AAAA_BYTES: usize = 28;

/// Makes zeros a record that says that the question's name, to which it points, has this address, of which the first
/// `bytes` count.
#[inline(always)]
pub fn write_record(record: &mut [u8; AAAA_BYTES], kind: u16, ttl_s: u32, bytes: usize, address: &[u8; 16]) {
    const POINTER: u16 = 0xc000 | HEADER_BYTES as u16;
    record[..2].copy_from_slice(&POINTER.to_be_bytes());
    record[2..4].copy_from_slice(&kind.to_be_bytes());
    record[4..6].copy_from_slice(&CLASS_IN.to_be_bytes());
    record[6..10].copy_from_slice(&ttl_s.to_be_bytes());
    record[11] = bytes as u8;
    record[12..].copy_from_slice(address);
}

/// Where the first question's name ends: the index of its last, empty label. `None` if it is no name, or if it
/// points elsewhere, which the first name of a message cannot.
#[inline(always)]
pub const fn name_end(message: &[u8; MESSAGE_BYTES]) -> Option<usize> {
    let (mut at, mut labels) = (HEADER_BYTES, 0);
    while labels < MAX_LABELS {
        let bytes = message[at & (MESSAGE_BYTES - 1)] as usize;
        if bytes == 0 {
            return Some(at);
        }
        if bytes > MAX_LABEL_BYTES {
            return None;
        }
        at += bytes + 1;
        if at >= HEADER_BYTES + MAX_NAME_BYTES {
            return None;
        }
        labels += 1;
    }
    None
}

/// Writes the first question's name as a key, which is the name backwards, in lower case and with a 0 at its end:
/// what a name ends with is then what its key begins with. Lengths of labels go along, so that a beginning ends
/// where a label does. Returns how many bits the key has.
///
/// What follows in `key` is arbitrary, and is not looked at.
#[inline(always)]
pub fn write_key(message: &[u8; MESSAGE_BYTES], name_end: usize, key: &mut [u8; KEY_BYTES]) -> u32 {
    for (i, byte) in key.iter_mut().enumerate() {
        let from = name_end.wrapping_sub(1 + i) & (MESSAGE_BYTES - 1);
        *byte = message[from].to_ascii_lowercase();
    }
    let name_bytes = name_end.wrapping_sub(HEADER_BYTES) & (KEY_BYTES - 1);
    key[name_bytes] = 0;
    (name_bytes as u32 + 1) * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A query for a name, and where the name ends.
    fn message(name: &str) -> [u8; MESSAGE_BYTES] {
        let mut message = [0xff; MESSAGE_BYTES];
        message[..HEADER_BYTES].fill(0);
        let mut at = HEADER_BYTES;
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message[at] = label.len() as u8;
            message[at + 1..=at + label.len()].copy_from_slice(label.as_bytes());
            at += 1 + label.len();
        }
        message[at] = 0;
        message
    }

    fn key(name: &str) -> Vec<u8> {
        let (message, mut key) = (message(name), [0xee; KEY_BYTES]);
        let bits = write_key(&message, name_end(&message).unwrap(), &mut key);
        key[..bits as usize / 8].to_vec()
    }

    #[test]
    fn a_key_is_the_name_backwards() {
        assert_eq!(key("Example.COM"), b"moc\x03elpmaxe\x07\0");
        assert_eq!(key(""), b"\0");
    }

    #[test]
    fn a_suffix_is_a_beginning_only_at_a_label() {
        let suffix = b"moc\x03elpmaxe\x07";
        for (name, matches) in [
            ("example.com", true),
            ("www.example.com", true),
            ("WWW.eXample.com", true),
            ("badexample.com", false),
            ("example.com.org", false),
            ("com", false),
        ] {
            assert_eq!(key(name).starts_with(suffix), matches, "{name}");
        }
    }

    #[test]
    fn the_longest_name_fits_and_a_longer_one_does_not() {
        let label = "x".repeat(63);
        let longest = [&label[..], &label, &label, &label[..61]].join(".");
        assert_eq!(name_end(&message(&longest)), Some(HEADER_BYTES + MAX_NAME_BYTES - 1));
        assert_eq!(key(&longest).len(), MAX_NAME_BYTES);
        let longer = [&label[..], &label, &label, &label[..62]].join(".");
        assert_eq!(name_end(&message(&longer)), None);
        let many = "a.".repeat(127);
        assert_eq!(name_end(&message(&many)), Some(HEADER_BYTES + 254));
    }

    #[test]
    fn what_is_no_name_has_no_end() {
        let mut pointer = message("");
        pointer[HEADER_BYTES] = 0xc0;
        assert_eq!(name_end(&pointer), None);
    }

    #[test]
    fn only_a_single_question_counts() {
        let query = [0, 1, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        assert!(asks_one_question(&query), "with EDNS");
        for (at, byte) in [(2, 0x81), (2, 0x28), (5, 0), (5, 2), (4, 1), (7, 1), (9, 1)] {
            let mut other = query;
            other[at] = byte;
            assert!(!asks_one_question(&other), "byte {at} is {byte}");
        }
    }

    #[test]
    fn answers_keep_what_the_query_said() {
        let mut header = [0xab, 0xcd, 0x01, 0x30, 0, 1, 0, 0, 0, 0, 0, 1];
        make_answer(&mut header, rcode::NXDOMAIN, 0);
        assert_eq!(header, [0xab, 0xcd, 0x81, 0x93, 0, 1, 0, 0, 0, 0, 0, 0]);
        let mut record = [0; AAAA_BYTES];
        write_record(&mut record, kind::A, 60, 4, &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(record[..A_BYTES], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1]);
        assert_eq!(record[A_BYTES..], [0; AAAA_BYTES - A_BYTES]);
    }
}
