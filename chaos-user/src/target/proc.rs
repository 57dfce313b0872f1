//! What /proc says of cgroups. Bytes, as paths are: a mount point that is not UTF-8 may be anywhere on a host, and
//! says nothing of the others.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

/// Where the whole cgroup v2 hierarchy is mounted, according to `/proc/PID/mountinfo`: the first of its mounts.
///
/// `36 35 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw`, with any number of fields before the dash
/// (fs/proc_namespace.c, `show_mountinfo`, 6.18).
pub fn cgroup2_mount(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let r#type = fields.skip_while(|field| *field != b"-").nth(1)?;
        (r#type == b"cgroup2" && root == b"/").then(|| path(&unescaped(mount)))
    })
}

/// The cgroup of the v2 hierarchy in a `/proc/PID/cgroup`, from the hierarchy's root: `0::/a/b`. The kernel writes
/// such paths as they are and allows no newlines in them (kernel/cgroup/cgroup.c, `cgroup_mkdir`, 6.18).
pub fn cgroup2_path(cgroups: &[u8]) -> Option<PathBuf> {
    let mut lines = cgroups.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"0::")).map(path)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Blanks, tabs, newlines and backslashes are written as `\040` (fs/seq_file.c, `mangle_path`, 6.18).
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = octal(rest).map_or((*first, after), |byte| (byte, &rest[4..]));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits: [u8; 3] = text.strip_prefix(b"\\")?.get(..3)?.try_into().ok()?;
    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 0:26 / /mnt/\xff\xfe rw shared:1 - tmpfs tmpfs rw\n\
        31 22 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        35 22 0:29 /docker /run/part rw - cgroup2 cgroup2 rw\n\
        36 22 0:29 / /sys/fs/a\\040\\134b rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_whole_hierarchy_is_found_among_other_mounts() {
        assert_eq!(cgroup2_mount(MOUNTS), Some("/sys/fs/a \\b".into()));
        assert_eq!(cgroup2_mount(b"31 22 0:27 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\n"), None);
        assert_eq!(cgroup2_mount(b"31 22 0:27 / /sys\n- cgroup2\n\n"), None);
    }

    #[test]
    fn the_cgroup_is_the_one_of_v2() {
        let cgroups = b"12:cpu,cpuacct:/v1:/\xff\n1:name=systemd:/v1\n0::/a:b/c \xff\n";
        let found = cgroup2_path(cgroups);
        assert_eq!(found.as_deref().map(|path| path.as_os_str().as_bytes()), Some(&b"/a:b/c \xff"[..]));
        assert_eq!(cgroup2_path(b"12:cpu:/v1\n"), None);
    }

    #[test]
    fn what_is_no_octal_number_stays() {
        for (text, bytes) in
            [("\\040", " "), ("\\04", "\\04"), ("\\999", "\\999"), ("\\777", "\\777"), ("\\", "\\")]
        {
            assert_eq!(unescaped(text.as_bytes()), bytes.as_bytes());
        }
    }
}
