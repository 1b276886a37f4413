//! EROFS in the kernel over a device that FUSE serves: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), because the devices of
//! many layers overflow the page that mount(2) passes its options in.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sys;

// include/uapi/linux/mount.h
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const MOUNT_ATTR_RDONLY: u32 = 0x1;
const MOUNT_ATTR_NOSUID: u32 = 0x2;
const MOUNT_ATTR_NODEV: u32 = 0x4;

/// Mounts the image behind `image` (verified by the caller, who keeps it open meanwhile) on `target`; `devices` are the paths of
/// its device slots, in order. An error carries what the kernel logged.
pub fn mount(image: i32, devices: &[String], target: &str, context: Option<&str>) -> io::Result<()> {
    let context_fd = sys::fsopen("erofs")?;
    configure(&context_fd, image, devices, context).map_err(|error| explained(&context_fd, error))?;
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
    let mount = sys::fsmount(context_fd.as_raw_fd(), attributes).map_err(|error| explained(&context_fd, error))?;
    sys::move_mount(mount.as_raw_fd(), target)
}

fn configure(context_fd: &OwnedFd, image: i32, devices: &[String], context: Option<&str>) -> io::Result<()> {
    let set = |key: &str, value: &str| sys::fsconfig(context_fd.as_raw_fd(), FSCONFIG_SET_STRING, Some((key, Some(value))));
    // by descriptor: the very file that was verified, whatever its name has come to mean
    set("source", &format!("/proc/self/fd/{image}"))?;
    for device in devices {
        set("device", device)?;
    }
    if let Some(context) = context {
        set("context", context)?;
    }
    sys::fsconfig(context_fd.as_raw_fd(), FSCONFIG_SET_FLAG, Some(("ro", None)))?;
    sys::fsconfig(context_fd.as_raw_fd(), FSCONFIG_CMD_CREATE, None)
}

/// The error with the messages that the kernel keeps in the context ("e erofs: …").
fn explained(context_fd: &OwnedFd, error: io::Error) -> io::Error {
    let mut log = Vec::new();
    let mut line = [0; 256];
    while let Ok(length) = sys::read(context_fd.as_raw_fd(), &mut line) {
        if length == 0 || log.len() > 8 {
            break;
        }
        log.push(String::from_utf8_lossy(&line[..length]).trim().to_owned());
    }
    if log.is_empty() { error } else { io::Error::new(error.kind(), format!("{error} ({})", log.join("; "))) }
}
