//! Mounts: making, ending and examining them.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree};
use rustix::process::{getegid, geteuid};

use crate::wire::MAX_READ;
use crate::{helper, sys};

/// How long a mount may take to show that it is alive.
const STAT_TIMEOUT: Duration = Duration::from_secs(1);
const SUBTYPE: &str = "lazylayer";

pub fn open() -> io::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/fuse")?;
    Ok(device.into())
}

pub fn mount(
    fd: i32,
    dir: &str,
    fsname: &str,
    allow_other: bool,
    read_ahead: u64,
    context: Option<&str>,
    read_only: bool,
) -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let mut options = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions,max_read={MAX_READ}");
    if allow_other {
        options.push_str(",allow_other");
    }
    if let Some(context) = context {
        // SELinux takes the quotes off: a label's categories have commas between them
        if context.contains('"') {
            return Err(ErrorKind::InvalidInput.into());
        }
        options.push_str(&format!(",context=\"{context}\""));
    }
    // whoever made an image made its set-user-ID programs and devices; containers' overlays have flags of their own
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    flags.set(MountFlags::RDONLY, read_only);
    let options = CString::new(options)?;
    rustix::mount::mount(fsname, dir, format!("fuse.{SUBTYPE}"), flags, options.as_c_str())?;
    // before INIT is answered, so that it holds from the first read on; without the right to, the kernel's default stays
    set_read_ahead(dir, read_ahead / 1024);
    Ok(())
}

/// The same by fusermount3, for users who may not mount. @returns the descriptor of /dev/fuse that it opened.
pub fn mount_by_helper(dir: &str, fsname: &str, allow_other: bool, read_only: bool) -> io::Result<OwnedFd> {
    // it separates options by commas; nosuid, nodev, the user and the group it adds itself
    let fsname = fsname.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("fsname={fsname},subtype={SUBTYPE},default_permissions,max_read={MAX_READ}");
    if allow_other {
        options.push_str(",allow_other");
    }
    if read_only {
        options.push_str(",ro");
    }
    let (ours, its) = UnixStream::pair()?;
    ours.set_read_timeout(Some(helper::TIMEOUT))?;
    let child = helper::start(&["-o", &options, "--", dir], || Ok(Stdio::from(OwnedFd::from(its.try_clone()?))))?;
    drop(its); // else its end would not be seen
    let received = sys::receive(&ours);
    helper::finish(child)?;
    received?.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "fusermount3 handed nothing over"))
}

/// Mounts a directory on itself, read-only. What is mounted on it later appears where copies of this mount are, as it does for the mount
/// that it is cut out of, but not in that one as well: the two would be peers otherwise. Linux 5.12.
pub fn bind_read_only(dir: &str) -> io::Result<()> {
    // from that directory on and without what is mounted below; attached nowhere
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let copy = open_tree(CWD, dir, flags)?;
    sys::make_read_only(&copy)?;
    // on a shared mount the kernel makes it shared again, among copies of its own
    Ok(move_mount(copy, c"", CWD, dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// By fusermount3 where this user may not.
pub fn unmount(dir: &str, lazy: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(dir, flags).map_err(io::Error::from) {
        Err(refused) if refused.kind() == ErrorKind::PermissionDenied => match helper::unmount(OsStr::new(dir), lazy) {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(refused),
            tried => tried,
        },
        done => done,
    }
}

/// Whether stat says ENOTCONN; a mount that does not answer in time is not dead, but hung.
pub fn is_dead(dir: String) -> bool {
    let (send, receive) = mpsc::channel();
    // its own thread, because nothing else ends a stat of a hung server; it goes when the server answers or dies
    let spawned = thread::Builder::new().name("stat".into()).stack_size(64 << 10).spawn(move || {
        sys::block_signals();
        let dead = matches!(fs::metadata(dir), Err(error) if error.raw_os_error() == Some(libc::ENOTCONN));
        let _ = send.send(dead); // nobody listens any more after the timeout
    });
    spawned.is_ok() && receive.recv_timeout(STAT_TIMEOUT).unwrap_or(false)
}

/// Finds the device number by the mount table, without touching the mount.
pub fn set_read_ahead(dir: &str, kib: u64) -> bool {
    let Some(dir) = resolved(dir) else { return false };
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime …: the last mount on a directory is the one that is seen
    let device = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        (unescape(fields.nth(1)?) == dir).then_some(device)
    });
    device.is_some_and(|device| fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), kib.to_string()).is_ok())
}

/// The real path of a mount point: its parent's real path and its own name, so that the mount itself is not looked into.
fn resolved(dir: &str) -> Option<String> {
    let path = Path::new(dir);
    let Some(name) = path.file_name() else { return Some("/".into()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(parent.canonicalize().ok()?.join(name).to_str()?.to_owned())
}

/// Octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    let mut out = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

/// flock(2) without waiting.
pub fn try_lock(fd: i32, exclusive: bool) -> io::Result<bool> {
    let kind = if exclusive { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
    // the lock is that of all copies of the descriptor
    match flock(file(fd)?, kind) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends a lock of flock(2).
pub fn unlock(fd: i32) -> io::Result<()> {
    Ok(flock(file(fd)?, FlockOperation::Unlock)?)
}

/// A copy of the caller's descriptor as a file.
pub fn file(fd: i32) -> io::Result<File> {
    sys::duplicate(fd).map(File::from)
}
