//! Starts agents, hears them, and waits.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg, send,
    socketpair,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::store;

const SOCKET: &str = "LAZYLAYER_KEEPER";
const HELD: &str = "LAZYLAYER_HELD";
const BESIDE: &str = "LAZYLAYER_BESIDE";
const STORE: &str = "LAZYLAYER_STORE";
const PASSED_ON: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// A verb and a path of PATH_MAX bytes fit many times; of a message that is longer nothing is taken.
const MESSAGE_MAX: usize = 64 << 10;
/// Descriptors in a message.
const DESCRIPTORS_MAX: usize = 8;

pub fn code(status: ExitStatus) -> u8 {
    let signalled = status.signal().map(|signal| 128 + signal);
    u8::try_from(status.code().or(signalled).unwrap_or(1)).unwrap_or(1)
}

pub struct Runner {
    command: Vec<OsString>,
    /// Whether what is held outlives the keeper.
    stores: bool,
    signals: File,
    /// The signal mask that the keeper was started with.
    mask: libc::sigset_t,
}

impl Runner {
    pub fn new(command: &[OsString], stores: bool) -> io::Result<Self> {
        let (signals, mask) = signals()?;
        Ok(Self { command: command.to_vec(), stores, signals, mask })
    }

    /// @param held what it inherits
    pub fn start(&self, held: &[OwnedFd], beside: bool) -> io::Result<Agent> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // neither end is to wait for the other
        for end in [&ours, &theirs] {
            fcntl_setfl(end, OFlags::NONBLOCK)?;
        }
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env(SOCKET, theirs.as_raw_fd().to_string()).env_remove(HELD).env_remove(BESIDE);
        if !held.is_empty() {
            let numbers: Vec<_> = held.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
            command.env(HELD, numbers.join(","));
        }
        for variable in store::variables() {
            command.env_remove(variable);
        }
        if self.stores {
            command.env(STORE, "1");
        }
        if beside {
            command.env(BESIDE, "1");
        }
        let inherited: Vec<RawFd> = held.iter().map(AsRawFd::as_raw_fd).chain([theirs.as_raw_fd()]).collect();
        let mask = self.mask;
        let prepare = move || {
            // SAFETY: a system call on a copy of a local, and more on numbers that are open.
            unsafe {
                check(libc::sigprocmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut()))?;
                for &fd in &inherited {
                    check(libc::fcntl(fd, libc::F_SETFD, 0))?;
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec there are system calls alone, and no allocation.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn()?;
        Ok(Agent {
            child,
            socket: Some(ours),
            records: VecDeque::new(),
            ready_at: None,
            heard_at: Instant::now(),
            killed_at: None,
            kill_at: None,
        })
    }

    /// Until a signal comes, one of the agents says something, or it is time.
    pub fn wait(&self, agents: &[Option<&Agent>], until: Option<Instant>) -> io::Result<()> {
        let mut wait = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let sockets = agents.iter().flatten().filter_map(|agent| agent.socket.as_ref());
        wait.extend(sockets.map(|socket| PollFd::new(socket, PollFlags::IN)));
        // a millisecond later than that, never sooner
        let left = until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        match poll(&mut wait, left.map(|left| left.try_into().unwrap_or_default()).as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next that came, and whether the kernel made it.
    pub fn signal(&self) -> io::Result<Option<(u32, bool)>> {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        match (&self.signals).read(&mut bytes) {
            Ok(length) if length == bytes.len() => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => return Ok(None),
        }
        // SAFETY: the structure is plain numbers, and the kernel fills all of it.
        let info = unsafe { std::mem::transmute::<[u8; size_of::<libc::signalfd_siginfo>()], libc::signalfd_siginfo>(bytes) };
        Ok(Some((info.ssi_signo, info.ssi_code == libc::SI_KERNEL)))
    }
}

pub struct Agent {
    child: Child,
    /// None: it has closed its end.
    socket: Option<OwnedFd>,
    records: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    ready_at: Option<Instant>,
    heard_at: Instant,
    killed_at: Option<Instant>,
    /// When its time is over.
    pub kill_at: Option<Instant>,
}

impl Agent {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next thing that it said, if there is one.
    pub fn next(&mut self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Some(record);
            }
            let (message, descriptors) = self.receive()?;
            // what has no NUL behind it is not whole
            let mut records: Vec<_> =
                message.split_inclusive(|&byte| byte == 0).filter_map(|each| each.strip_suffix(&[0])).collect();
            let last = records.pop();
            self.records.extend(records.into_iter().map(|record| (record.to_vec(), Vec::new())));
            self.records.extend(last.map(|record| (record.to_vec(), descriptors)));
        }
    }

    fn receive(&mut self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let socket = self.socket.as_ref()?;
        let mut message = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(socket, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                received => break received,
            }
        };
        let length = match received {
            Ok(received) if received.bytes > 0 => received.bytes,
            Err(Errno::AGAIN) => return None,
            _ => {
                self.socket = None;
                return None;
            }
        };
        message.truncate(length);
        let descriptors = control
            .drain()
            .flat_map(|each| match each {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
                _ => Vec::new(),
            })
            .collect();
        Some((message, descriptors))
    }

    /// What one that does not listen misses is its own loss.
    pub fn tell(&mut self, what: &str) {
        if let Some(socket) = &self.socket {
            let _ = send(socket, format!("{what}\0").as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }

    /// How, if it has; it is reaped then.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub fn is_ready(&self) -> bool {
        self.ready_at.is_some()
    }

    pub fn ready(&mut self) {
        let now = Instant::now();
        self.ready_at = Some(now);
        self.heard_at = now;
    }

    pub fn beat(&mut self) {
        self.heard_at = Instant::now();
    }

    /// When it has been silent for too long; one that is not ready may be.
    pub fn silent_at(&self, beat: Duration) -> Option<Instant> {
        self.ready_at.map(|_| self.heard_at + beat)
    }

    /// When one that was killed should long have been gone.
    pub fn stuck_at(&self, after: Duration) -> Option<Instant> {
        self.killed_at.map(|at| at + after)
    }

    pub fn was_steady(&self, steady: Duration) -> bool {
        self.ready_at.is_some_and(|at| at.elapsed() >= steady)
    }

    /// It is not reaped yet, so the number is still its own.
    pub fn send(&self, signal: u32) -> io::Result<()> {
        let signal = i32::try_from(signal).ok().and_then(Signal::from_named_raw).ok_or(Errno::INVAL)?;
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Its end comes as any other.
    pub fn kill(&mut self) {
        self.ready_at = None;
        self.kill_at = None;
        self.killed_at = Some(Instant::now());
        let _ = self.child.kill(); // it may be gone
    }

    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that becomes readable with every signal of ours, which are blocked from now on, and the mask as it was before.
fn signals() -> io::Result<(File, libc::sigset_t)> {
    // SAFETY: an all-zero sigset_t is a valid value to fill, and every pointer is to these locals.
    let (fd, before) = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in PASSED_ON.into_iter().chain([libc::SIGCHLD]) {
            libc::sigaddset(&mut set, signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, &mut before))?;
        (check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?, before)
    };
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok((unsafe { File::from_raw_fd(fd) }, before))
}
