//! `--kernel-log`: what the kernel programs say, as they say it.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::{io::unix::AsyncFd, task::JoinHandle};

use super::KernelError;

/// Passes the kernel programs' log records on to the program's own log while it lives.
pub struct KernelLog(JoinHandle<()>);

impl KernelLog {
    /// Starts. Must be called within a tokio runtime.
    pub fn start(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let failed = |error: String| KernelError::io("--kernel-log")(std::io::Error::other(error));
        let logger = EbpfLogger::init(ebpf).map_err(|error| failed(error.to_string()))?;
        // SAFETY: the logger owns its ring buffer, whose descriptor stays the same and open while it lives.
        let readable = unsafe { AsyncFd::register(logger) };
        let mut readable = readable.map_err(|error| failed(error.to_string()))?;
        Ok(Self(tokio::spawn(async move {
            while let Ok(mut ready) = readable.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        })))
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        self.0.abort();
    }
}
