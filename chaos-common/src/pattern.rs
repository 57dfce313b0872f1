//! Patterns: which occurrences of a sequence a rule hits. Network faults have them from the loss models of
//! netem, every other fault takes the same.

use crate::{Chance, chance};

crate::pod! {
    /// Which occurrences of a sequence are hit ("lost", in the words of the loss models these come from).
    pub struct Pattern {
        /// One of [`model`].
        pub model: u64,
        /// Its parameters, chances in units of 2^-32; what each means stands with the model.
        pub p: [u64; 5],
    }
}

/// The loss models.
pub mod model {
    /// Every packet is lost with chance `p[0]`, whatever happened before.
    pub const RANDOM: u64 = 0;
    /// Two-state chain: lost with chance `p[0]` after a packet that passed, `p[1]` after one that was
    /// lost. See [`Pattern::correlated`](super::Pattern::correlated).
    pub const CORRELATED: u64 = 1;
    /// Gilbert–Elliott: `p[0]` good→bad, `p[1]` bad→good, `p[2]` lost while good (1-k), `p[3]` lost
    /// while bad (1-h).
    pub const GILBERT_ELLIOTT: u64 = 2;
    /// The four-state model of netem (Salsano et al., "Definition of a general and intuitive loss
    /// model"): `p[0]` p13, `p[1]` p31, `p[2]` p32, `p[3]` p23, `p[4]` p14.
    pub const FOUR_STATE: u64 = 3;
}

/// How many states a chain has at most.
#[cfg(not(target_arch = "bpf"))]
pub const STATES: usize = 4;

/// States of the four-state model, less one so that a zeroed map starts in the first.
mod state4 {
    pub const RECEIVED_IN_GAP: u64 = 0;
    pub const RECEIVED_IN_BURST: u64 = 1;
    pub const LOST_IN_BURST: u64 = 2;
    pub const LOST_IN_GAP: u64 = 3;
}

impl Pattern {
    /// Nothing is hit.
    pub const NONE: Self = Self { model: model::RANDOM, p: [0; 5] };

    /// Independent losses.
    pub const fn random(chance: Chance) -> Self {
        Self { model: model::RANDOM, p: [chance.bits(), 0, 0, 0, 0] }
    }

    /// Losses with chance `chance` in the long run and autocorrelation `rho` from one packet to the
    /// next: lost with `chance + rho·(1-chance)` after a loss, `chance·(1-rho)` otherwise.
    ///
    /// netem's `loss random P CORR` averages draws instead, which pulls them towards the middle and
    /// changes the loss rate itself (sch_netem.c, `get_crandom`); here the rate asked for is the rate.
    pub const fn correlated(chance: Chance, rho: Chance) -> Self {
        if chance.bits() == Chance::ALWAYS.bits() {
            return Self::random(chance); // from the very first packet, before the chain has settled
        }
        let after_pass = chance.and(rho.complement());
        let after_loss = after_pass.bits() + rho.bits();
        Self { model: model::CORRELATED, p: [after_pass.bits(), after_loss, 0, 0, 0] }
    }

    /// Gilbert–Elliott, parameters as in `tc-netem(8)`: good→bad, bad→good, lost while bad, lost while good.
    pub const fn gilbert_elliott(p: Chance, r: Chance, lost_in_bad: Chance, lost_in_good: Chance) -> Self {
        Self {
            model: model::GILBERT_ELLIOTT,
            p: [p.bits(), r.bits(), lost_in_good.bits(), lost_in_bad.bits(), 0],
        }
    }

    /// The four-state model, parameters as in `tc-netem(8)`: p13 p31 p32 p23 p14.
    pub const fn four_state(p13: Chance, p31: Chance, p32: Chance, p23: Chance, p14: Chance) -> Self {
        Self { model: model::FOUR_STATE, p: [p13.bits(), p31.bits(), p32.bits(), p23.bits(), p14.bits()] }
    }

    /// Whether the model looks at nothing but the present draw, so that no state needs to be kept.
    #[inline(always)]
    pub const fn is_memoryless(&self) -> bool {
        self.model == model::RANDOM
    }

    /// Whether every packet is lost, or none is, so that nothing has to be drawn.
    #[inline(always)]
    pub const fn is_certain(&self) -> Option<bool> {
        match (self.model, self.p[0]) {
            (model::RANDOM, 0) => Some(false),
            (model::RANDOM, chance::ONE) => Some(true),
            _ => None,
        }
    }

    /// The next packet: the model's new state, and whether this packet is lost. `draws` are two
    /// independent uniform draws.
    #[inline(always)]
    pub const fn step(&self, state: u64, draws: [u32; 2]) -> (u64, bool) {
        match self.model {
            model::CORRELATED => {
                let lost = self.below(if state == 0 { 0 } else { 1 }, draws[0]);
                (lost as u64, lost)
            }
            model::GILBERT_ELLIOTT => self.gilbert_elliott_step(state, draws),
            model::FOUR_STATE => self.four_state_step(state, draws[0]),
            _ => (state, self.below(0, draws[0])),
        }
    }

