//! Network faults: what they do to packets, and to which.

mod arrive;
mod checksum;
mod compose;
mod corrupt;
mod delay;
mod dns;
mod duplicate;
mod filter;
mod frames;
mod layer3;
mod limits;
mod models;
mod netem;
pub mod numbers;
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
mod zeros;

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
        arrive::tests(),
        netem::tests(),
        refuse::tests(),
        reset::tests(),
        spared::tests(),
        shape::tests(),
        segments::tests(),
        partition::tests(),
        reject::tests(),
        dns::tests(),
        turn::tests(),
        corrupt::tests(),
        checksum::tests(),
        duplicate::tests(),
        layer3::tests(),
        compose::tests(),
        frames::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
