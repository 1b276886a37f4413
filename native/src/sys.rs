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

/// Gives the blocks below a part of a file back to the filesystem: it reads as zeros.
pub fn punch(fd: RawFd, offset: i64, length: i64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate takes any numbers; wrong ones are errors.
    check(unsafe { libc::fallocate(fd, mode, offset, length) })?;
    Ok(())
}

/// A file in memory that has no name in any directory.
pub fn memory_file(name: &str) -> io::Result<OwnedFd> {
    let name = text(name)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    made(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }.into())
}

/// Lets the kernel drop its cached pages of a part of a file; those that are dirty, locked or mapped stay.
pub fn drop_cached(fd: RawFd, offset: i64, length: i64) {
    // SAFETY: posix_fadvise takes any numbers; wrong ones are errors, and the advice is only that.
    unsafe { libc::posix_fadvise(fd, offset, length, libc::POSIX_FADV_DONTNEED) };
}

/// The effective user and group.
pub fn identity() -> (u32, u32) {
    // SAFETY: neither can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn made(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result as libc::c_int)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC.
const MOUNT_CLOEXEC: libc::c_uint = 1;

pub fn fsopen(kind: &str) -> io::Result<OwnedFd> {
    let kind = text(kind)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    made(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), MOUNT_CLOEXEC) })
}

/// `command` with a key and, for strings, a value; without, for commands that take none.
pub fn fsconfig(context: RawFd, command: u32, parameter: Option<(&str, Option<&str>)>) -> io::Result<()> {
    let key = parameter.map(|(key, _)| text(key)).transpose()?;
    let value = parameter.and_then(|(_, value)| value).map(text).transpose()?;
    let pointer = |of: &Option<CString>| of.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: strings that are null or NUL-terminated and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context, command, pointer(&key), pointer(&value), 0) };
    check(result as libc::c_int)?;
    Ok(())
}

pub fn fsmount(context: RawFd, attributes: u32) -> io::Result<OwnedFd> {
    // SAFETY: fsmount takes any numbers; wrong ones are errors.
    made(unsafe { libc::syscall(libc::SYS_fsmount, context, MOUNT_CLOEXEC, attributes) })
}

/// A copy of the mount at `dir`, from that directory on and without what is mounted below; attached nowhere.
pub fn clone_mount(dir: &str) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let dir = text(dir)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_SYMLINK_NOFOLLOW as libc::c_uint;
    // SAFETY: a NUL-terminated string that outlives the call.
    made(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, dir.as_ptr(), flags) })
}

/// Makes a mount read-only, nosuid, nodev and private.
pub fn make_read_only(mount: RawFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let empty = text("")?;
    // SAFETY: a NUL-terminated string and a structure of the size that is told; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result as libc::c_int)?;
    Ok(())
}

/// Attaches a mount that fsmount or `clone_mount` made.
pub fn move_mount(mount: RawFd, target: &str) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    let (empty, target) = (text("")?, text(target)?);
    // SAFETY: two NUL-terminated strings that outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, mount, empty.as_ptr(), libc::AT_FDCWD, target.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
    };
    check(result as libc::c_int)?;
    Ok(())
}

pub fn read(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one slice.
    let length = unsafe { libc::read(fd, into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

/// The descriptor that comes over a socket; none when the other end closes without sending one.
pub fn receive(socket: RawFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = [0_u64; 4]; // 24 bytes = 16 header + 4 descriptor + 4 padding; aligned as the header
    // SAFETY: an all-zero msghdr is a valid value to fill.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let received = loop {
        // SAFETY: the message points to locals that outlive the call, with their true lengths.
        let received = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if received >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break received;
        }
    };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the message is as the kernel left it: null, or the first header within `control`.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let Some(header) = header else { return Ok(None) };
    // SAFETY: the sum alone touches no memory.
    let length = unsafe { libc::CMSG_LEN(size_of::<RawFd>() as libc::c_uint) };
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) || header.cmsg_len < length as _ {
        return Ok(None);
    }
    // SAFETY: the header says that at least one descriptor follows it; the kernel made it for us alone.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()) }))
}
