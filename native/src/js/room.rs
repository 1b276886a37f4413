//! What making room in the cache asks of the system: the contract is `Disk` in `src/store/disk.ts`.

use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;

use napi::bindgen_prelude::{Float64Array, Object, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use super::mounts::promise;
use super::session::Session;
use super::{coded, failed, whole, wrong};
use crate::map::Ready;
use crate::{mount, sys};

#[napi]
pub fn unlock(fd: i32) -> Result<(), String> {
    mount::unlock(fd).map_err(|error| coded("flock", &error))
}

#[napi]
pub fn is_only_opener(fd: i32) -> bool {
    sys::is_only_opener(fd)
}

#[napi]
pub fn punch_holes(env: &Env, fd: i32, ranges: Float64Array) -> Result<Object<'_>> {
    let mut holes = Vec::with_capacity(ranges.len() / 2);
    for range in ranges.chunks_exact(2) {
        holes.push((whole("ranges", range[0])?, whole("ranges", range[1])?));
    }
    // a copy of its own: the caller may close its descriptor
    let file = mount::file(fd).map_err(|error| failed("fd", &error))?;
    promise(env, "punching holes".into(), move || punch(&file, &holes))
}

/// Gives the blocks below parts of a file back to the filesystem: they read as zeros.
fn punch(file: &File, holes: &[(u64, u64)]) -> io::Result<()> {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for &(start, end) in holes {
        fallocate(file, mode, start, end.saturating_sub(start))?;
    }
    Ok(())
}

#[napi]
pub fn memory_file(name: String) -> Result<i32, String> {
    let made = memfd_create(name.as_str(), MemfdFlags::CLOEXEC);
    made.map(IntoRawFd::into_raw_fd).map_err(|errno| coded("memfd_create", &errno.into()))
}

#[napi]
impl Session {
    #[napi]
    pub fn spill_device(&self, device: u32, device_fd: i32, ready_fd: i32, chunks: u32) -> Result<()> {
        let Some(device) = self.core.device(device) else { return Err(wrong(format!("device {device}: there is none"))) };
        let file = mount::file(device_fd).map_err(|error| failed("deviceFd", &error))?;
        let ready = mount::file(ready_fd).map_err(|error| failed("readyFd", &error))?;
        device.spill(file, Ready::of(&ready, chunks).map_err(wrong)?);
        Ok(())
    }

    /// Empty of a device that is gone.
    #[napi]
    pub fn take_touched(&self, device: u32) -> Uint8Array {
        self.core.device(device).map_or_else(Vec::new, |device| device.take_touched()).into()
    }
}
