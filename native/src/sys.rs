//! The system calls that std has no safe face for. With `map`, the only hand-written unsafe code of the addon.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn text(of: &str) -> io::Result<CString> {
    CString::new(of).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A close-on-exec copy of the caller's descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number; a wrong one is EBADF.
    let copy = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Takes over the caller's descriptor, which must be open and is the caller's no more.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number; a wrong one is EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: it is open, and the contract of `SessionOptions.fuseFd` hands it over.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Leaves every signal to the threads of Node.
pub fn block_signals() {
    // SAFETY: an all-zero sigset_t is a valid value to fill; both pointers are to locals.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, ptr::null_mut());
    }
}

pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (source, target, kind, options) = (text(source)?, text(target)?, text(kind)?, text(options)?);
    // SAFETY: four NUL-terminated strings that outlive the call.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) })?;
    Ok(())
}

pub fn unmount(target: &str, flags: libc::c_int) -> io::Result<()> {
    let target = text(target)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) })?;
    Ok(())
}

pub fn lock(fd: RawFd, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: flock takes any number; a wrong one is EBADF.
    check(unsafe { libc::flock(fd, operation) })?;
    Ok(())
}

/// The effective user and group.
pub fn identity() -> (u32, u32) {
    // SAFETY: neither can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}
