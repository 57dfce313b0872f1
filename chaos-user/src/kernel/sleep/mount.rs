//! Our filesystem, mounted nowhere: the mount hangs on a descriptor, so that nothing of anybody's mounts changes and
//! nothing can be left behind (fsopen(2) and fsmount(2), Linux 5.2).

use std::{
    ffi::CStr,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
};

use libc::c_long;

/// Where the kernel hands out connections to filesystems.
const DEVICE: &str = "/dev/fuse";

// include/uapi/linux/mount.h, 6.18.
const FSOPEN_CLOEXEC: c_long = 1;
const FSMOUNT_CLOEXEC: c_long = 1;
const FSCONFIG_SET_STRING: c_long = 1;
const FSCONFIG_CMD_CREATE: c_long = 6;
/// MOUNT_ATTR_NOSUID, NODEV and NOEXEC.
const MOUNT_ATTRIBUTES: c_long = 2 | 4 | 8;

/// A filesystem of ours: the connection on which its requests come, and its root.
pub fn mount() -> io::Result<(File, OwnedFd)> {
    // First, as it loads the module.
    let filesystem = open(c"fuse").map_err(named("fuse"))?;
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
    let device = device.map_err(named(DEVICE))?;
    let descriptor = format!("{}\0", device.as_raw_fd());
    let descriptor = CStr::from_bytes_with_nul(descriptor.as_bytes()).map_err(io::Error::other)?;
    let options = [
        (c"source", c"kchaos"),
        (c"fd", descriptor),
        (c"rootmode", c"40000"),
        (c"user_id", c"0"),
        (c"group_id", c"0"),
    ];
    for (key, value) in options {
        set(filesystem.as_fd(), key, value).map_err(named("fuse"))?;
    }
    Ok((device, create(filesystem.as_fd()).map_err(named("fuse"))?))
}

/// What ends the connection of the filesystem with this device number, whatever its daemon does.
pub fn abort_switch(device: libc::dev_t) -> io::Result<File> {
    let control = open(c"fusectl").and_then(|control| create(control.as_fd())).map_err(named("fusectl"))?;
    let path = format!("{}/abort\0", libc::minor(device));
    let path = CStr::from_bytes_with_nul(path.as_bytes()).map_err(io::Error::other)?;
    open_at(control.as_fd(), path, libc::O_WRONLY).map_err(named("fusectl"))
}

/// Opens a file of a filesystem that is mounted nowhere.
pub fn open_at(root: BorrowedFd<'_>, path: &CStr, how: libc::c_int) -> io::Result<File> {
    // SAFETY: the path ends with a zero.
    let fd = unsafe { libc::openat(root.as_raw_fd(), path.as_ptr(), how | libc::O_CLOEXEC) };
    owned(fd.into()).map(File::from)
}

fn open(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with a zero.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

fn set(filesystem: BorrowedFd<'_>, key: &CStr, value: &CStr) -> io::Result<()> {
    let (key, value) = (key.as_ptr(), value.as_ptr());
    // SAFETY: both end with a zero.
    let result = unsafe {
        libc::syscall(libc::SYS_fsconfig, filesystem.as_raw_fd(), FSCONFIG_SET_STRING, key, value, 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn create(filesystem: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (filesystem, nothing) = (filesystem.as_raw_fd(), std::ptr::null::<libc::c_char>());
    // SAFETY: the calls take no memory.
    unsafe {
        if libc::syscall(libc::SYS_fsconfig, filesystem, FSCONFIG_CMD_CREATE, nothing, nothing, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, filesystem, FSMOUNT_CLOEXEC, MOUNT_ATTRIBUTES))
    }
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it, so nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn named(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_owned();
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
