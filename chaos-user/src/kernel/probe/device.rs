//! Qdiscs and devices, each tried by making one in a network namespace of the probe's own.
//!
//! The kernel loads a missing module when somebody asks for what it provides (net/sched/sch_api.c, `qdisc_create`,
//! 6.18), and it stays; loading `ifb` even makes devices on the host. A probe shall not change its host, so a module
//! that lies on disk and is not loaded is reported, not tried. From where the folder of modules cannot be seen, it is
//! tried all the same.

use std::{fs, io};

use futures_util::StreamExt;
use rtnetlink::{
    LinkIfb,
    packet_core::{
        DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage},
    },
};

use super::{super::netem, scratch};
use crate::target::netns::with_netlink;

/// `struct tc_netem_qopt` with a limit of 1 (include/uapi/linux/pkt_sched.h, 6.18): netem insists on options.
const NETEM_OPTIONS: [u8; 24] = {
    let mut options = [0; 24];
    let limit = 1_u32.to_ne_bytes();
    [options[4], options[5], options[6], options[7]] = limit;
    options
};

const TCA_OPTIONS: u16 = 2;

/// Tries what packets wait in where there is no fq, one after the other.
pub fn netem() -> Result<Option<String>, String> {
    let prio = qdisc("prio", "sch_prio", Some(&netem::prio_options(0)))?;
    let netem = qdisc("netem", "sch_netem", Some(&NETEM_OPTIONS))?;
    Ok(netem.or(prio))
}

/// Tries a qdisc as the root of a device; says what else there is to know.
pub fn qdisc(kind: &str, module: &str, options: Option<&[u8]>) -> Result<Option<String>, String> {
    if let Some(note) = not_loaded(module) {
        return Ok(Some(note));
    }
    let lo = scratch::lo()?;
    let added = lo.netns.run(|| add_root_qdisc(lo.device.ifindex, kind, options)).and_then(|added| added);
    added.map(|()| None).map_err(|error| error.to_string())
}

fn add_root_qdisc(ifindex: u32, kind: &str, options: Option<&[u8]>) -> io::Result<()> {
    with_netlink(async |mut handle| {
        let mut message = TcMessage::with_index(ifindex as i32);
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        if let Some(options) = options {
            let options = DefaultNla::new(TCA_OPTIONS, options.to_vec());
            message.attributes.push(TcAttribute::Other(options));
        }
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut answers = handle.request(request).map_err(io::Error::other)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    })
}

/// Tries an ifb device.
pub fn ifb() -> Result<Option<String>, String> {
    if let Some(note) = not_loaded("ifb") {
        return Ok(Some(note));
    }
    let lo = scratch::lo()?;
    let added = lo.netns.run(|| {
        with_netlink(async |handle| {
            let device = LinkIfb::new("kchaos-probe").build();
            match handle.link().add(device).execute().await {
                Err(rtnetlink::Error::NetlinkError(error)) => Err(error.to_io()),
                other => other.map_err(io::Error::other),
            }
        })
    });
    added.and_then(|added| added).map(|()| None).map_err(|error| error.to_string())
}

/// What to say about a module that is on disk and not loaded.
pub fn not_loaded(module: &str) -> Option<String> {
    let release = nix::sys::utsname::uname().ok()?.release().to_string_lossy().into_owned();
    // No such file: a kernel without modules.
    let loaded = fs::read_to_string("/proc/modules").ok()?;
    let on_disk = fs::read_to_string(format!("/lib/modules/{release}/modules.dep")).ok()?;
    (!is_loaded(&loaded, module) && is_on_disk(&on_disk, module)).then(|| {
        format!("module {module} is on disk and not loaded; the kernel loads it when it is used, so it was not tried")
    })
}

/// In `/proc/modules`: `sch_fq 24576 0 - Live 0x0000000000000000`.
fn is_loaded(modules: &str, module: &str) -> bool {
    modules.lines().any(|line| line.split_whitespace().next() == Some(module))
}

/// In `modules.dep`: `kernel/net/sched/sch_fq.ko.xz:`. Dashes and underscores are the same in names of modules.
fn is_on_disk(index: &str, module: &str) -> bool {
    let name = |line: &str| {
        let file = line.split_once(':')?.0.rsplit('/').next()?;
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    };
    index.lines().any(|line| name(line).as_deref() == Some(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_whole_names() {
        let loaded = "sch_fq_codel 24576 2 - Live 0x0\nifb 16384 0 - Live 0x0\n";
        assert!(is_loaded(loaded, "ifb") && !is_loaded(loaded, "sch_fq"));
        let index = "kernel/net/sched/sch_fq.ko.xz:\nkernel/drivers/net/ifb.ko: kernel/net/core/a.ko\n";
        assert!(is_on_disk(index, "sch_fq") && is_on_disk(index, "ifb"));
        assert!(!is_on_disk(index, "sch_netem") && !is_on_disk(index, "a"));
    }

    #[test]
    fn netem_gets_a_limit() {
        assert_eq!(NETEM_OPTIONS[4..8], 1_u32.to_ne_bytes());
    }
}
