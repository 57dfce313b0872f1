//! What else moved, of everything that was measured: Benjamini and Hochberg's false discovery rate.

/// Of those that are said to have moved, at most this share may not have.
pub const MOST_FALSE: f64 = 0.10;

/// p-values adjusted so that of those ≤ q at most the share q is wrongly there, on average, if the tests are independent or
/// hang together positively. Benjamini, Hochberg, J. Roy. Statist. Soc. B 57 (1995).
pub fn adjust(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
    let mut adjusted = vec![1.0; p.len()];
    let mut smallest = 1.0_f64;
    for (from_end, index) in order.into_iter().enumerate() {
        let rank = p.len() - from_end;
        smallest = smallest.min(p[index] * p.len() as f64 / rank as f64);
        adjusted[index] = smallest;
    }
    adjusted
}
