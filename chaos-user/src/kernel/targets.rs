//! The table of targets, laid out so that the kernel half finds each where it looks.

use chaos_common::{
    random,
    targets::{MAX_PROBES, Target, TargetHash},
};

/// Multipliers that are tried before the table is doubled.
const TRIES: u64 = 32;
/// Any number: tables shall be the same in each run.
const SEED: u64 = 0x6b63_6861_6f73;

/// All targets, each within reach of its home.
pub struct Targets {
    pub hash: TargetHash,
    pub entries: Vec<Target>,
}

impl Targets {
    /// Nobody.
    pub fn none() -> Self {
        Self::of(&[])
    }

    /// These; of two with one id, the later. A multiplier is odd, so that different ids are apart in a table that is large enough.
    pub fn of(targets: &[Target]) -> Self {
        let mut bits = (2 * targets.len()).max(2).next_power_of_two().trailing_zeros();
        loop {
            let hashes = (0..TRIES).map(|number| hash(bits, number));
            if let Some(laid_out) = hashes.into_iter().find_map(|hash| lay_out(targets, hash)) {
                return laid_out;
            }
            bits += 1;
        }
    }
}

fn hash(bits: u32, number: u64) -> TargetHash {
    let half = |half| u64::from(random::draw(SEED, bits, 2 * number + half));
    TargetHash { multiplier: (half(0) << 32 | half(1)) | 1, shift: 64 - bits, spare: 0 }
}

/// `None` if some target would be out of reach.
fn lay_out(targets: &[Target], hash: TargetHash) -> Option<Targets> {
    let mut entries = vec![Target::NOBODY; (hash.homes() + MAX_PROBES - 1) as usize];
    for target in targets {
        let home = hash.home(target.id) as usize;
        let place = entries[home..][..MAX_PROBES as usize]
            .iter_mut()
            .find(|entry| [0, target.id].contains(&entry.id))?;
        *place = *target;
    }
    Some(Targets { hash, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(targets: &Targets, id: u64) -> Option<u32> {
        let entry = |index: u32| targets.entries.get(index as usize);
        targets.hash.find(id, entry).map(|target| target.slot)
    }

    fn with_ids(ids: impl Iterator<Item = u64>) -> Vec<Target> {
        (0..).zip(ids).map(|(slot, id)| Target::of(id, 1, slot)).collect()
    }

    #[test]
    fn each_target_is_found_and_nobody_else() {
        // As kernfs gives them: one after the other, those of one pod with gaps, and with a generation in the upper half.
        let consecutive = with_ids(4000..4256);
        let spread = with_ids((0..256).map(|i| 1 + i * 4096));
        let generations = with_ids((1..257).map(|i| i << 32 | 77));
        let many = with_ids((0..16_384).map(|i| u64::MAX - i * i));
        for targets in [vec![], with_ids(1..2), consecutive, spread, generations, many] {
            let table = Targets::of(&targets);
            for target in &targets {
                assert_eq!(found(&table, target.id), Some(target.slot), "{target:?} of {}", targets.len());
            }
            for other in [0, 3, 99_999, 1 << 40] {
                let expected = targets.iter().find(|target| target.id == other).map(|target| target.slot);
                assert_eq!(found(&table, other), expected, "{other} of {}", targets.len());
            }
        }
    }

    #[test]
    fn of_targets_with_one_id_the_last_is_taken() {
        let table = Targets::of(&with_ids([7; 9].into_iter()));
        assert_eq!(found(&table, 7), Some(8));
    }

    #[test]
    fn tables_are_no_larger_than_they_need_to_be() {
        assert_eq!(Targets::none().hash.homes(), 2);
        assert_eq!(Targets::of(&with_ids(5..6)).hash.homes(), 2);
        let most = Targets::of(&with_ids((0..10_000).map(|i| 70_000 + i))).hash.homes();
        assert!(most <= 1 << 17, "{most}");
    }
}
