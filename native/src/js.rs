//! The addon's edge to JavaScript: the contract is `src/mount/native.ts`. Here: its numbers, and its errors.

pub mod mounts;
pub mod reads;
pub mod room;
pub mod session;
pub mod trees;

use std::io::{self, ErrorKind};
use std::time::Duration;

use napi::bindgen_prelude::BigInt;
use napi::{Error, Result, Status};

/// 2^53 - 1: beyond, JavaScript's numbers are not whole.
const SAFE_MAX: f64 = 9_007_199_254_740_991.0;

pub fn wrong(why: impl Into<String>) -> Error {
    Error::new(Status::InvalidArg, why.into())
}

/// An error of the system for something named.
pub fn failed(what: &str, error: &io::Error) -> Error {
    Error::new(Status::GenericFailure, format!("{what}: {error}"))
}

pub fn whole(what: &str, value: f64) -> Result<u64> {
    if value.fract() == 0.0 && (0.0..=SAFE_MAX).contains(&value) {
        Ok(value as u64)
    } else {
        Err(wrong(format!("{what}: {value} is not a whole number from 0 to 2^53 - 1")))
    }
}

pub fn node_of(what: &str, value: &BigInt) -> Result<u64> {
    match value.get_u64() {
        (false, value, true) => Ok(value),
        _ => Err(wrong(format!("{what}: not a 64-bit node ID"))),
    }
}

pub fn milliseconds(what: &str, value: f64) -> Result<Duration> {
    whole(what, value).map(Duration::from_millis)
}

/// An error whose `code` is the errno's name.
pub fn coded(what: &str, error: &io::Error) -> Error<String> {
    Error::new(code(error), format!("{what}: {error}"))
}

/// The names of the errnos that our calls give.
fn code(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::EBUSY) => "EBUSY",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::ENOENT) => "ENOENT",
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::EBADF) => "EBADF",
        Some(libc::ENOTDIR) => "ENOTDIR",
        Some(libc::ENODEV) => "ENODEV",
        Some(libc::ENXIO) => "ENXIO",
        Some(libc::ENOTCONN) => "ENOTCONN",
        Some(libc::EAGAIN) => "EAGAIN",
        Some(number) => return format!("E{number}"),
        // what a program told
        None => match error.kind() {
            ErrorKind::ResourceBusy => "EBUSY",
            ErrorKind::InvalidInput => "EINVAL",
            ErrorKind::NotFound => "ENOENT",
            ErrorKind::PermissionDenied => "EPERM",
            _ => "EIO",
        },
    };
    name.to_owned()
}
