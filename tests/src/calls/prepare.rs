//! What calls find ready.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Error, Write},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::{
            fs::{OpenOptionsExt, symlink},
            net::UnixListener,
        },
    },
    ptr,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};

use super::stage::{CONTENT, MAPPED_BYTES, READY, Stage};

type Result = io::Result<()>;

pub fn nothing(_stage: &mut Stage) -> Result {
    Ok(())
}

pub fn files(stage: &mut Stage) -> Result {
    for path in stage.names(false) {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(path)?;
        file.write_all(CONTENT)?;
    }
    Ok(())
}

pub fn open_files(stage: &mut Stage) -> Result {
    files(stage)?;
    let open = |path| OpenOptions::new().read(true).write(true).open(path).map(OwnedFd::from);
    stage.fds = stage.names(false).map(open).collect::<io::Result<_>>()?;
    Ok(())
}

/// Each ready to be written to, and another to be read.
pub fn ends_of_files(stage: &mut Stage) -> Result {
    open_files(stage)?;
    let source = stage.dir().join("source");
    fs::write(&source, b"XXXXXXXXXXXXXXXXXXXXXXXX")?;
    stage.ends = (0..READY).map(|_| File::open(&source).map(OwnedFd::from)).collect::<io::Result<_>>()?;
    Ok(())
}

pub fn folders(stage: &mut Stage) -> Result {
    stage.names(false).try_for_each(fs::create_dir)
}

pub fn open_folders(stage: &mut Stage) -> Result {
    folders(stage)?;
    stage.fds =
        stage.names(false).map(|path| File::open(path).map(OwnedFd::from)).collect::<io::Result<_>>()?;
    Ok(())
}

/// In the folder that the paths are in, with a descriptor of it.
pub fn in_folder(stage: &mut Stage) -> Result {
    files(stage)?;
    std::env::set_current_dir(stage.dir())?;
    stage.fds = vec![File::open(stage.dir())?.into()];
    Ok(())
}

pub fn links(stage: &mut Stage) -> Result {
    stage.names(false).try_for_each(|path| symlink("target", path))
}

pub fn sockets(stage: &mut Stage) -> Result {
    for _ in 0..READY {
        stage.fds.push(socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?);
    }
    Ok(())
}

pub fn pairs(stage: &mut Stage) -> Result {
    for _ in 0..READY {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        stage.fds.push(one);
        stage.ends.push(other);
    }
    Ok(())
}

/// Each with something to read.
pub fn sent_pairs(stage: &mut Stage) -> Result {
    pairs(stage)?;
    for end in &stage.ends {
        File::from(end.try_clone()?).write_all(CONTENT)?;
    }
    Ok(())
}

pub fn pipes(stage: &mut Stage) -> Result {
    for _ in 0..READY {
        let (reads, writes) = nix::unistd::pipe()?;
        File::from(writes.try_clone()?).write_all(CONTENT)?;
        stage.fds.push(reads);
        stage.ends.push(writes);
    }
    Ok(())
}

/// The ends to write to.
pub fn written_pipes(stage: &mut Stage) -> Result {
    pipes(stage)?;
    std::mem::swap(&mut stage.fds, &mut stage.ends);
    Ok(())
}

/// Sockets, and who listens at their addresses.
pub fn sockets_and_listeners(stage: &mut Stage) -> Result {
    sockets(stage)?;
    stage.ends = stage
        .names(true)
        .map(|path| UnixListener::bind(path).map(OwnedFd::from))
        .collect::<io::Result<_>>()?;
    Ok(())
}

/// Listeners with somebody who waits.
pub fn callers(stage: &mut Stage) -> Result {
    for path in stage.names(true).collect::<Vec<_>>() {
        stage.fds.push(UnixListener::bind(&path)?.into());
        stage.ends.push(std::os::unix::net::UnixStream::connect(&path)?.into());
    }
    Ok(())
}

/// Sockets that have an address.
pub fn bound(stage: &mut Stage) -> Result {
    sockets(stage)?;
    for (fd, path) in stage.fds.iter().zip(stage.names(true)) {
        use std::os::fd::AsRawFd;
        let address = nix::sys::socket::UnixAddr::new(&path)?;
        nix::sys::socket::bind(fd.as_raw_fd(), &address)?;
    }
    Ok(())
}

pub fn epolls(stage: &mut Stage) -> Result {
    // SAFETY: a new descriptor, ours alone.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: as above.
    stage.fds = vec![unsafe { OwnedFd::from_raw_fd(epoll) }];
    Ok(())
}

/// Memory between two mappings that nobody may touch, so that none is merged with another.
pub fn mapped(stage: &mut Stage) -> Result {
    for _ in 0..READY {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, and then a part of it.
        unsafe {
            let at = libc::mmap(ptr::null_mut(), 3 * MAPPED_BYTES, libc::PROT_NONE, flags, -1, 0);
            if at == libc::MAP_FAILED {
                return Err(Error::last_os_error());
            }
            let middle = at.cast::<u8>().add(MAPPED_BYTES);
            stage.memory.push(middle as usize);
            if libc::mprotect(middle.cast(), MAPPED_BYTES, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return Err(Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Files on an overlayfs, behind which they are on a tmpfs.
fn on_overlay(stage: &mut Stage, make: fn(&mut Stage) -> Result) -> Result {
    let dir = stage.dir().to_owned();
    stage.mount("tmpfs", &dir, "")?;
    for below in ["lower", "upper", "work", "merged"] {
        fs::create_dir(dir.join(below))?;
    }
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| dir.join(name));
    stage.set_dir(&lower)?;
    files(stage)?;
    let (lower, upper, work) = (lower.display(), upper.display(), work.display());
    stage.mount("overlay", &merged, &format!("lowerdir={lower},upperdir={upper},workdir={work}"))?;
    stage.set_dir(&merged)?;
    make(stage)
}

pub fn overlaid(stage: &mut Stage) -> Result {
    on_overlay(stage, nothing)
}

pub fn open_overlaid(stage: &mut Stage) -> Result {
    on_overlay(stage, |stage| {
        let open = |path| File::open(path).map(OwnedFd::from);
        stage.fds = stage.names(false).map(open).collect::<io::Result<_>>()?;
        Ok(())
    })
}
