//! `Session`.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use napi::bindgen_prelude::{BigInt, Either, Null, Object, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use super::{failed, milliseconds, node_of, whole, wrong};
use crate::control::{Contents, Owner};
use crate::device::Device;
use crate::erofs::Erofs;
use crate::inode::{SLOT_MAX, Tree};
use crate::map::{Image, Ready};
use crate::parked::Key;
use crate::session::{Core, Settings, Timeouts};
use crate::upcall::Upcalls;
use crate::waits::UP_TO_MS;
use crate::{mount, sys, wire};

const THREADS_MAX: u32 = 64;

#[napi(object, object_to_js = false)]
pub struct SessionOptions {
    pub fuse_fd: i32,
    pub root_slot: Either<u32, Null>,
    pub threads: u32,
    pub miss_timeout_ms: f64,
    pub lookup_timeout_ms: f64,
    pub late_timeout_ms: f64,
    pub user_marks: bool,
    pub resend: bool,
    pub resumed: bool,
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
    pub refused: BigInt,
    pub waiting: BigInt,
    pub waits: WaitCounters,
}

/// `counts`: of waits that took no longer than each of `up_to`, and longer than the one before; and of those that took longer than all.
#[napi(object)]
pub struct WaitCounters {
    pub up_to: Vec<f64>,
    pub counts: Vec<f64>,
    /// All together.
    pub seconds: f64,
}

#[napi]
pub struct Session {
    pub(super) core: Arc<Core>,
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
        let settings = Settings {
            device: File::from(device),
            root,
            user_marks: options.user_marks,
            threads: options.threads as usize,
            resend: options.resend,
            resumed: options.resumed,
        };
        let core = Core::start(settings, timeouts, upcalls).map_err(|error| failed("threads", &error))?;
        Ok(Self { core })
    }

    #[napi]
    pub fn begin(&self) -> Result<()> {
        self.core.begin().map_err(|error| failed("begin", &error))
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
    pub fn invalidate(&self, parent: BigInt, name: String) -> Result<()> {
        self.core.invalidate(node_of("parent", &parent)?, &name);
        Ok(())
    }

    #[napi]
    pub fn is_known(&self, node: BigInt) -> Result<bool> {
        Ok(self.core.control.is_known(node_of("node", &node)?))
    }

    #[napi]
    pub fn is_tree_known(&self, slot: u32) -> bool {
        self.core.tree(slot).is_some_and(|tree| tree.is_known())
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
            refused: counters.refused.load(Relaxed).into(),
            waiting: counters.waiting.load(Relaxed).into(),
            waits: WaitCounters {
                up_to: UP_TO_MS.iter().map(|&ms| ms as f64 / 1000.0).collect(),
                counts: counters.waits.counts().into_iter().map(|count| count as f64).collect(),
                seconds: counters.waits.seconds(),
            },
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
