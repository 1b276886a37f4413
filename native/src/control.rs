//! The control tree: directories, small files, symlinks and device files that JavaScript adds, replaces and removes while the mount
//! is in use.
//! The kernel is allowed to believe nothing about it (TTL 0).
#![forbid(unsafe_code)]

mod node;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use node::{Contents, Owner};
use node::{Directory, Kind, Node, Target};

use crate::wire::{Attributes, ROOT_ID};

/// The top bit of the node IDs that JavaScript chooses.
pub const CONTROL_BIT: u64 = 1 << 63;
const NAME_MAX: usize = 255;
/// The kernel's PATH_MAX, less the NUL.
const LINK_MAX: usize = 4095;

/// What a name in a control directory is.
pub enum Found {
    Node(u64, Attributes),
    Tree(u32),
    /// JavaScript may know.
    Ask,
    Nothing,
    NotDirectory,
}

/// One line of a directory listing.
pub struct Line {
    pub name: Box<[u8]>,
    pub node: Option<(u64, Attributes)>,
    /// Otherwise a tree's slot.
    pub slot: u32,
    pub next: u64,
}

pub struct Control {
    nodes: RwLock<HashMap<u64, Node>>,
    /// Late files that hold a descriptor, the one that got it first in front.
    open: Mutex<VecDeque<u64>>,
}

/// Offsets of `.` and `..`; names come after.
const DOTS: u64 = 2;

