//! Many steps of a pattern's chain at once. A GSO packet of n segments is one occurrence, but n steps of a chain that
//! counts segments.

#[cfg(not(target_arch = "bpf"))]
use crate::{Pattern, chance, pattern::STATES};

/// A leap is put together from powers of two: a packet has less than 2^16 segments (include/linux/skbuff.h,
/// `skb_shared_info.gso_segs`, 6.18).
pub const POWERS: usize = 16;

crate::pod! {
    /// Where a chain is after 1, 2, 4, 8, … steps.
    pub struct Leaps {
        /// For each power and state: below the first threshold a draw leads to state 0, below the second to 1, below the
        /// third to 2, else to 3. In units of 2^-32.
        pub below: [[[u64; 3]; 4]; POWERS],
    }
}

impl Leaps {
    /// The state after `steps` more. By Chapman and Kolmogorov it has the distribution that it would have after so many
    /// single steps, with one draw for each bit of their number.
    #[inline(always)]
    pub fn after(&self, state: u64, steps: u32, mut draw: impl FnMut() -> u32) -> u64 {
        let mut state = state & 3;
        for power in 0..POWERS {
            if steps & (1 << power) != 0 {
                let [first, second, third] = self.below[power][(state & 3) as usize];
                let draw = draw() as u64;
                state = (draw >= first) as u64 + (draw >= second) as u64 + (draw >= third) as u64;
            }
        }
        state
    }

    /// Of a pattern; each power is the square of the one before.
    #[cfg(not(target_arch = "bpf"))]
    pub fn of(pattern: &Pattern) -> Self {
        let mut matrix = pattern.transitions();
        let below = core::array::from_fn(|_| {
            let thresholds = matrix.map(thresholds);
            matrix = square(&matrix);
            thresholds
        });
        Self { below }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn thresholds(row: [f64; STATES]) -> [u64; 3] {
    let up_to = |state: usize| (row[..=state].iter().sum::<f64>() * chance::ONE as f64 + 0.5) as u64;
    [up_to(0), up_to(1), up_to(2)]
}

#[cfg(not(target_arch = "bpf"))]
fn square(matrix: &[[f64; STATES]; STATES]) -> [[f64; STATES]; STATES] {
    core::array::from_fn(|from| {
        core::array::from_fn(|to| (0..STATES).map(|via| matrix[from][via] * matrix[via][to]).sum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chance, random};

    fn chance(fraction: f64) -> Chance {
        Chance::from_fraction(fraction).unwrap()
    }

    fn patterns() -> [Pattern; 4] {
        [
            Pattern::correlated(chance(0.2), chance(0.75)),
            Pattern::gilbert_elliott(chance(0.05), chance(0.2), Chance::ALWAYS, Chance::NEVER),
            // Alternates almost always: the second eigenvalue is negative.
            Pattern::gilbert_elliott(chance(0.9), chance(0.8), chance(0.7), chance(0.1)),
            Pattern::four_state(chance(0.05), chance(0.3), chance(0.2), chance(0.5), chance(0.02)),
        ]
    }

    /// As many leaps and as many walks of single steps from each state: equally often in each state afterwards.
    #[test]
    fn a_leap_ends_where_single_steps_do() {
        const TRIALS: u64 = 20_000;
        for (which, pattern) in (0..).zip(patterns()) {
            let leaps = Leaps::of(&pattern);
            for (start, steps) in [(0, 1), (0, 3), (1, 7), (1, 44)] {
                let mut seen = [[0_i64; 2]; STATES];
                let mut n = 0;
                let mut draw = || {
                    n += 1;
                    random::draw(7, which, n)
                };
                for _ in 0..TRIALS {
                    let walked = (0..steps).fold(start, |state, _| pattern.step(state, [draw(), draw()]).0);
                    seen[walked as usize][0] += 1;
                    seen[leaps.after(start, steps, &mut draw) as usize][1] += 1;
                }
                for [walked, leapt] in seen {
                    // Five standard deviations of the difference of two such counts, at most.
                    assert!((walked - leapt).abs() < 500, "{pattern:?}, {steps} from {start}: {seen:?}");
                }
            }
        }
    }

    #[test]
    fn no_steps_lead_nowhere_and_many_to_the_stationary_share() {
        for pattern in patterns() {
            let leaps = Leaps::of(&pattern);
            assert_eq!(leaps.after(1, 0, || unreachable!("no draw for no step")), 1);
            let [first, _, _] = leaps.below[POWERS - 1][0];
            assert!(leaps.below[POWERS - 1][1][0].abs_diff(first) <= 1, "{pattern:?}");
        }
    }

    #[test]
    fn certain_moves_stay_certain() {
        let from_isolated = Leaps::of(&patterns()[3]).below[0][3];
        assert_eq!(from_isolated, [chance::ONE; 3]);
    }
}
