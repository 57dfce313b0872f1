//! Ending early: Ctrl-C, SIGTERM (which is what `kchaos stop` sends), SIGHUP (a closed terminal).

use std::io;

use procfs::process::Process;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::judge::verdict::AbortReason;

/// A request to stop, now or later.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Option<AbortReason>>);

impl Stop {
    /// Listens to signals from now on. Must be called within a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let ignored = ignored();
        for kind in kinds.into_iter().filter(|kind| ignored & (1 << (kind.as_raw_value() - 1)) == 0) {
            let (mut signals, sender) = (signal(kind)?, sender.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    // Nobody listens any more once the run is over.
                    let _ = sender.send(Some(AbortReason::Interrupted));
                }
            });
        }
        Ok(Self(receiver))
    }

    /// One that is asked for by hand.
    pub fn by_hand() -> (watch::Sender<Option<AbortReason>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Waits until stopping is asked for; for ever, if nobody can ask any more.
    pub async fn requested(&mut self) -> AbortReason {
        loop {
            if let Some(reason) = self.0.borrow_and_update().clone() {
                return reason;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The signals that whoever started us wants ignored, as `nohup` does with SIGHUP; bit 0 is signal 1.
fn ignored() -> u64 {
    Process::myself().and_then(|me| me.status()).map_or(0, |status| status.sigign)
}
