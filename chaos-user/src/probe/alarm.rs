//! Wakes at a time, not a millisecond or two later: latencies count from when a request was due.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

/// Tokio's own timers count whole milliseconds.
const COARSE: Duration = Duration::from_millis(3);

/// Something to sleep with.
#[derive(Debug)]
pub(super) enum Alarm {
    /// By tokio's clock alone, which tests can stop.
    #[cfg(test)]
    Coarse,
    /// By tokio's until shortly before, then by the kernel's.
    Fine(AsyncFd<Timer>),
}

impl Alarm {
    /// One that is on time. Must be called within a runtime.
    pub(super) fn fine() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        // SAFETY: the timer owns its descriptor, always gives the same one, and closes it only when it is dropped.
        let timer = unsafe { AsyncFd::register(timer)? };
        Ok(Self::Fine(timer))
    }

    /// Sleeps until `due`; if that is over, lets others have their turn.
    pub(super) async fn until(&mut self, due: Instant) {
        match self {
            #[cfg(test)]
            Self::Coarse => sleep_until(due).await,
            Self::Fine(timer) => {
                if due.saturating_duration_since(Instant::now()) > COARSE {
                    sleep_until(due - COARSE).await;
                }
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    tokio::task::yield_now().await;
                } else if wait(timer, left).await.is_err() {
                    sleep_until(due).await;
                }
            }
        }
    }
}

async fn wait(timer: &AsyncFd<Timer>, left: Duration) -> io::Result<()> {
    let once = Expiration::OneShot(TimeSpec::from_duration(left));
    timer.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
    loop {
        let mut ready = timer.readable().await?;
        match ready.try_io(|timer| timer.get_ref().0.wait().map_err(io::Error::from)) {
            Ok(expired) => return expired,
            Err(_would_block) => {}
        }
    }
}

/// For tokio, which asks for the raw descriptor.
#[derive(Debug)]
pub(super) struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
