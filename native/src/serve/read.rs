//! Reads: answered, or parked until what they lack is there.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Look, Node};
use crate::control::Contents;
use crate::device::Device;
use crate::erofs::Errno;
use crate::inode::Tree;
use crate::parked::{Key, Known, Request as Parked, What, Window};
use crate::reply::Reply;
use crate::session::{Core, Scratch};
use crate::wire::{MAX_READ, Request};

/// A device's bytes are in the kernel twice already, as pages of the device and of the file in the mount: after reads of this size,
/// which do not come again soon, the cache file gives back its own. Small ones share what the disk was asked for with neighbours.
const FORGET_MIN: usize = 128 << 10;
/// What was fetched just now is dirty, and can only be written then; it is given back when the reader has come this much further.
const FORGET_BEHIND: u64 = 8 << 20;

/// So often may what a read was promised be gone again when its turn comes, as where the cache is short of room; then it is EIO.
const WAITS_MAX: u32 = 8;

/// What a read came to.
enum Got {
    /// So many bytes are in the scratch buffer.
    Scratch(usize),
    /// The same, and they are those of a device from there on.
    Device(Arc<Device>, u64, usize),
    Bytes(Arc<[u8]>, usize, usize),
    /// What is missing is in the scratch keys.
    Missing,
}

fn read_tree(tree: &Tree, nid: u64, offset: u64, size: u32, scratch: &mut Scratch) -> Result<Got, Errno> {
    let (inode, from, to) = tree.readable(nid, offset, size)?;
    let length = (to - from) as usize;
    tree.read(&inode, from, &mut scratch.answer[..length], &mut scratch.keys)?;
    Ok(if scratch.keys.is_empty() { Got::Scratch(length) } else { Got::Missing })
}

impl Core {
    pub(super) fn read_request(&self, request: &Request, reply: Reply, scratch: &mut Scratch) {
        self.connection.counters.reads.fetch_add(1, Relaxed);
        match request.window() {
            Some((offset, size)) => {
                let window = Window { node: request.node, offset, size: size.min(MAX_READ as u32) };
                self.read(window, reply, scratch, 0);
            }
            None => reply.error(libc::EINVAL),
        }
    }

    /// Does again what had to wait.
    pub fn resume(&self, request: Parked, scratch: &mut Scratch) {
        match request.what {
            What::Read { window, waits } => self.read(window, request.reply, scratch, waits),
            What::Lookup { parent, name, .. } => match self.look(parent, name.as_bytes()) {
                Ok(Look::Entry(entry)) => request.reply.bytes(&entry.answer()),
                Ok(Look::Ask) => request.reply.error(libc::ENOENT),
                Err(errno) => request.reply.error(errno),
            },
        }
    }

    /// Answers a read, or parks it. One that waited and lacks something still was promised what is not there any more, or never was.
    fn read(&self, window: Window, mut reply: Reply, scratch: &mut Scratch, waits: u32) {
        let Window { node, offset, size } = window;
        scratch.keys.clear();
        let outcome = match self.node(node) {
            Ok(Node::Control) => self.read_control(node, offset, size, scratch),
            Ok(Node::Tree(tree, nid)) => read_tree(&tree, nid, offset, size, scratch),
            Err(errno) => Err(errno),
        };
        match outcome {
            Err(errno) => reply.error(errno),
            Ok(Got::Scratch(length)) => reply.bytes(&scratch.answer[..length]),
            Ok(Got::Device(device, from, length)) => {
                reply.bytes(&scratch.answer[..length]);
                // nobody waits for this
                if length >= FORGET_MIN {
                    device.forget(from.saturating_sub(FORGET_BEHIND), from + length as u64);
                }
            }
            Ok(Got::Bytes(bytes, from, to)) => reply.bytes(&bytes[from..to]),
            Ok(Got::Missing) if waits == WAITS_MAX => reply.error(libc::EIO),
            Ok(Got::Missing) => {
                if waits == 0 {
                    self.connection.counters.missed.fetch_add(1, Relaxed);
                    reply.begin_wait();
                }
                self.wait(Parked { reply, what: What::Read { window, waits: waits + 1 } }, &mut scratch.keys);
            }
        }
    }

    fn read_control(&self, node: u64, offset: u64, size: u32, scratch: &mut Scratch) -> Result<Got, Errno> {
        let end = |length: u64| offset.saturating_add(u64::from(size)).min(length);
        match self.control.contents(node)? {
            Contents::Bytes(bytes) => {
                let to = end(bytes.len() as u64) as usize;
                let from = (offset as usize).min(to);
                Ok(Got::Bytes(bytes, from, to))
            }
            Contents::Device { number, .. } => {
                let device = self.device(number).ok_or(libc::EIO)?;
                let to = end(device.size);
                let from = offset.min(to);
                let length = (to - from) as usize;
                let Scratch { answer, keys } = scratch;
                device.read(from, &mut answer[..length], |chunk| keys.push(Key::Chunk { device: number, chunk }))?;
                Ok(if keys.is_empty() { Got::Device(device, from, length) } else { Got::Missing })
            }
            Contents::Late { file: None, .. } => {
                scratch.keys.push(Key::Late(node));
                Ok(Got::Missing)
            }
            Contents::Late { size: whole, file: Some(file) } => {
                let to = end(whole);
                let from = offset.min(to);
                let length = (to - from) as usize;
                // shorter than it was when it came is wrong, not short
                file.read_exact_at(&mut scratch.answer[..length], from).map_err(|_| libc::EIO)?;
                Ok(Got::Scratch(length))
            }
        }
    }

    /// Whether what a key stands for is still to come.
    fn known(&self, key: &Key) -> Known {
        match *key {
            Key::Chunk { device, chunk } => match self.device(device) {
                Some(device) if device.verified(chunk) => Known::There,
                Some(_) => Known::Missing,
                None => Known::Gone,
            },
            Key::Late(node) => match self.control.contents(node) {
                Ok(Contents::Late { file: None, .. }) => Known::Missing,
                Ok(_) => Known::There,
                Err(_) => Known::Gone,
            },
            Key::Lookup(_) => Known::Missing,
        }
    }

    fn wait(&self, request: Parked, keys: &mut Vec<Key>) {
        keys.sort_unstable();
        keys.dedup();
        let timeout = match keys.first() {
            Some(Key::Late(_)) => self.timeouts.late,
            _ => self.timeouts.miss,
        };
        let fresh = self.parked.park(request, keys.clone(), timeout, |key| self.known(key));
        let mut chunks: HashMap<u32, Vec<u32>> = HashMap::new();
        for key in fresh {
            match key {
                Key::Chunk { device, chunk } => chunks.entry(device).or_default().push(chunk),
                Key::Late(node) if !self.upcalls.late(node) => self.parked.settle(key, libc::EIO),
                _ => {}
            }
        }
        for (device, chunks) in chunks {
            if !self.upcalls.miss(device, chunks.clone()) {
                for chunk in chunks {
                    self.parked.settle(Key::Chunk { device, chunk }, libc::EIO);
                }
            }
        }
    }
}
