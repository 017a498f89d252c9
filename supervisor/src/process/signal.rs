//! A process that may be signalled and watched without fear of a reused number: a pidfd.

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One process, for as long as anybody cares. Clones name the same process.
#[derive(Clone, Debug)]
pub struct Handle {
    fd: Arc<OwnedFd>,
    pid: u32,
}

/// The descriptor as the event loop wants it.
struct Watched(Arc<OwnedFd>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Handle {
    /// The process that has this number at this moment. The caller knows that it is the right one: it is its unreaped
    /// child, or it proves it afterwards (see [`super::adopt`]).
    ///
    /// # Errors
    /// When there is no such process, or the kernel is older than 5.10.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no process has this number"))?;
        let fd = Arc::new(pidfd_open(number, PidfdFlags::NONBLOCK)?);
        Ok(Self { fd, pid })
    }

    /// Its number, for people and for the sampling of memory; never to be signalled.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGTERM, and SIGCONT so that a stopped process can obey. `Ok(false)`: it had already gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn terminate(&self) -> io::Result<bool> {
        Ok(self.send(Signal::TERM)? && self.send(Signal::CONT)?)
    }

    /// SIGKILL. `Ok(false)`: it had already gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<bool> {
        self.send(Signal::KILL)
    }

    /// SIGSTOP: it stays as it is until [`Self::resume`]. `Ok(false)`: it had already gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stop(&self) -> io::Result<bool> {
        self.send(Signal::STOP)
    }

    /// SIGCONT. `Ok(false)`: it had already gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self) -> io::Result<bool> {
        self.send(Signal::CONT)
    }

    fn send(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(self.fd.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Resolves when the process has ended.
    ///
    /// # Errors
    /// When the event loop cannot watch it.
    pub async fn gone(&self) -> io::Result<()> {
        let watched = Watched(Arc::clone(&self.fd));
        #[expect(unsafe_code, reason = "tokio asks for a promise that the type cannot make")]
        // SAFETY: `Watched` owns the descriptor that it names, so that it stays open, and the same, until the
        // registration is dropped together with it.
        let watched = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }?;
        watched.readable().await.map(drop)
    }

    /// How it ended, if it has and is our child; nobody else may wait for it. It is reaped by this.
    pub fn reap(&self) -> Option<ExitStatus> {
        let ended = waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        let code = ended.exit_status().map(|code| (code & 0xff) << 8);
        let signal = ended.terminating_signal();
        code.or(signal).map(ExitStatus::from_raw)
    }

    /// The descriptor, for questions to the kernel.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}
