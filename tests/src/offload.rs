//! What devices leave to one another: `ethtool -K`, as the system call that it makes.

use std::{io, net::UdpSocket, os::fd::AsRawFd};

use nix::errno::Errno;

use crate::lab::{DEVICE, Lab, PEER_DEVICE};

/// Something that a device can be told not to do (include/uapi/linux/ethtool.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Taking packets that are cut into segments later.
    Segmentation,
    /// Making checksums.
    Checksums,
}

impl Offload {
    const fn commands(self) -> &'static [u32] {
        const ETHTOOL_STXCSUM: u32 = 0x17;
        const ETHTOOL_STSO: u32 = 0x1f;
        const ETHTOOL_SGSO: u32 = 0x24;
        match self {
            Self::Segmentation => &[ETHTOOL_STSO, ETHTOOL_SGSO],
            Self::Checksums => &[ETHTOOL_STXCSUM],
        }
    }
}

/// Turns these off at both ends of a lab's wire.
pub fn turn_off(lab: &Lab, offloads: &[Offload]) -> anyhow::Result<()> {
    for command in offloads.iter().flat_map(|offload| offload.commands()) {
        lab.inside.run(|| set(DEVICE, *command, 0))??;
        lab.outside.run(|| set(PEER_DEVICE, *command, 0))??;
    }
    Ok(())
}

fn set(device: &str, command: u32, data: u32) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let mut value = [command, data];
    // SAFETY: zeros are a request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request is whole, and what it points to is there.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    Errno::result(result)?;
    Ok(())
}