impl Control {
    pub fn new() -> Self {
        let owner = Owner { mode: 0o755, uid: 0, gid: 0, seconds: 0, nanoseconds: 0 };
        let root = Node::new(owner, ROOT_ID, Kind::Directory(Directory { last: DOTS, ..Directory::default() }));
        Self { nodes: RwLock::new(HashMap::from([(ROOT_ID, root)])), open: Mutex::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u64, Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u64, Node>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root's own attributes, and whether it asks.
    pub fn set_root(&self, owner: Owner, asks: bool) {
        if let Some(root) = self.write().get_mut(&ROOT_ID) {
            root.owner = owner;
            if let Kind::Directory(directory) = &mut root.kind {
                directory.asks = asks;
            }
        }
    }

    /// From now on a directory is its owner's alone.
    pub fn restrict(&self, node: u64) {
        if let Some(found) = self.write().get_mut(&node) {
            found.owner.mode &= !0o077;
        }
    }

    /// Whether engines may tell of use in a directory: it asks for what it does not have, and is not directly below the root.
    pub fn hears(&self, node: u64) -> bool {
        let nodes = self.read();
        let Some(Node { parent, kind: Kind::Directory(directory), .. }) = nodes.get(&node) else { return false };
        directory.asks && node != ROOT_ID && *parent != ROOT_ID
    }

    pub fn add_directory(&self, node: u64, parent: u64, name: &str, owner: Owner, asks: bool) -> Result<(), String> {
        let directory = Directory { asks, last: DOTS, ..Directory::default() };
        self.add(node, parent, name, owner, Kind::Directory(directory))
    }

    pub fn add_file(&self, node: u64, parent: u64, name: &str, owner: Owner, contents: Contents) -> Result<(), String> {
        self.add(node, parent, name, owner, Kind::File(contents))
    }

    pub fn add_symlink(&self, node: u64, parent: u64, name: &str, owner: Owner, target: &str) -> Result<(), String> {
        if target.is_empty() || target.len() > LINK_MAX || target.contains('\0') {
            return Err(format!("{target:?}: not a symlink's target"));
        }
        self.add(node, parent, name, owner, Kind::Symlink(target.as_bytes().into()))
    }

    fn add(&self, node: u64, parent: u64, name: &str, owner: Owner, kind: Kind) -> Result<(), String> {
        let mut nodes = self.write();
        unused(&nodes, node)?;
        link(&mut nodes, parent, name, Target::Node(node))?;
        nodes.insert(node, Node::new(owner, parent, kind));
        Ok(())
    }

    /// From now on the name of a file is this one's. Whoever has the old one open goes on reading it.
    pub fn replace_file(&self, node: u64, parent: u64, name: &str, owner: Owner, contents: Contents) -> Result<(), String> {
        let mut nodes = self.write();
        unused(&nodes, node)?;
        let old = match nodes.get(&parent).map(|node| &node.kind) {
            Some(Kind::Directory(directory)) => directory.names.get(name.as_bytes()).map(|&(_, target)| target),
            _ => return Err(format!("node {parent}: no such directory")),
        };
        let old = match old {
            Some(Target::Node(old)) if matches!(nodes.get(&old), Some(Node { kind: Kind::File(_), .. })) => old,
            _ => return Err(format!("node {parent}: has no file {name:?}")),
        };
        if let Some(Node { kind: Kind::Directory(directory), .. }) = nodes.get_mut(&parent)
            && let Some((_, target)) = directory.names.get_mut(name.as_bytes())
        {
            *target = Target::Node(node);
        }
        nodes.insert(node, Node::new(owner, parent, Kind::File(contents)));
        if let Some(left) = nodes.get_mut(&old) {
            left.replaced = true;
        }
        drop_forgotten(&mut nodes, old);
        Ok(())
    }

    /// The kernel forgets that it was told of a node so many times.
    pub fn forget(&self, node: u64, times: u64) {
        let gone = self.read().get(&node).is_some_and(|found| {
            let before = found.lookups.fetch_update(Relaxed, Relaxed, |lookups| Some(lookups.saturating_sub(times)));
            found.replaced && before.is_ok_and(|before| before <= times)
        });
        if gone {
            drop_forgotten(&mut self.write(), node);
        }
    }

    /// The kernel is told of a node by a listing; `lookup` counts by itself.
    pub fn told(&self, node: u64) {
        if let Some(found) = self.read().get(&node) {
            found.lookups.fetch_add(1, Relaxed);
        }
    }

    pub fn graft(&self, parent: u64, name: &str, slot: u32) -> Result<(), String> {
        link(&mut self.write(), parent, name, Target::Tree(slot))
    }

    /// The files and directories that went with the name.
    pub fn remove(&self, parent: u64, name: &str) -> Result<Vec<u64>, String> {
        let mut nodes = self.write();
        let Some(Node { kind: Kind::Directory(directory), .. }) = nodes.get_mut(&parent) else {
            return Err(format!("node {parent}: no such directory"));
        };
        let Some((offset, target)) = directory.names.remove(name.as_bytes()) else {
            return Err(format!("node {parent}: has no {name:?}"));
        };
        directory.order.remove(&offset);
        let mut gone = Vec::new();
        let mut rest: Vec<Target> = vec![target];
        while let Some(target) = rest.pop() {
            if let Target::Node(node) = target
                && let Some(removed) = nodes.remove(&node)
            {
                gone.push(node);
                if let Kind::Directory(directory) = removed.kind {
                    rest.extend(directory.names.into_values().map(|(_, target)| target));
                }
            }
        }
        Ok(gone)
    }

    pub fn lookup(&self, parent: u64, name: &[u8]) -> Found {
        let nodes = self.read();
        let directory = match nodes.get(&parent).map(|node| &node.kind) {
            Some(Kind::Directory(directory)) => directory,
            Some(Kind::File(_) | Kind::Symlink(_)) => return Found::NotDirectory,
            None => return Found::Nothing,
        };
        match directory.names.get(name) {
            Some((_, Target::Tree(slot))) => Found::Tree(*slot),
            Some((_, Target::Node(node))) => match nodes.get(node) {
                Some(found) => {
                    found.lookups.fetch_add(1, Relaxed);
                    Found::Node(*node, found.attributes(*node))
                }
                None => Found::Nothing,
            },
            None if directory.asks => Found::Ask,
            None => Found::Nothing,
        }
    }

    pub fn attributes(&self, node: u64) -> Option<Attributes> {
        self.read().get(&node).map(|found| found.attributes(node))
    }

    /// Err: what it is instead.
    pub fn contents(&self, node: u64) -> Result<Contents, i32> {
        match self.read().get(&node).map(|node| &node.kind) {
            Some(Kind::File(contents)) => Ok(contents.clone()),
            Some(Kind::Directory(_)) => Err(libc::EISDIR),
            Some(Kind::Symlink(_)) => Err(libc::EINVAL),
            None => Err(libc::ESTALE),
        }
    }

    /// Err: what it is instead.
    pub fn target(&self, node: u64) -> Result<Box<[u8]>, i32> {
        match self.read().get(&node).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => Ok(target.clone()),
            Some(_) => Err(libc::EINVAL),
            None => Err(libc::ESTALE),
        }
    }

    /// Gives a late file its contents, and with them its size: the kernel asks for that again when a read comes to the end that it
    /// knows. False when the file is gone, or cannot be read.
    pub fn set_late(&self, node: u64, file: Arc<File>) -> bool {
        let Ok(size) = file.metadata().map(|found| found.len()) else { return false };
        let small = read_small(&file, size);
        let mut nodes = self.write();
        let Some(Kind::File(contents @ Contents::Late { .. })) = nodes.get_mut(&node).map(|node| &mut node.kind) else {
            return false;
        };
        if let Some(bytes) = small {
            *contents = Contents::Bytes(bytes);
            return true;
        }
        *contents = Contents::Late { size, file: Some(file) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(node);
        if open.len() > OPEN_MAX
            && let Some(oldest) = open.pop_front()
            && let Some(Node { kind: Kind::File(Contents::Late { file, .. }), .. }) = nodes.get_mut(&oldest)
            && oldest != node
        {
            *file = None;
        }
        true
    }

    /// Node ID of a directory's parent; Err: what it is instead.
    pub fn parent(&self, node: u64) -> Result<u64, i32> {
        match self.read().get(&node) {
            Some(Node { parent, kind: Kind::Directory(_), .. }) => Ok(*parent),
            Some(_) => Err(libc::ENOTDIR),
            None => Err(libc::ESTALE),
        }
    }

    /// The first line after an offset.
    pub fn line(&self, node: u64, from: u64) -> Option<Line> {
        let nodes = self.read();
        let Some(Node { kind: Kind::Directory(directory), .. }) = nodes.get(&node) else { return None };
        let mut rest = directory.order.range(from.max(DOTS).checked_add(1)?..);
        rest.find_map(|(&next, name)| {
            let (node, slot) = match directory.names.get(name)?.1 {
                Target::Node(node) => (Some((node, nodes.get(&node)?.attributes(node))), 0),
                Target::Tree(slot) => (None, slot),
            };
            Some(Line { name: name.clone(), node, slot, next })
        })
    }
}

/// Who holds more than that open reads some of them no longer; what is let go of comes again when it is read. A file that the cache
/// threw out takes its place on the disk until then.
const OPEN_MAX: usize = 16;

/// Descriptors are scarcer than memory: a store has thousands of small late files.
const SMALL: u64 = 16 << 10;

fn read_small(file: &File, size: u64) -> Option<Arc<[u8]>> {
    let mut bytes = vec![0; usize::try_from(size).ok().filter(|_| size <= SMALL)?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes.into())
}

fn link(nodes: &mut HashMap<u64, Node>, parent: u64, name: &str, target: Target) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_MAX || matches!(name, "." | "..") || name.contains(['/', '\0']) {
        return Err(format!("{name:?}: not a file name"));
    }
    let Some(Node { kind: Kind::Directory(directory), .. }) = nodes.get_mut(&parent) else {
        return Err(format!("node {parent}: no such directory"));
    };
    if directory.names.contains_key(name.as_bytes()) {
        return Err(format!("node {parent}: has a {name:?} already"));
    }
    directory.last += 1;
    directory.names.insert(name.as_bytes().into(), (directory.last, target));
    directory.order.insert(directory.last, name.as_bytes().into());
    Ok(())
}

fn unused(nodes: &HashMap<u64, Node>, node: u64) -> Result<(), String> {
    if node & CONTROL_BIT == 0 {
        return Err(format!("node {node}: control nodes have the top bit set"));
    }
    if nodes.contains_key(&node) {
        return Err(format!("node {node}: is in use"));
    }
    Ok(())
}

/// Removes a node that has no name and that the kernel does not know.
fn drop_forgotten(nodes: &mut HashMap<u64, Node>, node: u64) {
    if nodes.get(&node).is_some_and(|found| found.replaced && found.lookups.load(Relaxed) == 0) {
        nodes.remove(&node);
    }
}

#[cfg(test)]
mod tests;
