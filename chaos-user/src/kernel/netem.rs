//! The `prio` qdisc with `netem` below that holds packets back where there is no `fq`. It outlives the controller, so
//! it is journalled first and undone by name, as an fq is (`fq.rs`); without our program, nothing goes through the
//! netem.

use std::{io, time::Duration};

use chaos_common::priority::{self, BANDS_OF_OTHERS};
use rtnetlink::{
    packet_core::DefaultNla,
    packet_route::tc::{TcHandle, TcMessage},
};

use super::{
    KernelError,
    fault_point::FaultPoint,
    fq::{attributes, make, root},
    journal::{Journal, Residue},
};
use crate::{
    fault::{
        delay::ns,
        jitter::{Jitter, quantiles},
        netem::Netem,
        plan::Place,
    },
    target::root_qdisc::OUR_HANDLE,
};

/// By priority, the band in which others leave: as in a new prio, and in pfifo_fast (net/sched/sch_generic.c,
/// `sch_default_prio2band`, 6.18).
const PRIORITY_MAP: [u8; 16] = [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];
/// How many packets wait in each of these: as in pfifo_fast on most devices (include/linux/netdevice.h,
/// DEFAULT_TX_QUEUE_LEN). By itself prio goes by the device's, which may be 0.
const PACKETS_OF_OTHERS: u32 = 1_000;

/// One jitter in a table of netem's (include/uapi/linux/pkt_sched.h, NETEM_DIST_SCALE, 6.18).
const SCALE: u32 = 8192;
/// So fast that nothing takes time, but one packet still leaves after another.
const WITHOUT_END: u64 = u64::MAX;

/// Attributes of netem's options (include/uapi/linux/pkt_sched.h, 6.18).
mod attribute {
    pub const CORRELATION: u16 = 1;
    pub const DISTRIBUTION: u16 = 2;
    pub const RATE: u16 = 6;
    pub const RATE64: u16 = 8;
    pub const LATENCY64: u16 = 10;
    pub const JITTER64: u16 = 11;
    pub const SEED: u16 = 14;
}

/// Makes it the root qdisc of a device, journalled.
pub fn change(
    journal: &mut Journal,
    at: &Place,
    netem: &Netem,
    bands: u32,
    hold: Duration,
) -> Result<(), KernelError> {
    let Place { netns, device } = at;
    let hold_ms = hold.as_millis() as u64;
    journal
        .note(Residue::RootNetem { netns: netns.inode, device: device.name.clone(), hold_ms })
        .map_err(KernelError::io("the journal"))?;
    FaultPoint::NetemNoted.reached();
    let added = netns.run(|| add(&device.name, netem, bands)).and_then(|added| added);
    added.map_err(KernelError::io(format!("prio qdisc with netem on {}", device.name)))?;
    FaultPoint::NetemAdded.reached();
    Ok(())
}

/// Adds all of it to a device of the calling thread's namespace; not where somebody has configured another.
fn add(device: &str, netem: &Netem, bands: u32) -> io::Result<()> {
    make(root(device)?, "prio", prio_options(bands))?;
    FaultPoint::PrioAdded.reached();
    for class in 1..=BANDS_OF_OTHERS {
        make(child(device, class as u16)?, "pfifo", PACKETS_OF_OTHERS.to_ne_bytes().to_vec())?;
    }
    let options = netem_options(netem);
    for slot in 0..bands {
        make(child(device, priority::class(slot))?, "netem", options.clone())?;
    }
    Ok(())
}

/// Below a class of our root qdisc.
fn child(device: &str, class: u16) -> io::Result<TcMessage> {
    let mut message = root(device)?;
    message.header.parent = TcHandle { major: OUR_HANDLE, minor: class };
    // The kernel finds one.
    message.header.handle = TcHandle { major: 0, minor: 0 };
    Ok(message)
}

/// `struct tc_prio_qopt` (include/uapi/linux/pkt_sched.h, 6.18), with so many bands besides those of others.
pub fn prio_options(bands: u32) -> Vec<u8> {
    let bands = BANDS_OF_OTHERS + bands;
    bands.to_ne_bytes().into_iter().chain(PRIORITY_MAP).collect()
}

