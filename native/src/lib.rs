//! The addon's edge to JavaScript: the contract is `src/mount/native.ts`.
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]

mod bytes;
mod control;
mod device;
mod erofs;
mod helper;
mod inode;
mod kernel;
mod map;
mod mount;
mod parked;
mod reply;
pub mod room;
mod serve;
mod session;
mod sys;
mod upcall;
mod wire;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use napi::bindgen_prelude::{BigInt, Either, JsObjectValue, Null, Object, ToNapiValue, Uint8Array};
use napi::{Env, Error, JsValue, Result, Status};
use napi_derive::napi;

use crate::control::{Contents, Owner};
use crate::device::Device;
use crate::erofs::Erofs;
use crate::inode::{SLOT_MAX, Tree};
use crate::map::{Image, Ready};
use crate::parked::Key;
use crate::session::{Core, Timeouts};
use crate::upcall::Upcalls;

const THREADS_MAX: u32 = 64;
/// 2^53 - 1: beyond, JavaScript's numbers are not whole.
const SAFE_MAX: f64 = 9_007_199_254_740_991.0;

fn wrong(why: impl Into<String>) -> Error {
    Error::new(Status::InvalidArg, why.into())
}

/// An error of the system for something named.
fn failed(what: &str, error: &io::Error) -> Error {
    Error::new(Status::GenericFailure, format!("{what}: {error}"))
}

fn whole(what: &str, value: f64) -> Result<u64> {
    if value.fract() == 0.0 && (0.0..=SAFE_MAX).contains(&value) {
        Ok(value as u64)
    } else {
        Err(wrong(format!("{what}: {value} is not a whole number from 0 to 2^53 - 1")))
    }
}

fn node_of(what: &str, value: &BigInt) -> Result<u64> {
    match value.get_u64() {
        (false, value, true) => Ok(value),
        _ => Err(wrong(format!("{what}: not a 64-bit node ID"))),
    }
}

fn milliseconds(what: &str, value: f64) -> Result<Duration> {
    whole(what, value).map(Duration::from_millis)
}

#[napi(object, object_to_js = false)]
pub struct SessionOptions {
    pub fuse_fd: i32,
    pub root_slot: Either<u32, Null>,
    pub threads: u32,
    pub miss_timeout_ms: f64,
    pub lookup_timeout_ms: f64,
    pub late_timeout_ms: f64,
    pub user_marks: bool,
}

#[napi(object, object_to_js = false)]
pub struct DeviceSpec {
    pub device_fd: i32,
    pub ready_fd: i32,
    pub chunks: u32,
    pub size: f64,
    pub places: Uint8Array,
}

#[napi(object, object_to_js = false)]
pub struct TreeSpec {
    pub image_fd: i32,
    pub devices: Vec<u32>,
    pub inode_base: f64,
}

#[napi(object, object_to_js = false)]
pub struct NodeAttributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: BigInt,
}

impl NodeAttributes {
    fn owner(&self) -> Result<Owner> {
        const SECOND: i128 = 1_000_000_000;
        let (mtime, _) = self.mtime.get_i128();
        let seconds = i64::try_from(mtime.div_euclid(SECOND)).map_err(|_| wrong("mtime: out of range"))?;
        Ok(Owner { mode: self.mode, uid: self.uid, gid: self.gid, seconds, nanoseconds: mtime.rem_euclid(SECOND) as u32 })
    }
}

#[napi(object, object_from_js = false)]
pub struct SessionCounters {
    pub served: BigInt,
    pub reads: BigInt,
    pub missed: BigInt,
    pub lookups: BigInt,
    pub expired: BigInt,
    pub failed: BigInt,
}

#[napi]
pub struct Session {
    core: Arc<Core>,
}

