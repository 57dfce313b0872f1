//! Asks targets from outside while an experiment runs: at times fixed beforehand, whatever becomes of the answers, and
//! both groups at the same times. What was seen is counted up ([`ProbeReading`]) and read by whoever samples.

mod alarm;
mod exec;
mod exposition;
mod http;
mod schedule;
mod tally;
mod tcp;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{runtime::Handle, task::AbortHandle, time::Instant};

use self::{
    alarm::Alarm,
    schedule::{Pace, drive},
    tally::Tally,
};
use crate::{
    experiment::probe::{Ask, Probe},
    steady::probe::{ProbeReading, Scraped},
};

pub use self::exposition::{MAX_SERIES, read as read_exposition};

/// The largest answer that is read.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Its slot, from 0, without gaps.
    pub slot: usize,
    /// Where it is.
    pub address: IpAddr,
}

/// Why probes cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Readings are by slot, so each needs a target.
    #[error("probes need a target in each slot from 0 to {last}, and there is none in {missing}")]
    Slots {
        /// The last slot.
        last: usize,
        /// One that has no target.
        missing: usize,
    },
    /// Probes are tasks of tokio.
    #[error("probes were started outside of a runtime")]
    NoRuntime,
    /// More connections and programs at once than this process may have open.
    #[error(
        "if targets stop answering, the probes have {needed} connections and programs open at once, and this process may \
         have {most} files; lower rate or timeout, or raise the limit (ulimit -Hn)"
    )]
    Files {
        /// At once, at most.
        needed: u64,
        /// What the system allows.
        most: u64,
    },
    /// The system said no.
    #[error("probes cannot be made ready: {0}")]
    Io(#[from] io::Error),
}

/// What came of a request: what a page said (nothing, if it is no page), or why the answer is bad.
type Answer = Result<BTreeMap<String, Scraped>, String>;

/// Probes under way. Dropping it ends them, and every request with them.
#[must_use = "the probes end when this is dropped"]
#[derive(Debug)]
pub struct Prober {
    /// By slot, then by probe.
    tallies: Vec<Vec<Arc<Tally>>>,
    drivers: Vec<AbortHandle>,
}

impl Prober {
    /// Begins to ask. The first request of each probe is due at once. Must be called within a runtime.
    pub fn start(probes: &[Probe], targets: &[ProbeTarget]) -> Result<Self, ProbeError> {
        let runtime = Handle::try_current().map_err(|_| ProbeError::NoRuntime)?;
        let targets = by_slot(targets)?;
        allow_files(probes.iter().map(Probe::most_under_way).sum::<usize>() * targets.len())?;
        let tally = |probe: &Probe| Arc::new(Tally::new(probe.timeout, probe.most_under_way()));
        let tallies: Vec<Vec<_>> = targets.iter().map(|_| probes.iter().map(tally).collect()).collect();
        let alarms = probes.iter().map(|_| Alarm::fine()).collect::<io::Result<Vec<_>>>()?;
        let start = Instant::now();
        let mut prober = Self { tallies, drivers: Vec::new() };
        for (i, (probe, alarm)) in probes.iter().zip(alarms).enumerate() {
            let pace = Pace { start, every: probe.every, timeout: probe.timeout };
            let tallies = prober.tallies.iter().map(|slot| slot[i].clone()).collect();
            let askers: Vec<_> =
                targets.iter().map(|target| Arc::new(Asker::new(probe, target.address))).collect();
            let ask = move |target: usize| {
                let asker = askers[target].clone();
                async move { asker.ask().await }
            };
            prober.drivers.push(runtime.spawn(drive(pace, tallies, alarm, ask)).abort_handle());
        }
        Ok(prober)
    }

    /// What was seen so far, by slot and then by probe. It waits for nothing.
    pub fn readings(&self) -> Vec<Vec<ProbeReading>> {
        self.each(Tally::reading)
    }

    /// Why the last bad answer was one, by slot and then by probe; such as `connection refused`.
    pub fn diagnoses(&self) -> Vec<Vec<Option<String>>> {
        self.each(Tally::diagnosis)
    }

    fn each<T>(&self, what: impl Fn(&Tally) -> T) -> Vec<Vec<T>> {
        self.tallies.iter().map(|slot| slot.iter().map(|tally| what(tally)).collect()).collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.drivers.iter().for_each(AbortHandle::abort);
    }
}

/// Raises what this process may have open, as far as it may raise it. Where a connection could not be opened for want of
/// that, a target would seem to have failed.
fn allow_files(under_way: usize) -> Result<(), ProbeError> {
    /// What everything else needs.
    const OTHERS: u64 = 512;
    let needed = under_way as u64;
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from)?;
    match needed.saturating_add(OTHERS) {
        enough if enough <= now => Ok(()),
        more if more <= most => {
            setrlimit(Resource::RLIMIT_NOFILE, more, most).map_err(|e| io::Error::from(e).into())
        }
        _ => Err(ProbeError::Files { needed, most }),
    }
}

fn by_slot(targets: &[ProbeTarget]) -> Result<Vec<ProbeTarget>, ProbeError> {
    let mut targets = targets.to_vec();
    targets.sort_by_key(|target| target.slot);
    let last = targets.last().map_or(0, |target| target.slot);
    match (0..).zip(&targets).find(|(slot, target)| *slot != target.slot) {
        Some((missing, _)) => Err(ProbeError::Slots { last, missing }),
        None => Ok(targets),
    }
}

/// Asks one target for one probe.
#[derive(Debug)]
enum Asker {
    Http(http::Client),
    Page(http::Client, crate::experiment::probe::Scrape),
    Tcp(SocketAddr),
    Exec(exec::Program),
}

impl Asker {
    fn new(probe: &Probe, address: IpAddr) -> Self {
        match &probe.ask {
            Ask::Http(ask) => Self::Http(http::Client::new(ask, address)),
            Ask::Prometheus(scrape) => {
                Self::Page(http::Client::for_page(&scrape.url, address), scrape.clone())
            }
            Ask::Tcp { port } => Self::Tcp(SocketAddr::new(address, *port)),
            Ask::Exec(command) => Self::Exec(exec::Program::new(command, address)),
        }
    }

    async fn ask(&self) -> Answer {
        match self {
            Self::Http(client) => client.ask().await.map(|_| BTreeMap::new()),
            Self::Page(client, scrape) => {
                let page = client.ask().await?;
                read_exposition(&String::from_utf8_lossy(&page), &scrape.series)
            }
            Self::Tcp(address) => tcp::connect(*address).await.map(|()| BTreeMap::new()),
            Self::Exec(program) => program.run().await.map(|()| BTreeMap::new()),
        }
    }
}

/// An error of the system in as few words as say it.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        // Its own words are `uncategorized error` and the like.
        _ if error.raw_os_error().is_none() => error.to_string(),
        io::ErrorKind::Other => error.to_string(),
        kind => {
            let text = kind.to_string();
            if text.contains("uncategorized") { error.to_string() } else { text }
        }
    }
}
