//! A tree: an EROFS image whose inodes are served, and the devices that hold its data.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::device::Device;
use crate::erofs::{Erofs, Errno, Inode, Place, S_IFREG};
use crate::map::Image;
use crate::parked::Key;
use crate::wire::{Attributes, Entry, FOR_EVER, Listing, ROOT_ID};

/// Bits of a node ID that are the nid; above it is the slot.
const NID_BITS: u32 = 40;
const NID_MASK: u64 = (1 << NID_BITS) - 1;
pub const SLOT_MAX: u32 = (1 << 22) - 1;

/// Slot and nid of a tree's node; control nodes have the top bit.
pub fn split(node: u64) -> (u32, u64) {
    ((node >> NID_BITS) as u32, node & NID_MASK)
}

pub struct Tree {
    pub slot: u32,
    /// st_ino is this and the nid: numbers of several trees never meet.
    inode_base: u64,
    /// st_ino of the directory that the root is in; 0: there is none in this mount.
    above: AtomicU64,
    pub image: Erofs<Image>,
    devices: Vec<Arc<Device>>,
    /// It is what node 1 is.
    is_root: bool,
}

impl Tree {
    pub fn new(
        slot: u32,
        inode_base: u64,
        image: Erofs<Image>,
        devices: Vec<Arc<Device>>,
        is_root: bool,
    ) -> Result<Self, String> {
        if devices.len() != usize::from(image.devices) {
            return Err(format!("image: has {} device slots, {} devices were given", image.devices, devices.len()));
        }
        Ok(Self { slot, inode_base, above: AtomicU64::new(0), image, devices, is_root })
    }

    fn node(&self, nid: u64) -> Result<u64, Errno> {
        if nid > NID_MASK {
            return Err(libc::EUCLEAN);
        }
        if self.is_root && nid == self.image.root {
            return Ok(ROOT_ID);
        }
        Ok(u64::from(self.slot) << NID_BITS | nid)
    }

    fn ino(&self, nid: u64) -> u64 {
        self.inode_base.saturating_add(nid)
    }

    /// It is shown in that control directory, whose st_ino is its node ID.
    pub fn set_above(&self, parent: u64) {
        self.above.store(parent, Relaxed);
    }

    pub fn attributes(&self, inode: &Inode) -> Attributes {
        Attributes {
            ino: self.ino(inode.nid),
            size: inode.size,
            seconds: inode.seconds,
            nanoseconds: inode.nanoseconds,
            mode: inode.mode,
            links: inode.links,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev(),
        }
    }

    fn entry(&self, nid: u64) -> Result<Entry, Errno> {
        let inode = self.image.inode(nid)?;
        Ok(Entry { node: self.node(nid)?, entry_ttl: FOR_EVER, attr_ttl: FOR_EVER, attributes: self.attributes(&inode) })
    }

    /// The root as an entry of a directory outside, which may change.
    pub fn root(&self) -> Result<Entry, Errno> {
        Ok(Entry { entry_ttl: 0, ..self.entry(self.image.root)? })
    }

    pub fn lookup(&self, nid: u64, name: &[u8]) -> Result<Option<Entry>, Errno> {
        let directory = self.image.inode(nid)?;
        self.image.lookup(&directory, name)?.map(|nid| self.entry(nid)).transpose()
    }

    pub fn list(&self, nid: u64, from: u64, into: &mut Listing) -> Result<(), Errno> {
        let directory = self.image.inode(nid)?;
        let above = Some(self.above.load(Relaxed)).filter(|&above| above != 0 && nid == self.image.root);
        self.image.entries(&directory, from, |found| {
            let dots = matches!(found.name, b"." | b"..");
            // an inode that breaks a bound is still listed; looking it up says what is wrong
            let entry = if into.plus() && !dots { self.entry(found.nid).ok() } else { None };
            let ino = match above {
                Some(above) if found.name == b".." => above,
                _ => self.ino(found.nid),
            };
            Ok(into.add(found.name, ino, found.mode, found.next, entry.as_ref()))
        })
    }

    fn device(&self, slot: u16) -> Result<&Arc<Device>, Errno> {
        usize::from(slot).checked_sub(1).and_then(|index| self.devices.get(index)).ok_or(libc::EUCLEAN)
    }

    /// The range of a file that a READ may have.
    pub fn readable(&self, nid: u64, offset: u64, size: u32) -> Result<(Inode, u64, u64), Errno> {
        let inode = self.image.inode(nid)?;
        if inode.kind() != S_IFREG {
            return Err(if inode.is_directory() { libc::EISDIR } else { libc::EINVAL });
        }
        let from = offset.min(inode.size);
        let to = from.saturating_add(u64::from(size)).min(inode.size);
        Ok((inode, from, to))
    }

    /// Calls `each` with the places of `from` … `to` in order.
    fn places<'s>(
        &'s self,
        inode: &Inode,
        mut from: u64,
        to: u64,
        mut each: impl FnMut(Place<'s>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        while from < to {
            let place = self.image.place(inode, from, to)?;
            from += place.length();
            each(place)?;
        }
        Ok(())
    }

    /// Reads `from` … `from + into.len()`, or adds what of it is not there, and then the bytes count for nothing.
    pub fn read(&self, inode: &Inode, from: u64, into: &mut [u8], missing: &mut Vec<Key>) -> Result<(), Errno> {
        let mut rest = into;
        let to = from + rest.len() as u64;
        self.places(inode, from, to, |place| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(place.length() as usize);
            rest = later;
            match place {
                Place::Image(bytes) => now.copy_from_slice(bytes),
                Place::Zeros(_) => now.fill(0),
                Place::Device { slot, at, length } => {
                    let device = self.device(slot)?;
                    if at.saturating_add(length) > device.size {
                        return Err(libc::EUCLEAN);
                    }
                    device.read(at, now, |chunk| missing.push(Key::Chunk { device: device.number, chunk }))?;
                }
            }
            Ok(())
        })
    }

    /// Blocks of image and devices.
    pub fn blocks(&self) -> u64 {
        self.devices.iter().fold(self.image.blocks, |sum, device| sum.saturating_add(device.size.div_ceil(4096)))
    }
}
