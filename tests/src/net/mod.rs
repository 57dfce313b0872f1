//! Network faults: what they do to packets, and to which.

mod delay;
mod dns;
mod filter;
mod limits;
mod models;
mod partition;
mod rate;
mod refuse;
mod reject;
mod reorder;
mod reset;
mod segments;
mod shape;
mod spared;
mod tcp;
mod turn;
mod udp;

use crate::Test;

pub fn tests() -> Vec<Test> {
    [
        udp::tests(),
        tcp::tests(),
        filter::tests(),
        limits::tests(),
        models::tests(),
        delay::tests(),
        rate::tests(),
        reorder::tests(),
        refuse::tests(),
        reset::tests(),
        spared::tests(),
        limits::tests(),
        shape::tests(),
        models::tests(),
        segments::tests(),
        partition::tests(),
        reject::tests(),
        dns::tests(),
        turn::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
