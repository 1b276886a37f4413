//! What rustix has no safe face for. With `map`, the only hand-written unsafe code of the addon.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The caller's descriptor, for a call or two.
fn borrow<'fd>(fd: RawFd) -> io::Result<BorrowedFd<'fd>> {
    if fd < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: not -1, and it is the contract of `src/mount/native.ts` that it is open; of one that is not the kernel says EBADF.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A close-on-exec copy of the caller's descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(borrow(fd)?, 0)?)
}

/// Has the caller's descriptor stay open over an execve.
pub fn keep_open(fd: RawFd) -> io::Result<()> {
    Ok(fcntl_setfd(borrow(fd)?, FdFlags::empty())?)
}

/// Takes over the caller's descriptor, which must be open and is the caller's no more.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    fcntl_getfd(borrow(fd)?)?;
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

/// Whether nobody but the open file behind `fd`, which is open for writing, has that file open, the kernel's mounts included: then alone a
/// write lease is granted. It is given back at once.
pub fn is_only_opener(fd: RawFd) -> bool {
    // SAFETY: fcntl takes any number; a wrong one is EBADF.
    let granted = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) } == 0;
    if granted {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    }
    granted
}

/// The same on every machine, since system calls of all of them are numbered together.
const SYS_CACHESTAT: libc::c_long = 451;

/// How many pages of `length` bytes from `from` on of an open file the kernel has in its cache (cachestat(2), Linux 6.5).
pub fn cached_pages(file: impl AsFd, from: u64, length: u64) -> io::Result<u64> {
    let range = [from, length];
    let mut found = [0_u64; 5]; // cached, dirty, in writeback, evicted, recently evicted
    // SAFETY: two numbers are read and five are written, as the call's structures are; both outlive it.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_fd().as_raw_fd(), range.as_ptr(), found.as_mut_ptr(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(found[0]) }
}

/// Makes a mount read-only, nosuid, nodev and private.
pub fn make_read_only(mount: impl AsFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: a NUL-terminated string and a structure of the size that is told; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Descriptors that one message takes.
pub const SENT_MAX: usize = 8;

/// Sends copies of the caller's descriptors over a socket of the caller's, with a message; never waits.
pub fn send(socket: RawFd, message: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let borrowed = descriptors.iter().map(|&fd| borrow(fd)).collect::<io::Result<Vec<_>>>()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SENT_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if borrowed.len() > SENT_MAX || !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::INVAL.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry_on_intr(|| sendmsg(borrow(socket).map_err(|_| Errno::BADF)?, &[IoSlice::new(message)], &mut control, flags))?;
    Ok(())
}

/// The descriptor that comes over a socket; none when the other end closes without sending one.
pub fn receive(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}
