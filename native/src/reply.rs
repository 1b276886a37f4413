//! The connection to the kernel, and the right to answer one request of it. A reply that is dropped is EIO, never a hang.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::waits::Waits;
use crate::wire;

#[derive(Default)]
pub struct Counters {
    pub served: AtomicU64,
    pub reads: AtomicU64,
    pub missed: AtomicU64,
    pub lookups: AtomicU64,
    pub expired: AtomicU64,
    pub failed: AtomicU64,
    pub refused: AtomicU64,
    /// READs that wait for a chunk now.
    pub waiting: AtomicU64,
    /// How long those took that had to wait.
    pub waits: Waits,
}

/// /dev/fuse, mounted.
pub struct Connection {
    device: File,
    pub counters: Counters,
}

impl Connection {
    pub fn new(device: File) -> Self {
        Self { device, counters: Counters::default() }
    }

    /// Waits for a request; its length.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.device).read(into)
    }

    fn send(&self, unique: u64, error: i32, body: &[u8]) -> io::Result<()> {
        let header = wire::out_header(body.len(), error, unique);
        (&self.device).write_vectored(&[IoSlice::new(&header), IoSlice::new(body)]).map(|_| ()) // the kernel takes an answer whole or not at all
    }

    /// Tells the kernel something that it did not ask for; ENOENT (it does not know the node) is as good as done.
    pub fn notify(&self, code: i32, body: &[u8]) -> io::Result<()> {
        self.send(0, code, body)
    }
}

/// One request, to be answered once.
pub struct Reply {
    connection: Arc<Connection>,
    unique: u64,
    /// Counts as a READ.
    read: bool,
    /// Since when it waits.
    waits_since: Option<Instant>,
    answered: bool,
}

impl Reply {
    pub fn new(connection: &Arc<Connection>, unique: u64, read: bool) -> Self {
        Self { connection: Arc::clone(connection), unique, read, waits_since: None, answered: false }
    }

    pub fn unique(&self) -> u64 {
        self.unique
    }

    pub fn counters(&self) -> &Counters {
        &self.connection.counters
    }

    /// It has to wait. What need not is not timed.
    pub fn begin_wait(&mut self) {
        self.waits_since = Some(Instant::now());
        self.counters().waiting.fetch_add(1, Relaxed);
    }

    fn end_wait(&mut self) {
        if let Some(since) = self.waits_since.take() {
            self.counters().waiting.fetch_sub(1, Relaxed);
            self.counters().waits.note(since.elapsed());
        }
    }

    pub fn bytes(mut self, body: &[u8]) {
        self.answered = true;
        self.end_wait();
        if self.read {
            self.counters().served.fetch_add(body.len() as u64, Relaxed);
        }
        if let Err(error) = self.connection.send(self.unique, 0, body) {
            // ENOENT: its process is gone; ENODEV: the mount is. Of anything else the kernel has taken nothing and goes on waiting
            if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) {
                self.refuse(libc::EIO);
            }
        }
    }

    pub fn error(mut self, errno: i32) {
        self.refuse(errno);
    }

    /// For requests that have no answer (FORGET, INTERRUPT).
    pub fn none(mut self) {
        self.answered = true;
    }

    fn refuse(&mut self, errno: i32) {
        self.answered = true;
        self.end_wait();
        // one that its own process gave up has not failed
        if self.read && errno != libc::EINTR {
            self.counters().failed.fetch_add(1, Relaxed);
        }
        // the kernel knows errnos 1 … 511 only and would refuse the answer
        let errno = if (1..512).contains(&errno) { errno } else { libc::EIO };
        // a failure here means that there is nobody to answer to any more
        let _ = self.connection.send(self.unique, -errno, &[]);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.refuse(libc::EIO);
        }
    }
}
