//! EROFS in the kernel over a device that FUSE serves: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), because the devices of
//! many layers overflow the page that mount(2) passes its options in.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, move_mount,
};

/// Mounts the image behind `image` (verified by the caller, who keeps it open meanwhile) on `target`; `devices` are the paths of
/// its device slots, in order. An error carries what the kernel logged.
pub fn mount(image: i32, devices: &[String], target: &str, context: Option<&str>) -> io::Result<()> {
    let context_fd = fsopen(c"erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    configure(&context_fd, image, devices, context).map_err(|error| explained(&context_fd, error.into()))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount =
        fsmount(&context_fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|error| explained(&context_fd, error.into()))?;
    Ok(move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn configure(context_fd: &OwnedFd, image: i32, devices: &[String], context: Option<&str>) -> rustix::io::Result<()> {
    // by descriptor: the very file that was verified, whatever its name has come to mean
    fsconfig_set_string(context_fd, c"source", format!("/proc/self/fd/{image}"))?;
    for device in devices {
        fsconfig_set_string(context_fd, c"device", device)?;
    }
    if let Some(context) = context {
        fsconfig_set_string(context_fd, c"context", context)?;
    }
    fsconfig_set_flag(context_fd, c"ro")?;
    fsconfig_create(context_fd)
}

/// The error with the messages that the kernel keeps in the context ("e erofs: …").
fn explained(context_fd: &OwnedFd, error: io::Error) -> io::Error {
    let mut log = Vec::new();
    let mut line = [0; 256];
    while let Ok(length) = rustix::io::read(context_fd, &mut line) {
        if length == 0 || log.len() > 8 {
            break;
        }
        log.push(String::from_utf8_lossy(&line[..length]).trim().to_owned());
    }
    if log.is_empty() { error } else { io::Error::new(error.kind(), format!("{error} ({})", log.join("; "))) }
}