    /// The packet suffers the state it arrives in, then the state moves on (sch_netem.c,
    /// `loss_gilb_ell`, 6.12, moves the state by one draw and judges by another likewise).
    #[inline(always)]
    const fn gilbert_elliott_step(&self, state: u64, draws: [u32; 2]) -> (u64, bool) {
        let bad = state != 0;
        let moves = self.below(if bad { 1 } else { 0 }, draws[0]);
        let lost = self.below(if bad { 3 } else { 2 }, draws[1]);
        ((bad != moves) as u64, lost)
    }

    /// The state moves first; the packet is lost if it arrives in a lost state.
    #[inline(always)]
    const fn four_state_step(&self, state: u64, draw: u32) -> (u64, bool) {
        use state4::*;
        let next = match state {
            RECEIVED_IN_GAP => self.pick(draw, (4, LOST_IN_GAP), (0, LOST_IN_BURST), RECEIVED_IN_GAP),
            RECEIVED_IN_BURST => {
                if self.below(3, draw) {
                    LOST_IN_BURST
                } else {
                    RECEIVED_IN_BURST
                }
            }
            LOST_IN_BURST => self.pick(draw, (2, RECEIVED_IN_BURST), (1, RECEIVED_IN_GAP), LOST_IN_BURST),
            _ => RECEIVED_IN_GAP,
        };
        (next, next == LOST_IN_BURST || next == LOST_IN_GAP)
    }

    /// One draw choosing between two moves, each with its own chance, and staying.
    #[inline(always)]
    const fn pick(&self, draw: u32, first: (usize, u64), second: (usize, u64), stay: u64) -> u64 {
        let (draw, edge) = (draw as u64, self.p[first.0]);
        if draw < edge {
            first.1
        } else if draw < edge.saturating_add(self.p[second.0]) {
            second.1
        } else {
            stay
        }
    }

    #[inline(always)]
    const fn below(&self, parameter: usize, draw: u32) -> bool {
        Chance::from_bits(self.p[parameter]).hits(draw)
    }

    /// The chance of each move of the chain in one step, from state to state.
    #[cfg(not(target_arch = "bpf"))]
    pub fn transitions(&self) -> [[f64; STATES]; STATES] {
        let p = self.p.map(|bits| bits as f64 / chance::ONE as f64);
        let mut moves =
            core::array::from_fn(|from| core::array::from_fn(|to| f64::from(u8::from(from == to))));
        match self.model {
            model::CORRELATED => {
                moves[0] = [1.0 - p[0], p[0], 0.0, 0.0];
                moves[1] = [1.0 - p[1], p[1], 0.0, 0.0];
            }
            model::GILBERT_ELLIOTT => {
                moves[0] = [1.0 - p[0], p[0], 0.0, 0.0];
                moves[1] = [p[1], 1.0 - p[1], 0.0, 0.0];
            }
            model::FOUR_STATE => {
                let [p13, p31, p32, p23, p14] = p;
                moves = [
                    [1.0 - p13 - p14, 0.0, p13, p14],
                    [0.0, 1.0 - p23, p23, 0.0],
                    [p31, p32, 1.0 - p31 - p32, 0.0],
                    [1.0, 0.0, 0.0, 0.0],
                ];
            }
            _ => {}
        }
        moves
    }

    /// Share of packets lost in the long run, from the model's stationary distribution.
    #[cfg(not(target_arch = "bpf"))]
    pub fn long_run_fraction(&self) -> f64 {
        let p = self.p.map(|bits| bits as f64 / chance::ONE as f64);
        match self.model {
            model::CORRELATED => stationary(p[0], 1.0 - p[1]),
            model::GILBERT_ELLIOTT => {
                let bad = stationary(p[0], p[1]);
                bad * p[3] + (1.0 - bad) * p[2]
            }
            model::FOUR_STATE => {
                let [p13, p31, p32, p23, p14] = p;
                // Chains that end up in one place and stay there.
                if p13 == 0.0 {
                    return p14 / (1.0 + p14);
                }
                if p32 > 0.0 && p23 == 0.0 {
                    return 0.0;
                }
                if p31 == 0.0 {
                    return if p32 == 0.0 { 1.0 } else { p23 / (p23 + p32) };
                }
                // Balance of flows with the gap state as 1: into burst p13, out of it p31.
                let lost_in_burst = p13 / p31;
                let received_in_burst = if p32 == 0.0 { 0.0 } else { lost_in_burst * p32 / p23 };
                (lost_in_burst + p14) / (1.0 + lost_in_burst + received_in_burst + p14)
            }
            _ => p[0],
        }
    }
}

