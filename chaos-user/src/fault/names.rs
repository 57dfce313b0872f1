//! Names as masks of the clauses that they match.

use crate::units::NameSuffix;

/// All names of an injection, as the kernel half takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Beginnings of [keys](chaos_common::dns::write_key), each with the clauses that match what begins like
    /// that. As for prefixes, the kernel returns only the longest, so it has the clauses of the shorter ones too.
    pub entries: Vec<(Vec<u8>, u64)>,
    named: Vec<Named>,
}

/// Something that a clause names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    beginning: Vec<u8>,
    but_not: Option<Vec<u8>>,
    clause: u64,
}

/// Ends a key, so it is what tells a name from what is below it.
const END: u8 = 0;

impl Names {
    /// Adds the names of a clause; none stand for all.
    pub fn add(&mut self, names: &[NameSuffix], clause: u64) {
        if names.is_empty() {
            self.named.push(Named { beginning: Vec::new(), but_not: None, clause });
        }
        self.named.extend(names.iter().map(|name| {
            let but_not = name.below_only.then(|| [name.key(), vec![END]].concat());
            Named { beginning: name.key(), but_not, clause }
        }));
    }

    /// Computes what depends on all names together.
    pub fn finish(&mut self) {
        let beginnings = self.named.iter().map(|named| &named.beginning);
        let mut all: Vec<Vec<u8>> =
            beginnings.chain(self.named.iter().filter_map(|named| named.but_not.as_ref())).cloned().collect();
        all.sort();
        all.dedup();
        let clauses_of = |key: &Vec<u8>| {
            let matching = self.named.iter().filter(|named| named.matches(key));
            matching.fold(0, |clauses, named| clauses | named.clause)
        };
        self.entries = all.iter().map(|key| (key.clone(), clauses_of(key))).collect();
    }
}

impl Named {
    fn matches(&self, key: &[u8]) -> bool {
        key.starts_with(&self.beginning) && self.but_not.as_deref() != Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's trie finds for a name.
    fn clauses_of(names: &Names, name: &str) -> u64 {
        let whole = NameSuffix { name: name.into(), below_only: false };
        let key = [whole.key(), vec![END]].concat();
        let beginning = names.entries.iter().filter(|(beginning, _)| key.starts_with(beginning));
        beginning.max_by_key(|(beginning, _)| beginning.len()).map_or(0, |(_, clauses)| *clauses)
    }

    fn names(clauses: &[(&[&str], u64)]) -> Names {
        let mut names = Names::default();
        for (texts, clause) in clauses {
            let suffixes: Vec<NameSuffix> = texts.iter().map(|text| text.parse().unwrap()).collect();
            names.add(&suffixes, *clause);
        }
        names.finish();
        names
    }

    #[test]
    fn a_name_means_what_is_below_it_too() {
        let names = names(&[(&["example.com"], 1)]);
        for (name, clauses) in [
            ("example.com", 1),
            ("www.example.com", 1),
            ("a.b.example.com", 1),
            ("badexample.com", 0),
            ("com", 0),
        ] {
            assert_eq!(clauses_of(&names, name), clauses, "{name}");
        }
    }

    #[test]
    fn an_asterisk_leaves_the_name_itself_out() {
        let names = names(&[(&["*.example.com"], 1), (&["example.com"], 2), (&[], 4)]);
        for (name, clauses) in [("example.com", 6), ("www.example.com", 7), ("example.org", 4)] {
            assert_eq!(clauses_of(&names, name), clauses, "{name}");
        }
    }

    #[test]
    fn a_longer_name_carries_the_clauses_of_the_shorter_ones() {
        let names = names(&[(&["com"], 1), (&["*.com"], 2), (&["example.com", "org"], 4)]);
        for (name, clauses) in [("com", 1), ("example.com", 7), ("other.com", 3), ("example.org", 4)] {
            assert_eq!(clauses_of(&names, name), clauses, "{name}");
        }
    }
}
