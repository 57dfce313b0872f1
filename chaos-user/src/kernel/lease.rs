//! Renewing the lease, from a thread of its own: a busy run loop must not let a fault lapse, and a hung one
//! must not keep it alive. The same thread changes the rules that have a shape.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{Array, MapData, MapError};
use chaos_common::{
    Lease,
    lease::{LEASE_NS, RENEW_NS},
};

use super::{KernelError, clock::monotonic_ns, shaper::Shaper, wire::Wire};

type LeaseMap = Array<MapData, Wire<Lease>>;

/// The lease of one injection.
pub struct LeaseKeeper {
    /// Here while disarmed, with the thread while armed.
    maps: Option<Maps>,
    renewing: Option<Renewing>,
    /// While armed, the rules only count.
    dry: bool,
    /// When the run loop last gave a sign of life.
    beat_ns: Arc<AtomicU64>,
    view: LeaseView,
}

/// The same lease, for those of the controller's threads that do something themselves.
#[derive(Clone, Debug, Default)]
pub struct LeaseView(Arc<AtomicU64>);

impl LeaseView {
    /// Whether injecting is allowed.
    pub fn is_live(&self) -> bool {
        Lease { until_ns: self.0.load(Ordering::SeqCst) }.is_live(monotonic_ns())
    }

    fn set(&self, lease: Lease) {
        self.0.store(lease.until_ns, Ordering::SeqCst);
    }
}

/// What is written while armed.
struct Maps {
    lease: LeaseMap,
    /// The rules.
    shaper: Shaper,
    /// What others are told of the lease.
    view: LeaseView,
}

struct Renewing {
    stop: Sender<()>,
    thread: JoinHandle<(Maps, Result<(), MapError>)>,
}

impl LeaseKeeper {
    /// Takes charge of a lease, which is disarmed, and of the rules.
    pub fn new(lease: LeaseMap, shaper: Shaper) -> Self {
        let view = LeaseView::default();
        let maps = Maps { lease, shaper, view: view.clone() };
        Self { maps: Some(maps), renewing: None, dry: false, beat_ns: Arc::default(), view }
    }

    /// For those who do something themselves.
    pub fn view(&self) -> LeaseView {
        self.view.clone()
    }

    /// A sign of life from the run loop. Without one for as long as a lease lasts, it is not renewed.
    pub fn beat(&self) {
        self.beat_ns.store(monotonic_ns(), Ordering::Relaxed);
    }

    /// Arms until `end_ns` at the latest. Does nothing if armed already.
    pub fn arm(&mut self, end_ns: u64) -> Result<(), KernelError> {
        if self.dry {
            // Rules become what they are only while none of them may do anything: a program could read half of each.
            self.disarm()?;
        }
        self.start(end_ns, Maps::start)
    }

    /// Arms rules that only count, until `end_ns` at the latest. Does nothing if armed already, in whichever way.
    pub fn arm_dry(&mut self, end_ns: u64) -> Result<(), KernelError> {
        self.dry |= self.maps.is_some();
        self.start(end_ns, Maps::start_dry)
    }

    fn start(
        &mut self,
        end_ns: u64,
        start: fn(&mut Maps, u64) -> Result<(), MapError>,
    ) -> Result<(), KernelError> {
        let Some(mut maps) = self.maps.take() else { return Ok(()) };
        self.beat();
        // The first writes are made here, so that the fault is on when this returns, or an error is.
        let armed_ns = monotonic_ns();
        if let Err(error) = start(&mut maps, end_ns) {
            self.maps = Some(maps);
            return Err(KernelError::Lease(error.to_string()));
        }
        let (stop, stopped) = mpsc::channel();
        let beat_ns = Arc::clone(&self.beat_ns);
        let thread = thread::Builder::new().name("kchaos-lease".into()).spawn(move || {
            let result = maps.keep(armed_ns, end_ns, &stopped, &beat_ns);
            maps.view.set(Lease::DISARMED);
            let disarmed = maps.lease.set(0, Wire(Lease::DISARMED), 0);
            (maps, result.and(disarmed))
        });
        let thread = thread.map_err(KernelError::io("the lease's thread"))?;
        self.renewing = Some(Renewing { stop, thread });
        Ok(())
    }

    /// Disarms. An error means that the fault ends with its lease instead of now.
    pub fn disarm(&mut self) -> Result<(), KernelError> {
        self.dry = false;
        let Some(renewing) = self.renewing.take() else { return Ok(()) };
        // The thread may have ended by itself, at the run's end; then nobody hears this.
        let _ = renewing.stop.send(());
        let (maps, result) =
            renewing.thread.join().map_err(|_| KernelError::Lease("its thread panicked".into()))?;
        self.maps = Some(maps);
        result.map_err(|error| KernelError::Lease(error.to_string()))
    }
}

impl Maps {
    fn start(&mut self, end_ns: u64) -> Result<(), MapError> {
        self.shaper.start()?;
        renew(&mut self.lease, &self.view, end_ns)
    }

    fn start_dry(&mut self, end_ns: u64) -> Result<(), MapError> {
        self.shaper.start_dry()?;
        renew(&mut self.lease, &self.view, end_ns)
    }

    /// Renews the lease and changes the rules, until told to stop or the end has come.
    fn keep(
        &mut self,
        armed_ns: u64,
        end_ns: u64,
        stopped: &Receiver<()>,
        beat_ns: &AtomicU64,
    ) -> Result<(), MapError> {
        let mut renew_ns = armed_ns + RENEW_NS;
        loop {
            let change_ns = self.shaper.due().map(|due| after(armed_ns, due));
            let next_ns = change_ns.map_or(renew_ns, |change_ns| change_ns.min(renew_ns));
            let wait = Duration::from_nanos(next_ns.saturating_sub(monotonic_ns()));
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return Ok(()),
            }
            let now_ns = monotonic_ns();
            if now_ns >= end_ns {
                return Ok(());
            }
            if now_ns >= renew_ns {
                renew_ns = now_ns + RENEW_NS;
                if now_ns.saturating_sub(beat_ns.load(Ordering::Relaxed)) < LEASE_NS {
                    renew(&mut self.lease, &self.view, end_ns)?;
                }
            }
            self.shaper.write(Duration::from_nanos(now_ns.saturating_sub(armed_ns)))?;
        }
    }
}

fn after(armed_ns: u64, elapsed: Duration) -> u64 {
    armed_ns.saturating_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        // Whoever wanted to know has called disarm; the lease ends by itself all the same.
        let _ = self.disarm();
    }
}

fn renew(map: &mut LeaseMap, view: &LeaseView, end_ns: u64) -> Result<(), MapError> {
    let lease = Lease::renewed(monotonic_ns(), end_ns);
    map.set(0, Wire(lease), 0)?;
    view.set(lease);
    Ok(())
}
