//! A program that makes a call again and again and says what came of it: the same under strace and under kchaos.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// The word under which this program makes calls.
pub const VERB: &str = "calls";

/// How often the signal has come.
static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_signal: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// `calls NAME COUNT FOLDER`: waits for a line, then makes the call so many times, each time on another entry of the
/// folder. Of each it prints what the call returned, negative for an error, whether it had its effect, how many signals
/// have come, and which delay it had, in microseconds: `0`, or one of [`DELAYS_US`].
pub fn main(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [name, count, folder] = arguments else { bail!("expected NAME COUNT FOLDER") };
    let place = Place::new(Path::new(folder))?;
    let count: u32 = count.parse()?;
    (0..count).try_for_each(|number| place.prepare(number))?;
    // SAFETY: the function does nothing but add.
    let before =
        unsafe { libc::signal(libc::SIGUSR1, note as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error()).context("handling SIGUSR1");
    }
    io::stdin().read_line(&mut String::new())?;
    for number in 0..count {
        let begin = Instant::now();
        let returned = place.call(name, number)?;
        let delay = delay_us(begin.elapsed());
        let signals = SIGNALS.load(Ordering::Relaxed);
        println!("{returned} {} {signals} {delay}", place.is_changed(name, number)?);
    }
    Ok(())
}

/// The delays that are told apart: an emulated guest takes milliseconds to get there and back, and no hundreds of them.
pub const DELAYS_US: [u64; 2] = [400_000, 1_600_000];

/// The longest of them that a call can have had.
fn delay_us(took: Duration) -> u64 {
    let fits = |delay: &u64| took >= Duration::from_micros(*delay);
    DELAYS_US.into_iter().rfind(fits).unwrap_or(0)
}

/// Where the calls are made.
struct Place {
    folder: PathBuf,
    file: File,
}

impl Place {
    fn new(folder: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(folder.join("file"))?;
        Ok(Self { folder: folder.to_owned(), file })
    }

    /// What is there before a call.
    fn old(&self, number: u32) -> PathBuf {
        self.folder.join(format!("old{number}"))
    }

    /// What is there after it.
    fn new_one(&self, number: u32) -> PathBuf {
        self.folder.join(format!("new{number}"))
    }

    fn prepare(&self, number: u32) -> anyhow::Result<()> {
        fs::write(self.old(number), "")?;
        Ok(())
    }

    /// Makes the call itself, so that no library chooses another.
    fn call(&self, name: &str, number: u32) -> anyhow::Result<i64> {
        let path = |path: PathBuf| CString::new(path.as_os_str().as_bytes());
        let (old, new) = (path(self.old(number))?, path(self.new_one(number))?);
        let (here, file) = (libc::AT_FDCWD, self.file.as_raw_fd());
        // openat2's `struct open_how`: read only.
        let how = [libc::O_CLOEXEC as u64, 0, 0];
        // SAFETY: what is pointed to outlives the call, and has the length that it is said to have.
        let returned = unsafe {
            match name {
                "mkdirat" => libc::syscall(libc::SYS_mkdirat, here, new.as_ptr(), 0o700),
                "unlinkat" => libc::syscall(libc::SYS_unlinkat, here, old.as_ptr(), 0),
                "symlinkat" => libc::syscall(libc::SYS_symlinkat, old.as_ptr(), here, new.as_ptr()),
                "renameat2" => libc::syscall(libc::SYS_renameat2, here, old.as_ptr(), here, new.as_ptr(), 0),
                "openat2" => {
                    libc::syscall(libc::SYS_openat2, here, old.as_ptr(), how.as_ptr(), size_of_val(&how))
                }
                "pwrite64" => libc::syscall(libc::SYS_pwrite64, file, c"x".as_ptr(), 1, u64::from(number)),
                "fsync" => libc::syscall(libc::SYS_fsync, file),
                _ => bail!("no call {name}"),
            }
        };
        let error = io::Error::last_os_error().raw_os_error().context("an errno")?;
        Ok(if returned == -1 { -i64::from(error) } else { returned })
    }

    /// Whether what the call is for has happened, where that can be seen.
    fn is_changed(&self, name: &str, number: u32) -> anyhow::Result<bool> {
        let at = number as usize;
        Ok(match name {
            "mkdirat" | "symlinkat" | "renameat2" => fs::symlink_metadata(self.new_one(number)).is_ok(),
            "unlinkat" => fs::symlink_metadata(self.old(number)).is_err(),
            "pwrite64" => fs::read(self.folder.join("file"))?.get(at) == Some(&b'x'),
            _ => false,
        })
    }
}
