//! Mounts, and what else the system is asked for.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::thread;

use napi::bindgen_prelude::{JsObjectValue, Object, ToNapiValue};
use napi::{Env, Error, JsValue, Result, Status};
use napi_derive::napi;

use super::{coded, failed, whole};
use crate::{kernel, mount, sys};

#[napi(object, object_to_js = false)]
pub struct MountOptions {
    pub fsname: String,
    pub allow_other: bool,
    pub read_ahead: f64,
    pub context: Option<String>,
    pub read_only: bool,
}

#[napi]
pub fn open_fuse() -> Result<i32, String> {
    mount::open().map(IntoRawFd::into_raw_fd).map_err(|error| coded("/dev/fuse", &error))
}

#[napi]
pub fn mount_fuse(fuse_fd: i32, dir: String, options: MountOptions) -> Result<(), String> {
    let read_ahead =
        whole("readAhead", options.read_ahead).map_err(|error| Error::new("EINVAL".to_owned(), error.reason.clone()))?;
    let MountOptions { fsname, allow_other, context, read_only, .. } = options;
    mount::mount(fuse_fd, &dir, &fsname, allow_other, read_ahead, context.as_deref(), read_only)
        .map_err(|error| coded(&format!("mounting {dir}"), &error))
}

#[napi]
pub fn mount_fuse_by_helper(env: &Env, dir: String, options: MountOptions) -> Result<Object<'_>> {
    promise(env, format!("mounting {dir}"), move || {
        mount::mount_by_helper(&dir, &options.fsname, options.allow_other, options.read_only).map(IntoRawFd::into_raw_fd)
    })
}

#[napi]
pub fn bind_read_only(env: &Env, dir: String) -> Result<Object<'_>> {
    promise(env, format!("mounting {dir} read-only"), move || mount::bind_read_only(&dir))
}

#[napi]
pub fn unmount(env: &Env, dir: String, lazy: bool) -> Result<Object<'_>> {
    promise(env, format!("unmounting {dir}"), move || mount::unmount(&dir, lazy))
}

#[napi]
pub fn mount_erofs(
    env: &Env,
    image_fd: i32,
    devices: Vec<String>,
    target: String,
    context: Option<String>,
) -> Result<Object<'_>> {
    // a copy of its own: the caller may close its descriptor while the mount is being made
    let image = mount::file(image_fd).map_err(|error| failed("imageFd", &error))?;
    promise(env, format!("mounting EROFS on {target}"), move || {
        kernel::mount(image.as_raw_fd(), &devices, &target, context.as_deref())
    })
}

#[napi]
pub fn is_dead(env: &Env, dir: String) -> Result<Object<'_>> {
    promise(env, dir.clone(), move || Ok(mount::is_dead(dir)))
}

#[napi]
pub fn set_read_ahead(dir: String, kib: u32) -> bool {
    mount::set_read_ahead(&dir, kib.into())
}

#[napi]
pub fn try_lock(fd: i32, exclusive: bool) -> Result<bool, String> {
    mount::try_lock(fd, exclusive).map_err(|error| coded("flock", &error))
}

/// Over an execve.
#[napi]
pub fn keep_open(fd: i32) -> Result<(), String> {
    sys::keep_open(fd).map_err(|error| coded("fcntl", &error))
}

#[napi]
pub fn send_descriptors(socket: i32, message: String, descriptors: Vec<i32>) -> Result<(), String> {
    sys::send(socket, message.as_bytes(), &descriptors).map_err(|error| coded("sendmsg", &error))
}

/// Runs `work` on a thread of its own: the event loop's pool may be full of calls that wait for the very mount in question.
pub fn promise<T>(env: &Env, what: String, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<Object<'_>>
where
    T: ToNapiValue + Send + 'static,
{
    let (deferred, promise) = env.create_deferred()?;
    let run = move || {
        sys::block_signals();
        let outcome = work();
        deferred.resolve(move |env: Env| {
            outcome.map_err(|error| rejection(&env, &coded(&what, &error)).unwrap_or_else(|other| other))
        });
    };
    thread::Builder::new().name("mount".into()).stack_size(256 << 10).spawn(run).map_err(|error| failed("thread", &error))?;
    Ok(promise)
}

/// The same as an error that a promise can be rejected with.
fn rejection(env: &Env, error: &Error<String>) -> Result<Error> {
    let mut object = env.create_error(Error::new(Status::GenericFailure, error.reason.clone()))?;
    object.set_named_property("code", error.status.as_str())?;
    Ok(Error::from(object.to_unknown()))
}
