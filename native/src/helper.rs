//! fusermount3, the setuid program that mounts and unmounts FUSE for users who may not do it themselves.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// That of libfuse 3, then that of libfuse 2, which understands the same.
const NAMES: [&str; 2] = ["fusermount3", "fusermount"];
/// It makes a handful of system calls; one that takes longer hangs.
pub const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);
/// Of what it complains about, as much as is printed.
const COMPLAINT_MAX: u64 = 1000;

/// Starts it with `stdin`, which it is told to hand descriptors over by.
pub fn start<S: AsRef<OsStr>>(arguments: &[S], stdin: impl Fn() -> io::Result<Stdio>) -> io::Result<Child> {
    for name in NAMES {
        let mut command = Command::new(name);
        command.args(arguments).env("_FUSE_COMMFD", "0").env("LC_ALL", "C");
        command.stdin(stdin()?).stdout(Stdio::null()).stderr(Stdio::piped());
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            spawned => return spawned,
        }
    }
    Err(io::Error::new(ErrorKind::NotFound, "fusermount3 is not installed"))
}

/// Waits for its end. The error is what it complained about.
pub fn finish(mut child: Child) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(POLL),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(ErrorKind::TimedOut, "fusermount3 did not end"));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut complaint = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(COMPLAINT_MAX).read_to_end(&mut complaint)?;
    }
    let complaint = String::from_utf8_lossy(&complaint).trim().replace('\n', "; ");
    Err(io::Error::new(kind(&complaint), if complaint.is_empty() { format!("fusermount3: {status}") } else { complaint }))
}

/// It says what went wrong in words only.
fn kind(complaint: &str) -> ErrorKind {
    if complaint.contains("busy") {
        ErrorKind::ResourceBusy
    } else if complaint.contains("not found in") {
        ErrorKind::InvalidInput // as umount2(2): no mount point
    } else {
        ErrorKind::PermissionDenied
    }
}

/// Unmounts what this user mounted.
pub fn unmount(dir: &OsStr, lazy: bool) -> io::Result<()> {
    let flags = if lazy { "-uz" } else { "-u" };
    finish(start(&[OsStr::new(flags), OsStr::new("--"), dir], || Ok(Stdio::null()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the error of a program that says `complaint` is.
    fn complaining(complaint: &str) -> io::Error {
        let mut command = Command::new("sh");
        command.args(["-c", "echo \"$1\" >&2; exit 1", "sh", complaint]).stderr(Stdio::piped());
        finish(command.spawn().unwrap()).unwrap_err()
    }

    #[test]
    fn complaints_become_kinds_and_keep_their_words() {
        let busy = complaining("fusermount3: failed to unmount /mnt: Device or resource busy");
        assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
        assert_eq!(complaining("fusermount3: entry for /mnt not found in /etc/mtab").kind(), ErrorKind::InvalidInput);
        let refused = complaining("fusermount3: user has no write access to mountpoint /mnt");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert_eq!(refused.to_string(), "fusermount3: user has no write access to mountpoint /mnt");
        assert!(complaining("").to_string().contains("exit status: 1"));
    }

    #[test]
    fn success_is_no_complaint() {
        finish(Command::new("true").spawn().unwrap()).unwrap();
    }
}
