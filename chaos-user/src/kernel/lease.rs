//! Renewing the lease, from a thread of its own: a busy run loop must not let a fault lapse, and a hung one
//! must not keep it alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{Array, MapData, MapError};
use chaos_common::{
    Lease,
    lease::{LEASE_NS, RENEW_NS},
};

use super::{KernelError, clock::monotonic_ns, wire::Wire};

type LeaseMap = Array<MapData, Wire<Lease>>;

/// The lease of one injection.
pub struct LeaseKeeper {
    /// Here while disarmed, with the thread while armed.
    map: Option<LeaseMap>,
    renewing: Option<Renewing>,
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

struct Renewing {
    stop: Sender<()>,
    thread: JoinHandle<(LeaseMap, Result<(), MapError>)>,
}

impl LeaseKeeper {
    /// Takes charge of a lease, which is disarmed.
    pub fn new(map: LeaseMap) -> Self {
        Self { map: Some(map), renewing: None, beat_ns: Arc::default(), view: LeaseView::default() }
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
        let Some(mut map) = self.map.take() else { return Ok(()) };
        self.beat();
        // The first write is made here, so that the fault is on when this returns, or an error is.
        if let Err(error) = renew(&mut map, &self.view, end_ns) {
            self.map = Some(map);
            return Err(KernelError::Lease(error.to_string()));
        }
        let (stop, stopped) = mpsc::channel();
        let (beat_ns, view) = (Arc::clone(&self.beat_ns), self.view.clone());
        let thread = thread::Builder::new().name("kchaos-lease".into()).spawn(move || {
            let result = loop {
                match stopped.recv_timeout(Duration::from_nanos(RENEW_NS)) {
                    Err(RecvTimeoutError::Timeout) if monotonic_ns() < end_ns => {
                        let silent_ns = monotonic_ns().saturating_sub(beat_ns.load(Ordering::Relaxed));
                        if silent_ns < LEASE_NS
                            && let Err(error) = renew(&mut map, &view, end_ns)
                        {
                            break Err(error);
                        }
                    }
                    _ => break Ok(()),
                }
            };
            view.set(Lease::DISARMED);
            let disarmed = map.set(0, Wire(Lease::DISARMED), 0);
            (map, result.and(disarmed))
        });
        let thread = thread.map_err(KernelError::io("the lease's thread"))?;
        self.renewing = Some(Renewing { stop, thread });
        Ok(())
    }

    /// Disarms. An error means that the fault ends with its lease instead of now.
    pub fn disarm(&mut self) -> Result<(), KernelError> {
        let Some(renewing) = self.renewing.take() else { return Ok(()) };
        // The thread may have ended by itself, at the run's end; then nobody hears this.
        let _ = renewing.stop.send(());
        let (map, result) =
            renewing.thread.join().map_err(|_| KernelError::Lease("its thread panicked".into()))?;
        self.map = Some(map);
        result.map_err(|error| KernelError::Lease(error.to_string()))
    }
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
