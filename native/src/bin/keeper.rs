//! `lazylayer-keeper COMMAND ARGS…` runs an agent and detaches its mounts when it ends in any way, SIGKILL included.
//!
//! The agent inherits the write end of a pipe, whose number is in LAZYLAYER_KEEPER. It writes records, each with a NUL after it (paths
//! may hold anything else): `mount PATH` before it mounts on PATH, `unmount PATH` after it has unmounted; PATH is absolute and real, as
//! the kernel lists it. When the agent is gone, what is still listed and still a FUSE or EROFS mount is detached, last first, and the
//! keeper exits as the agent did (128 + signal).
//!
//! SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on, but not those that the kernel made (Ctrl-C, a hangup): a terminal sends them to
//! the whole process group, so the agent, which stays in it, has them already.
//!
//! Should the keeper be killed, the agent goes on: its writes fail with EPIPE from then on.
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]

#[path = "../helper.rs"]
mod helper;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

const VARIABLE: &str = "LAZYLAYER_KEEPER";
const PASSED_ON: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// A verb and a path of PATH_MAX bytes fit; a record that is longer ends the list.
const RECORD_MAX: usize = 8192;
/// Mounts that are remembered: more than a node has layers.
const MOUNTS_MAX: usize = 1 << 16;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        eprintln!("usage: lazylayer-keeper COMMAND ARGS…");
        return ExitCode::from(2);
    };
    match keep(command, rest) {
        Ok(status) => ExitCode::from(code(status)),
        Err(error) => {
            eprintln!("lazylayer-keeper: {}: {error}", command.to_string_lossy());
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let signalled = status.signal().map(|signal| 128 + signal);
    u8::try_from(status.code().or(signalled).unwrap_or(1)).unwrap_or(1)
}

fn keep(command: &OsStr, arguments: &[impl AsRef<OsStr>]) -> io::Result<ExitStatus> {
    let (signals, mask) = signals()?;
    let (records, agents) = pipe()?;
    let mut agents_command = Command::new(command);
    agents_command.args(arguments).env(VARIABLE, agents.as_raw_fd().to_string());
    let mut agent = spawn(agents_command, mask)?;
    drop(agents);
    let mut list = List::default();
    let mut open = true;
    let status = loop {
        let mut wait = [PollFd::new(&signals, PollFlags::IN), PollFd::new(&records, PollFlags::IN)];
        poll(&mut wait[..if open { 2 } else { 1 }], None)?;
        let [signalled, recorded] = wait.map(|each| !each.revents().is_empty());
        if recorded {
            open = list.read(&records);
        }
        if signalled {
            let signal = receive(&signals)?;
            // not those that the kernel made: the agent got its own
            if signal.ssi_signo != libc::SIGCHLD as u32 && signal.ssi_code != libc::SI_KERNEL {
                send(&agent, signal.ssi_signo)?;
            }
            if let Some(status) = agent.try_wait()? {
                break status;
            }
        }
    };
    while open && list.read(&records) {}
    // it could not say so itself
    if let Some(signal) = status.signal() {
        let mounts: Vec<_> = list.mounts.iter().map(|path| OsStr::from_bytes(path).to_string_lossy()).collect();
        let detached =
            if mounts.is_empty() { String::new() } else { format!("; what it mounted is detached: {}", mounts.join(", ")) };
        eprintln!("lazylayer-keeper: the agent was ended by signal {signal}{detached}");
    }
    list.detach();
    Ok(status)
}

/// The mounts that the agent told of.
#[derive(Default)]
struct List {
    mounts: Vec<Vec<u8>>,
    partial: Vec<u8>,
}

impl List {
    /// Takes what is in the pipe; false when there is nothing now, or nothing to come.
    fn read(&mut self, mut records: &File) -> bool {
        let mut bytes = [0; 4096];
        match records.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                for &byte in &bytes[..count] {
                    if byte == 0 {
                        let record = std::mem::take(&mut self.partial);
                        self.take(&record);
                    } else if self.partial.len() == RECORD_MAX {
                        eprintln!("lazylayer-keeper: a record is too long");
                        return false;
                    } else {
                        self.partial.push(byte);
                    }
                }
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    fn take(&mut self, record: &[u8]) {
        if let Some(path) = record.strip_prefix(b"mount ") {
            if self.mounts.len() < MOUNTS_MAX {
                self.mounts.push(path.to_owned());
            }
        } else if let Some(path) = record.strip_prefix(b"unmount ")
            && let Some(index) = self.mounts.iter().rposition(|mount| mount == path)
        {
            self.mounts.remove(index);
        }
    }

    fn detach(&self) {
        for path in self.mounts.iter().rev() {
            // looked at each time: a mount takes those below it along
            let listed = kind(path);
            if !listed.is_some_and(|kind| kind == "erofs" || kind == "fuse" || kind.starts_with("fuse.")) {
                continue;
            }
            if let Err(error) = detach(path) {
                eprintln!("lazylayer-keeper: detaching {}: {error}", OsStr::from_bytes(path).display());
            }
        }
    }
}

/// The type of the mount that is seen at a path, by the mount table: a stat could wait for an agent that is gone.
fn kind(path: &[u8]) -> Option<String> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let line = table.split(|&byte| byte == b'\n').rev().find(|line| {
        let point = line.split(|&byte| byte == b' ').nth(4);
        point.is_some_and(|point| unescape(point) == path)
    })?;
    let text = String::from_utf8_lossy(line);
    let (_, after) = text.split_once(" - ")?;
    after.split(' ').next().map(str::to_owned)
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'\\', &[a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    out
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
        (check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC))?, before)
    };
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok((unsafe { File::from_raw_fd(fd) }, before))
}

/// Starts the agent with the signal mask that the keeper was started with.
fn spawn(mut command: Command, mask: libc::sigset_t) -> io::Result<Child> {
    // SAFETY: between fork and exec there is one system call, on a copy of a local, and no allocation.
    unsafe { command.pre_exec(move || check(libc::sigprocmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut())).map(drop)) };
    command.spawn()
}

fn receive(mut signals: &File) -> io::Result<libc::signalfd_siginfo> {
    let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
    signals.read_exact(&mut bytes)?;
    // SAFETY: the structure is plain numbers, and the kernel fills all of it.
    Ok(unsafe { std::mem::transmute::<[u8; size_of::<libc::signalfd_siginfo>()], libc::signalfd_siginfo>(bytes) })
}

/// Our end does not block and is not inherited; the agent's is as it should find it.
fn pipe() -> io::Result<(File, OwnedFd)> {
    let (ours, agents) = rustix::pipe::pipe()?;
    fcntl_setfd(&ours, FdFlags::CLOEXEC)?;
    fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((File::from(ours), agents))
}

/// The agent is not reaped yet, so the number is still its own.
fn send(agent: &Child, signal: u32) -> io::Result<()> {
    let signal = i32::try_from(signal).ok().and_then(Signal::from_named_raw).ok_or(Errno::INVAL)?;
    Ok(kill_process(Pid::from_child(agent), signal)?)
}

/// By fusermount3 where this user may not.
fn detach(path: &[u8]) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM | Errno::ACCESS) => helper::unmount(OsStr::from_bytes(path), true),
        done => Ok(done?),
    }
}
