//! Network faults: what they do to packets, and to which.

mod filter;
mod limits;
mod models;
mod tcp;
mod udp;

use crate::Test;

pub fn tests() -> Vec<Test> {
    [udp::tests(), tcp::tests(), filter::tests(), limits::tests(), models::tests()]
        .into_iter()
        .flatten()
        .collect()
}