#[napi]
impl Session {
    #[napi(constructor)]
    pub fn new(options: SessionOptions, upcalls: Object) -> Result<Self> {
        if !(1..=THREADS_MAX).contains(&options.threads) {
            return Err(wrong(format!("threads: {} is not 1 … {THREADS_MAX}", options.threads)));
        }
        let root = match options.root_slot {
            Either::A(slot) => Some(slot_of(slot)?),
            Either::B(Null) => None,
        };
        let timeouts = Timeouts {
            miss: milliseconds("missTimeoutMs", options.miss_timeout_ms)?,
            lookup: milliseconds("lookupTimeoutMs", options.lookup_timeout_ms)?,
            late: milliseconds("lateTimeoutMs", options.late_timeout_ms)?,
        };
        let upcalls = Upcalls::new(&upcalls)?;
        let device = sys::adopt(options.fuse_fd).map_err(|error| failed("fuseFd", &error))?;
        let core = Core::start(File::from(device), root, options.user_marks, options.threads as usize, timeouts, upcalls)
            .map_err(|error| failed("threads", &error))?;
        Ok(Self { core })
    }

    #[napi]
    pub fn add_device(&self, spec: DeviceSpec) -> Result<u32> {
        let size = whole("size", spec.size)?;
        let file = mount::file(spec.device_fd).map_err(|error| failed("deviceFd", &error))?;
        let ready = mount::file(spec.ready_fd).map_err(|error| failed("readyFd", &error))?;
        let ready = Ready::of(&ready, spec.chunks).map_err(wrong)?;
        self.core.add_device(|number| Device::new(number, file, ready, spec.chunks, size, &spec.places)).map_err(wrong)
    }

    #[napi]
    pub fn remove_device(&self, device: u32) {
        self.core.remove_device(device);
    }

    #[napi]
    pub fn add_tree(&self, slot: u32, spec: TreeSpec) -> Result<()> {
        let slot = slot_of(slot)?;
        let file = mount::file(spec.image_fd).map_err(|error| failed("imageFd", &error))?;
        let image = Image::of(&file).map_err(|error| failed("image", &error))?;
        let image = Erofs::open(image).map_err(wrong)?;
        let device = |&number: &u32| self.core.device(number).ok_or_else(|| wrong(format!("device {number}: there is none")));
        let devices = spec.devices.iter().map(device).collect::<Result<Vec<_>>>()?;
        let is_root = self.core.root == Some(slot);
        let base = whole("inodeBase", spec.inode_base)?;
        Tree::new(slot, base, image, devices, is_root).and_then(|tree| self.core.add_tree(tree)).map_err(wrong)
    }

    #[napi]
    pub fn remove_tree(&self, slot: u32) {
        self.core.remove_tree(slot);
    }

    #[napi]
    pub fn add_directory(
        &self,
        node: BigInt,
        parent: BigInt,
        name: String,
        attributes: NodeAttributes,
        asks: bool,
    ) -> Result<()> {
        let (node, parent, owner) = (node_of("node", &node)?, node_of("parent", &parent)?, attributes.owner()?);
        if node == wire::ROOT_ID {
            self.core.control.set_root(owner, asks);
            return Ok(());
        }
        self.core.control.add_directory(node, parent, &name, owner, asks).map_err(wrong)
    }

    #[napi]
    pub fn add_file(
        &self,
        node: BigInt,
        parent: BigInt,
        name: String,
        attributes: NodeAttributes,
        bytes: Uint8Array,
    ) -> Result<()> {
        self.add(&node, &parent, &name, &attributes, Contents::Bytes(Arc::from(&bytes[..])))
    }

    #[napi]
    pub fn replace_file(
        &self,
        node: BigInt,
        parent: BigInt,
        name: String,
        attributes: NodeAttributes,
        bytes: Uint8Array,
    ) -> Result<()> {
        let (node, parent, owner) = (node_of("node", &node)?, node_of("parent", &parent)?, attributes.owner()?);
        self.core.control.replace_file(node, parent, &name, owner, Contents::Bytes(Arc::from(&bytes[..]))).map_err(wrong)
    }

    #[napi]
    pub fn add_symlink(
        &self,
        node: BigInt,
        parent: BigInt,
        name: String,
        attributes: NodeAttributes,
        target: String,
    ) -> Result<()> {
        let (node, parent, owner) = (node_of("node", &node)?, node_of("parent", &parent)?, attributes.owner()?);
        self.core.control.add_symlink(node, parent, &name, owner, &target).map_err(wrong)
    }

