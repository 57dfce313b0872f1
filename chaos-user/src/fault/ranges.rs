//! From the networks and ports that filters name to [ranges](chaos_common::ranges), as the kernel half searches them.

use std::net::IpAddr;

use chaos_common::ranges::{Range, WideRange, steps};
use ipnet::IpNet;

/// Keys that a clause names, all from `first` to `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    first: u128,
    last: u128,
    clauses: u64,
}

/// All keys of one kind, and who names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Named>);

/// Where a range begins, and the clauses that name it.
type Beginning = (u128, u64);

impl Ranges {
    /// Has some clauses name a network; whoever calls knows which family these keys are of.
    pub fn add_network(&mut self, network: IpNet, clauses: u64) {
        let key = |address| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        self.0.push(Named { first: key(network.network()), last: key(network.broadcast()), clauses });
    }

    /// Has them name all from `first` to `last`.
    pub fn add(&mut self, first: u32, last: u32, clauses: u64) {
        self.0.push(Named { first: first.into(), last: last.into(), clauses });
    }

    /// As many as a search of so many steps can tell apart.
    pub fn narrow(&self) -> Vec<Range> {
        let of = |(from, clauses)| Range { from: from as u64, clauses };
        filled_up(self.beginnings().into_iter().map(of).collect())
    }

    /// The same, where keys have 128 bits.
    pub fn wide(&self) -> Vec<WideRange> {
        let of = |(from, clauses)| WideRange { from: [(from >> 64) as u64, from as u64], clauses };
        filled_up(self.beginnings().into_iter().map(of).collect())
    }

    /// Neighbours differ in their clauses.
    fn beginnings(&self) -> Vec<Beginning> {
        let behind = self.0.iter().filter_map(|named| named.last.checked_add(1));
        let mut from: Vec<u128> = self.0.iter().map(|named| named.first).chain(behind).chain([0]).collect();
        from.sort_unstable();
        from.dedup();
        let mut beginnings: Vec<Beginning> =
            from.iter().map(|from| (*from, self.clauses_of(*from))).collect();
        beginnings.dedup_by_key(|(_, clauses)| *clauses);
        beginnings
    }

    fn clauses_of(&self, key: u128) -> u64 {
        let naming = self.0.iter().filter(|named| (named.first..=named.last).contains(&key));
        naming.fold(0, |clauses, named| clauses | named.clauses)
    }
}

fn filled_up<T: Copy>(mut ranges: Vec<T>) -> Vec<T> {
    if let Some(last) = ranges.last().copied() {
        ranges.resize(1 << steps(ranges.len()), last);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaos_common::ranges::{is_less, is_less_wide, search};

    fn network(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn named(networks: &[(&str, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for (text, clauses) in networks {
            ranges.add_network(network(text), *clauses);
        }
        ranges
    }

    #[test]
    fn nothing_named_is_one_range() {
        assert_eq!(Ranges::default().narrow(), [Range { from: 0, clauses: 0 }]);
    }

    #[test]
    fn a_network_within_another_has_the_clauses_of_both() {
        let ranges = named(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("255.255.255.255/32", 4)]).narrow();
        assert_eq!(ranges.len(), 8, "seven, the last of them behind all addresses");
        let of = |address: &str| {
            let key: u64 = u32::from(address.parse::<std::net::Ipv4Addr>().unwrap()).into();
            let is_before = |range| Some(is_less(key, ranges[range as usize].from));
            let found = search(steps(ranges.len()), is_before).unwrap();
            ranges[found as usize].clauses
        };
        for (address, clauses) in [
            ("0.0.0.0", 0),
            ("9.255.255.255", 0),
            ("10.0.0.0", 1),
            ("10.0.255.255", 1),
            ("10.1.0.0", 3),
            ("10.1.255.255", 3),
            ("10.2.0.0", 1),
            ("10.255.255.255", 1),
            ("11.0.0.0", 0),
            ("255.255.255.254", 0),
            ("255.255.255.255", 4),
        ] {
            assert_eq!(of(address), clauses, "{address}");
        }
    }

    #[test]
    fn addresses_of_ipv6_are_whole() {
        let ranges =
            named(&[("fd00::/8", 1), ("fd00:0:0:1::/64", 2), ("fd00::7/128", 4), ("::/0", 8)]).wide();
        let of = |address: &str| {
            let key = u128::from(address.parse::<std::net::Ipv6Addr>().unwrap());
            let key = [(key >> 64) as u64, key as u64];
            let is_before = |range| Some(is_less_wide(key, ranges[range as usize].from));
            let found = search(steps(ranges.len()), is_before).unwrap();
            ranges[found as usize].clauses
        };
        for (address, clauses) in [
            ("::", 8),
            ("fd00::6", 9),
            ("fd00::7", 13),
            ("fd00::8", 9),
            ("fd00::ffff:ffff:ffff:ffff", 9),
            ("fd00:0:0:1::", 11),
            ("fd00:0:0:2::", 9),
            ("fe00::", 8),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 8),
        ] {
            assert_eq!(of(address), clauses, "{address}");
        }
    }

    #[test]
    fn what_two_name_alike_is_one_range() {
        let mut ranges = Ranges::default();
        ranges.add(22, 23, 1);
        ranges.add(24, 30, 1);
        let expected = [(0, 0), (22, 1), (31, 0), (31, 0)];
        assert_eq!(ranges.narrow(), expected.map(|(from, clauses)| Range { from, clauses }));
    }
}
