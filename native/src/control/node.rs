//! A node of the control tree.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::erofs::{S_IFDIR, S_IFLNK, S_IFREG};
use crate::wire::Attributes;

const PERMISSIONS: u32 = 0o7777;

/// Mode, owner and mtime of a node.
#[derive(Clone, Copy)]
pub struct Owner {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// What a file of the control tree holds.
#[derive(Clone)]
pub enum Contents {
    Bytes(Arc<[u8]>),
    /// Comes on the first read; until then its size is a guess.
    Late {
        size: u64,
        file: Option<Arc<File>>,
    },
    Device {
        number: u32,
        size: u64,
    },
}

impl Contents {
    fn size(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Late { size, .. } | Contents::Device { size, .. } => *size,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Node(u64),
    /// The root of the tree in a slot.
    Tree(u32),
}

#[derive(Default)]
pub struct Directory {
    /// Names that it lacks are asked for.
    pub asks: bool,
    pub names: HashMap<Box<[u8]>, (u64, Target)>,
    /// Readdir offsets, which stay with their names when others come and go.
    pub order: BTreeMap<u64, Box<[u8]>>,
    pub last: u64,
}

pub enum Kind {
    Directory(Directory),
    File(Contents),
    Symlink(Box<[u8]>),
}

pub struct Node {
    pub owner: Owner,
    pub parent: u64,
    pub kind: Kind,
    /// How often the kernel was told of it, less what it forgot. A reply that got lost counts too, which keeps a node too long, never
    /// too short.
    pub lookups: AtomicU64,
    /// Another node has its name: it goes when the kernel forgets it.
    pub replaced: bool,
}

impl Node {
    pub fn new(owner: Owner, parent: u64, kind: Kind) -> Self {
        Self { owner, parent, kind, lookups: AtomicU64::new(0), replaced: false }
    }

    pub fn attributes(&self, id: u64) -> Attributes {
        let (kind, size, links) = match &self.kind {
            Kind::Directory(_) => (S_IFDIR, 0, 2),
            Kind::File(contents) => (S_IFREG, contents.size(), 1),
            Kind::Symlink(target) => (S_IFLNK, target.len() as u64, 1),
        };
        Attributes {
            ino: id,
            size,
            seconds: self.owner.seconds,
            nanoseconds: self.owner.nanoseconds,
            mode: kind | self.owner.mode & PERMISSIONS,
            links,
            uid: self.owner.uid,
            gid: self.owner.gid,
            rdev: 0,
        }
    }
}