    #[napi]
    pub fn add_late(&self, node: BigInt, parent: BigInt, name: String, attributes: NodeAttributes, size: f64) -> Result<()> {
        let size = whole("size", size)?;
        self.add(&node, &parent, &name, &attributes, Contents::Late { size, file: None })
    }

    #[napi]
    pub fn add_device_file(
        &self,
        node: BigInt,
        parent: BigInt,
        name: String,
        attributes: NodeAttributes,
        device: u32,
    ) -> Result<()> {
        let size = match self.core.device(device) {
            Some(device) => device.size,
            None => return Err(wrong(format!("device {device}: there is none"))),
        };
        self.add(&node, &parent, &name, &attributes, Contents::Device { number: device, size })
    }

    fn add(&self, node: &BigInt, parent: &BigInt, name: &str, attributes: &NodeAttributes, contents: Contents) -> Result<()> {
        let (node, parent) = (node_of("node", node)?, node_of("parent", parent)?);
        self.core.control.add_file(node, parent, name, attributes.owner()?, contents).map_err(wrong)
    }

    #[napi]
    pub fn graft(&self, parent: BigInt, name: String, slot: u32) -> Result<()> {
        let slot = slot_of(slot)?;
        let Some(tree) = self.core.tree(slot) else { return Err(wrong(format!("slot {slot}: has no tree"))) };
        let parent = node_of("parent", &parent)?;
        self.core.control.graft(parent, &name, slot).map_err(wrong)?;
        tree.set_above(parent);
        Ok(())
    }

    #[napi]
    pub fn restrict(&self, node: BigInt) -> Result<()> {
        self.core.control.restrict(node_of("node", &node)?);
        Ok(())
    }

    #[napi]
    pub fn remove(&self, parent: BigInt, name: String) -> Result<()> {
        self.core.remove(node_of("parent", &parent)?, &name).map_err(wrong)
    }

    #[napi]
    pub fn settle(&self, device: u32, chunk: u32, errno: i32) {
        self.core.parked.settle(Key::Chunk { device, chunk }, errno);
    }

    #[napi]
    pub fn extend(&self) {
        self.core.parked.extend(self.core.timeouts.miss);
    }

    #[napi]
    pub fn answer_lookup(&self, ticket: u32, errno: i32) {
        self.core.parked.settle(Key::Lookup(ticket), errno);
    }

    #[napi]
    pub fn settle_late(&self, node: BigInt, fd: i32, errno: i32) -> Result<()> {
        let node = node_of("node", &node)?;
        if errno == 0 {
            let file = mount::file(fd).map_err(|error| failed("fd", &error))?;
            self.core.control.set_late(node, Arc::new(file));
        }
        self.core.parked.settle(Key::Late(node), errno);
        Ok(())
    }

    #[napi]
    pub fn counters(&self) -> SessionCounters {
        let counters = &self.core.connection.counters;
        SessionCounters {
            served: counters.served.load(Relaxed).into(),
            reads: counters.reads.load(Relaxed).into(),
            missed: counters.missed.load(Relaxed).into(),
            lookups: counters.lookups.load(Relaxed).into(),
            expired: counters.expired.load(Relaxed).into(),
            failed: counters.failed.load(Relaxed).into(),
        }
    }

    #[napi]
    pub fn close(&self, env: Env) -> Result<()> {
        self.core.parked.close();
        self.core.upcalls.release(&env)
    }
}

fn slot_of(slot: u32) -> Result<u32> {
    if (1..=SLOT_MAX).contains(&slot) { Ok(slot) } else { Err(wrong(format!("slot: {slot} is not 1 … {SLOT_MAX}"))) }
}

#[napi(object, object_to_js = false)]
pub struct MountOptions {
    pub fsname: String,
    pub allow_other: bool,
    pub read_ahead: f64,
    pub context: Option<String>,
    pub read_only: bool,
}

/// An error whose `code` is the errno's name.
fn coded(what: &str, error: &io::Error) -> Error<String> {
    Error::new(code(error), format!("{what}: {error}"))
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

/// The names of the errnos that the calls above give.
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

/// Runs `work` on a thread of its own: the event loop's pool may be full of calls that wait for the very mount in question.
fn promise<T>(env: &Env, what: String, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<Object<'_>>
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
