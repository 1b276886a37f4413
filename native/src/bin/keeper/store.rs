//! What systemd is told (sd_notify(3)): that the agent is ready, that the keeper lives, and what its descriptor store is to hold: that
//! outlives the keeper, too, and is handed to the next one.

use std::env;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendmsg_addr,
    socket_with,
};

/// What they are called there, with a number behind it.
const NAME: &str = "lazylayer-";
/// As many as a message of an agent has.
const DESCRIPTORS_MAX: usize = 8;
/// The first that systemd hands over (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// Where systemd hears of us, if there is one.
pub struct Store {
    address: Option<SocketAddrUnix>,
    /// It ends a keeper of which it hears nothing for twice as long (WatchdogSec=), and when it is to hear of this one.
    watchdog: Option<(Duration, Instant)>,
}

impl Store {
    pub fn of_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|path| match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name).ok(),
            path => SocketAddrUnix::new(path).ok(),
        });
        // WATCHDOG_PID may be the launcher's, which waits for this program where its Node cannot become it
        let limit = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).filter(|&limit| limit > 0);
        let watchdog = limit.map(|limit| (Duration::from_micros(limit) / 2, Instant::now()));
        Self { address, watchdog }
    }

    pub fn is_there(&self) -> bool {
        self.address.is_some()
    }

    /// What it does not hear it finds out.
    pub fn say(&self, state: &str) {
        let _ = self.tell(state, None);
    }

    /// When it is to hear that the keeper lives.
    pub fn due(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }

    pub fn live(&mut self) {
        let now = Instant::now();
        if let Some((every, due)) = &mut self.watchdog
            && *due <= now
        {
            *due = now + *every;
            self.say("WATCHDOG=1");
        }
    }

    /// In place of what was in it.
    pub fn keep(&self, held: &[OwnedFd]) -> io::Result<()> {
        self.forget()?;
        for (number, fd) in held.iter().enumerate() {
            // it would look at them, and a connection that waits for an agent is as it should be
            self.tell(&format!("FDSTORE=1\nFDNAME={NAME}{number}\nFDPOLL=0"), Some(fd.as_fd()))?;
        }
        Ok(())
    }

    pub fn forget(&self) -> io::Result<()> {
        (0..DESCRIPTORS_MAX).try_for_each(|number| self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={NAME}{number}"), None))
    }

    fn tell(&self, message: &str, fd: Option<BorrowedFd>) -> io::Result<()> {
        let Some(address) = &self.address else { return Ok(()) };
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let borrowed = fd.as_slice();
        if !borrowed.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(borrowed));
        }
        sendmsg_addr(socket, address, &[IoSlice::new(message.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// What a keeper before this one left in the store; in the order in which it was held.
pub fn handed_over() -> Vec<OwnedFd> {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(64) as RawFd;
    let names = env::var_os("LISTEN_FDNAMES").unwrap_or_default();
    let mut found: Vec<(u32, OwnedFd)> = Vec::new();
    for (fd, name) in (FIRST..FIRST + count).zip(names.to_string_lossy().split(':')) {
        // SAFETY: systemd opened it for this process alone, which takes each once.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let place = name.strip_prefix(NAME).and_then(|place| place.parse().ok());
        // one that is not open is none; what is no keeper's is closed
        if fcntl_setfd(&fd, FdFlags::CLOEXEC).is_err() {
            std::mem::forget(fd);
        } else if let Some(place) = place {
            found.push((place, fd));
        }
    }
    found.sort_by_key(|(place, _)| *place);
    let is_whole = found.iter().enumerate().all(|(at, (place, _))| at as u32 == *place);
    if is_whole { found.into_iter().map(|(_, fd)| fd).collect() } else { Vec::new() }
}

/// What the agent need not see.
pub fn variables() -> [OsString; 5] {
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"].map(OsString::from)
}