/// Share of time a two-state chain spends in the state entered with chance `enter` and left with `leave`.
#[cfg(not(target_arch = "bpf"))]
fn stationary(enter: f64, leave: f64) -> f64 {
    if enter == 0.0 { 0.0 } else { enter / (enter + leave) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn chance(fraction: f64) -> Chance {
        Chance::from_fraction(fraction).unwrap()
    }

    /// The fate of `n` packets in a row.
    fn run(pattern: Pattern, n: u64) -> Vec<bool> {
        let mut state = 0;
        (0..n)
            .map(|i| {
                let draws = [crate::random::draw(7, 0, 2 * i), crate::random::draw(7, 1, 2 * i + 1)];
                let (next, lost) = pattern.step(state, draws);
                state = next;
                lost
            })
            .collect()
    }

    fn share(fates: &[bool]) -> f64 {
        fates.iter().filter(|lost| **lost).count() as f64 / fates.len() as f64
    }

    fn mean_burst(fates: &[bool]) -> f64 {
        let bursts = fates.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        share(fates) * fates.len() as f64 / bursts as f64
    }

    #[test]
    fn random_never_and_always() {
        assert_eq!(share(&run(Pattern::random(Chance::NEVER), 1000)), 0.0);
        assert_eq!(share(&run(Pattern::random(Chance::ALWAYS), 1000)), 1.0);
    }

    #[test]
    fn correlation_keeps_the_rate_and_makes_bursts() {
        let pattern = Pattern::correlated(chance(0.05), chance(0.5));
        let fates = run(pattern, 1_000_000);
        assert!((share(&fates) - 0.05).abs() < 0.002, "{}", share(&fates));
        // A burst ends with 1 - p(lost | lost) = 1 - (0.05 + 0.5·0.95) = 0.475.
        assert!((mean_burst(&fates) - 1.0 / 0.475).abs() < 0.05, "{}", mean_burst(&fates));
        assert!((pattern.long_run_fraction() - 0.05).abs() < 1e-6);
    }

    #[test]
    fn correlation_at_the_edges() {
        let fates = run(Pattern::correlated(Chance::ALWAYS, chance(0.5)), 100);
        assert_eq!(share(&fates), 1.0);
        assert_eq!(share(&run(Pattern::correlated(Chance::NEVER, chance(0.99)), 1000)), 0.0);
    }

    #[test]
    fn gilbert_bursts_have_the_length_theory_gives() {
        // Simple Gilbert: everything is lost while bad, a burst lasts 1/r.
        let pattern = Pattern::gilbert_elliott(chance(0.01), chance(0.25), Chance::ALWAYS, Chance::NEVER);
        let fates = run(pattern, 1_000_000);
        assert!((share(&fates) - pattern.long_run_fraction()).abs() < 0.002);
        assert!((pattern.long_run_fraction() - 0.01 / 0.26).abs() < 1e-6);
        assert!((mean_burst(&fates) - 4.0).abs() < 0.1, "{}", mean_burst(&fates));
    }

    #[test]
    fn gilbert_elliott_also_loses_while_good() {
        let pattern = Pattern::gilbert_elliott(chance(0.02), chance(0.1), chance(0.5), chance(0.01));
        let fates = run(pattern, 1_000_000);
        assert!((share(&fates) - pattern.long_run_fraction()).abs() < 0.003);
    }

    #[test]
    fn four_states_reach_their_stationary_loss() {
        let pattern = Pattern::four_state(chance(0.02), chance(0.3), chance(0.2), chance(0.4), chance(0.01));
        let fates = run(pattern, 1_000_000);
        assert!(
            (share(&fates) - pattern.long_run_fraction()).abs() < 0.003,
            "{} against {}",
            share(&fates),
            pattern.long_run_fraction()
        );
    }

    /// Half of the packets of a burst get through, in stretches of 1/p23.
    #[test]
    fn four_states_stay_received_in_a_burst_as_long_as_theory_says() {
        let pattern =
            Pattern::four_state(Chance::ALWAYS, chance(0.01), chance(0.4), chance(0.4), Chance::NEVER);
        let fates = run(pattern, 1_000_000);
        let passed: Vec<bool> = fates.iter().map(|lost| !lost).collect();
        assert!((mean_burst(&passed) - 1.0 / 0.4).abs() < 0.05, "{}", mean_burst(&passed));
        assert!((share(&fates) - pattern.long_run_fraction()).abs() < 0.003);
    }

    #[test]
    fn four_states_that_never_leave_a_burst() {
        let never = Chance::NEVER;
        let stays_lost = Pattern::four_state(chance(0.1), never, never, Chance::ALWAYS, never);
        assert_eq!(stays_lost.long_run_fraction(), 1.0);
        let stays_received = Pattern::four_state(chance(0.1), chance(0.1), chance(0.1), never, never);
        assert_eq!(stays_received.long_run_fraction(), 0.0);
    }

    #[test]
    fn four_states_with_only_isolated_losses() {
        let pattern =
            Pattern::four_state(Chance::NEVER, Chance::ALWAYS, Chance::NEVER, Chance::ALWAYS, chance(0.1));
        let fates = run(pattern, 200_000);
        assert!(
            fates.windows(2).all(|pair| !(pair[0] && pair[1])),
            "isolated losses never follow each other"
        );
        assert!((share(&fates) - pattern.long_run_fraction()).abs() < 0.003);
    }
}
