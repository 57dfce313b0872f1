//! How long tests took, so that one sees where the time goes.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How many are shown.
const SHOWN: usize = 5;

static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Takes note of a test that has ended.
pub fn note(name: String, took: Duration) {
    TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((took, name));
}

/// Shows those that took longest.
pub fn show_longest() {
    let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_unstable_by(|one, other| other.cmp(one));
    if !took.is_empty() {
        println!("took longest:");
    }
    for (took, name) in took.iter().take(SHOWN) {
        println!("{:>8.1} s  {name}", took.as_secs_f64());
    }
}