/// `struct tc_netem_qopt` (there too), of which only the limit says anything, and attributes.
fn netem_options(netem: &Netem) -> Vec<u8> {
    let mut options: Vec<u8> = [0, netem.limit, 0, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    options.extend(attributes(&netem_attributes(netem)));
    options
}

fn netem_attributes(netem: &Netem) -> Vec<DefaultNla> {
    let mut found = vec![DefaultNla::new(attribute::LATENCY64, ns(netem.delay).to_ne_bytes().to_vec())];
    if let Some(jitter) = &netem.jitter {
        found.extend(jitter_attributes(jitter));
    }
    if let Some(bytes_per_s) = bytes_per_s(netem) {
        // The first of `struct tc_netem_rate` is the rate in 32 bits; the larger of the two counts.
        found.push(DefaultNla::new(attribute::RATE, vec![0; 16]));
        found.push(DefaultNla::new(attribute::RATE64, bytes_per_s.to_ne_bytes().to_vec()));
    }
    if let Some(seed) = netem.seed {
        // Linux 6.7; older ones pass over it.
        found.push(DefaultNla::new(attribute::SEED, seed.to_ne_bytes().to_vec()));
    }
    found
}

/// netem lets packets overtake others that wait longer, but for those that wait for a wire (net/sched/sch_netem.c,
/// `netem_enqueue`, 6.18).
fn bytes_per_s(netem: &Netem) -> Option<u64> {
    match netem.bits_per_s {
        Some(bits_per_s) => Some((bits_per_s / 8).max(1)),
        None => netem.keeps_order().then_some(WITHOUT_END),
    }
}

fn jitter_attributes(jitter: &Jitter) -> Vec<DefaultNla> {
    // Without one, netem's jitter is uniform too, but limited to 2 s.
    let table = quantiles(jitter.distribution, SCALE);
    let correlation = (jitter.correlation.fraction() * f64::from(u32::MAX)) as u32;
    let correlations = [correlation, 0, 0];
    vec![
        DefaultNla::new(attribute::JITTER64, ns(jitter.by).to_ne_bytes().to_vec()),
        DefaultNla::new(
            attribute::CORRELATION,
            correlations.into_iter().flat_map(u32::to_ne_bytes).collect(),
        ),
        DefaultNla::new(attribute::DISTRIBUTION, table.into_iter().flat_map(i16::to_ne_bytes).collect()),
    ]
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::NlasIterator;

    use super::*;
    use crate::fault::jitter::{Distribution, Order};
    use chaos_common::Chance;

    const PLAIN: Netem = Netem {
        delay: Duration::from_millis(50),
        jitter: None,
        bits_per_s: None,
        seed: None,
        limit: 100_000,
    };

    /// The options' attributes, as a kernel would read them.
    fn read(netem: &Netem) -> Vec<(u16, Vec<u8>)> {
        let options = netem_options(netem);
        assert_eq!(options[4..8], netem.limit.to_ne_bytes());
        NlasIterator::new(&options[24..]).flatten().map(|nla| (nla.kind(), nla.value().to_vec())).collect()
    }

    fn number(found: &[(u16, Vec<u8>)], kind: u16) -> Option<u64> {
        let (_, value) = found.iter().find(|(one, _)| *one == kind)?;
        Some(u64::from_ne_bytes(value[..].try_into().ok()?))
    }

    #[test]
    fn a_delay_is_in_nanoseconds() {
        let found = read(&PLAIN);
        assert_eq!(found.len(), 1);
        assert_eq!(number(&found, attribute::LATENCY64), Some(50_000_000));
    }

    #[test]
    fn a_rate_is_in_bytes() {
        let found = read(&Netem { delay: Duration::ZERO, bits_per_s: Some(1_000_000), ..PLAIN });
        assert_eq!(number(&found, attribute::RATE64), Some(125_000));
        assert_eq!(number(&found, attribute::LATENCY64), Some(0));
    }

    #[test]
    fn a_jitter_has_its_table_and_a_wire_that_keeps_the_order() {
        let jitter = |order| Jitter {
            by: Duration::from_millis(10),
            distribution: Distribution::Normal,
            correlation: Chance::from_fraction(0.25).unwrap(),
            order,
        };
        let kept = read(&Netem { jitter: Some(jitter(Order::Keep)), seed: Some(7), ..PLAIN });
        assert_eq!(number(&kept, attribute::JITTER64), Some(10_000_000));
        assert_eq!(number(&kept, attribute::RATE64), Some(u64::MAX));
        assert_eq!(number(&kept, attribute::SEED), Some(7));
        let (_, table) = kept.iter().find(|(kind, _)| *kind == attribute::DISTRIBUTION).unwrap();
        let table: Vec<i16> =
            table.chunks_exact(2).map(|value| i16::from_ne_bytes([value[0], value[1]])).collect();
        assert_eq!((table[2048].signum(), table.len()), (1, 4096), "half of them are early");
        assert!((table[3446] - 8192).abs() < 20, "16 % are a deviation late or more: {}", table[3446]);
        let free = read(&Netem { jitter: Some(jitter(Order::Free)), ..PLAIN });
        assert_eq!(number(&free, attribute::RATE64), None);
    }

    #[test]
    fn prio_sends_others_as_it_does_by_itself() {
        let options = prio_options(2);
        assert_eq!((options.len(), options[0], options[4], options[20 - 1]), (20, 5, 1, 1));
    }
}
