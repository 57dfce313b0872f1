//! The guest's first files: busybox, the modules that reach the host's files, and what to do then.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::toolchain;

const INIT: &str = include_str!("init.sh");
const GUEST: &str = include_str!("guest.sh");

/// Modules that reach the host's files, unless they are built in.
const FIRST: [&str; 4] = ["virtio_pci", "virtio_rng", "9pnet_virtio", "9p"];
/// Modules that tests would otherwise wait for. Others are loaded when the kernel asks for them.
const LOAD: &str =
    "veth dummy ifb sch_ingress cls_bpf act_bpf sch_fq sch_prio sch_netem sch_tbf sch_htb fuse tun";

/// What a guest shall do.
pub(super) struct Guest<'a> {
    /// `lib/modules/RELEASE` of its kernel.
    pub(super) modules: Option<&'a Path>,
    /// Folders of the host that it must see, wherever they are.
    pub(super) folders: Vec<PathBuf>,
    /// Environment variables.
    pub(super) variables: Vec<(&'static str, String)>,
    /// Names and commands.
    pub(super) steps: Vec<(&'static str, String)>,
}

/// The initramfs as one file.
pub(super) fn write(guest: &Guest<'_>) -> Result<Vec<u8>> {
    let busybox = toolchain::find("busybox").context("no busybox (package busybox-static)")?;
    let mut archive = Archive::default();
    archive.folder("bin");
    archive.file("bin/busybox", 0o755, &fs::read(&busybox)?);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("guest", 0o755, script(guest).as_bytes());
    let modules = guest.modules.map(|path| path.display().to_string()).unwrap_or_default();
    archive.file("lab", 0o644, format!("modules={}\nload='{LOAD}'\n", quoted(&modules)).as_bytes());
    archive.file("binds", 0o644, lines(guest.folders.iter().map(|folder| folder.display())).as_bytes());
    archive.folder("modules");
    let mut order = Vec::new();
    if let Some(modules) = guest.modules {
        let index = fs::read_to_string(modules.join("modules.dep")).context("the index of modules")?;
        for file in with_dependencies(&index, &FIRST) {
            let name = file.rsplit('/').next().unwrap_or(file);
            archive.file(&format!("modules/{name}"), 0o644, &fs::read(modules.join(file))?);
            order.push(name.to_owned());
        }
    }
    archive.file("modules/order", 0o644, lines(order.iter()).as_bytes());
    Ok(archive.end())
}

/// The initramfs of a guest that has nothing but these programs.
pub(super) fn alone(init: &str, programs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Archive::default();
    ["bin", "proc", "sys", "dev", "tmp", "run"].iter().for_each(|folder| archive.folder(folder));
    archive.file("init", 0o755, init.as_bytes());
    for (name, content) in programs {
        archive.file(&format!("bin/{name}"), 0o755, content);
    }
    archive.end()
}

fn lines(items: impl Iterator<Item = impl std::fmt::Display>) -> String {
    items.map(|item| format!("{item}\n")).collect()
}

/// What process 1 runs after switching to the host's files.
fn script(guest: &Guest<'_>) -> String {
    let mut script = GUEST.to_owned();
    for (name, value) in &guest.variables {
        let _ = writeln!(script, "export {name}={}", quoted(value));
    }
    for (name, command) in &guest.steps {
        let _ = writeln!(script, "step {name} /bin/sh -c {}", quoted(command));
    }
    script.push_str("off\n");
    script
}

/// One word of a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Files of these modules, each after those it needs. What is not in the index is built in.
fn with_dependencies<'a>(index: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut files: Vec<&str> = Vec::new();
    for name in names {
        let wanted = format!("{name}.ko");
        let line = index.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| {
            // Dashes and underscores are the same in names of modules.
            file.rsplit('/').next().is_some_and(|file| file.replace('-', "_") == wanted)
        });
        let Some((file, needs)) = line else { continue };
        // Each is listed before those it needs.
        for needed in needs.split_whitespace().rev().chain([file]) {
            if !files.contains(&needed) {
                files.push(needed);
            }
        }
    }
    files
}

/// An archive in cpio's "newc" format: Documentation/driver-api/early-userspace/buffer-format.rst.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn folder(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[]);
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | mode, content);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (length, name_length) = (content.len(), path.len() + 1);
        // inode, mode, uid, gid, links, mtime, size, device and represented device (two each), name, check
        let fields = [self.entries as usize, mode as usize, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_writes() {
        let mut archive = Archive::default();
        archive.folder("d");
        archive.file("d/f", 0o644, b"hello");
        let bytes = archive.end();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000041ed");
        // 110 bytes of header and "d\0" are a multiple of four.
        let file = &bytes[112..];
        assert_eq!(&file[..14], b"07070100000002");
        assert_eq!(
            (&file[14..22], &file[54..62], &file[94..102]),
            (&b"000081a4"[..], &b"00000005"[..], &b"00000004"[..])
        );
        assert_eq!(&file[110..124], b"d/f\0\0\0hello\0\0\0");
        assert!(bytes.len().is_multiple_of(4));
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
    }

    #[test]
    fn modules_come_after_those_they_need() {
        let index = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
            kernel/net/9p/9pnet.ko: kernel/fs/netfs/netfs.ko\nkernel/fs/netfs/netfs.ko:\n\
            kernel/drivers/char/hw_random/virtio-rng.ko:\n";
        assert_eq!(
            with_dependencies(index, &["virtio_pci", "9p", "virtio_rng"]),
            [
                "kernel/fs/netfs/netfs.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/drivers/char/hw_random/virtio-rng.ko"
            ]
        );
    }

    #[test]
    fn words_survive_the_shell() {
        let guest = Guest {
            modules: None,
            folders: vec![],
            variables: vec![("A", "it's".into())],
            steps: vec![("tests", "run 'a b'".into())],
        };
        let script = script(&guest);
        assert!(script.contains("export A='it'\\''s'\n"), "{script}");
        assert!(script.ends_with("step tests /bin/sh -c 'run '\\''a b'\\'''\noff\n"), "{script}");
    }
}
