//! The control tree: directories, small files and device files that JavaScript adds and removes while the mount is in use.
//! The kernel is allowed to believe nothing about it (TTL 0).
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::erofs::{S_IFDIR, S_IFREG};
use crate::wire::{Attributes, ROOT_ID};

/// The top bit of the node IDs that JavaScript chooses.
pub const CONTROL_BIT: u64 = 1 << 63;
const PERMISSIONS: u32 = 0o7777;
const NAME_MAX: usize = 255;

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
    /// Comes on the first read.
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
enum Target {
    Node(u64),
    /// The root of the tree in a slot.
    Tree(u32),
}

#[derive(Default)]
struct Directory {
    /// Names that it lacks are asked for.
    asks: bool,
    names: HashMap<Box<[u8]>, (u64, Target)>,
    /// Readdir offsets, which stay with their names when others come and go.
    order: BTreeMap<u64, Box<[u8]>>,
    last: u64,
}

enum Kind {
    Directory(Directory),
    File(Contents),
}

struct Node {
    owner: Owner,
    parent: u64,
    kind: Kind,
}

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
}

/// Offsets of `.` and `..`; names come after.
const DOTS: u64 = 2;

impl Control {
    pub fn new() -> Self {
        let owner = Owner { mode: 0o755, uid: 0, gid: 0, seconds: 0, nanoseconds: 0 };
        let root = Node { owner, parent: ROOT_ID, kind: Kind::Directory(Directory { last: DOTS, ..Directory::default() }) };
        Self { nodes: RwLock::new(HashMap::from([(ROOT_ID, root)])) }
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

    pub fn add_directory(&self, node: u64, parent: u64, name: &str, owner: Owner, asks: bool) -> Result<(), String> {
        let directory = Directory { asks, last: DOTS, ..Directory::default() };
        self.add(node, parent, name, owner, Kind::Directory(directory))
    }

    pub fn add_file(&self, node: u64, parent: u64, name: &str, owner: Owner, contents: Contents) -> Result<(), String> {
        self.add(node, parent, name, owner, Kind::File(contents))
    }

    fn add(&self, node: u64, parent: u64, name: &str, owner: Owner, kind: Kind) -> Result<(), String> {
        if node & CONTROL_BIT == 0 {
            return Err(format!("node {node}: control nodes have the top bit set"));
        }
        let mut nodes = self.write();
        if nodes.contains_key(&node) {
            return Err(format!("node {node}: is in use"));
        }
        link(&mut nodes, parent, name, Target::Node(node))?;
        nodes.insert(node, Node { owner, parent, kind });
        Ok(())
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
            Some(Kind::File(_)) => return Found::NotDirectory,
            None => return Found::Nothing,
        };
        match directory.names.get(name) {
            Some((_, Target::Tree(slot))) => Found::Tree(*slot),
            Some((_, Target::Node(node))) => match nodes.get(node) {
                Some(found) => Found::Node(*node, attributes(*node, found)),
                None => Found::Nothing,
            },
            None if directory.asks => Found::Ask,
            None => Found::Nothing,
        }
    }

    pub fn attributes(&self, node: u64) -> Option<Attributes> {
        self.read().get(&node).map(|found| attributes(node, found))
    }

    /// Err: what it is instead.
    pub fn contents(&self, node: u64) -> Result<Contents, i32> {
        match self.read().get(&node).map(|node| &node.kind) {
            Some(Kind::File(contents)) => Ok(contents.clone()),
            Some(Kind::Directory(_)) => Err(libc::EISDIR),
            None => Err(libc::ESTALE),
        }
    }

    /// Gives a late file its contents. False when it is gone.
    pub fn set_late(&self, node: u64, contents: Arc<File>) -> bool {
        match self.write().get_mut(&node).map(|node| &mut node.kind) {
            Some(Kind::File(Contents::Late { file, .. })) => {
                *file = Some(contents);
                true
            }
            _ => false,
        }
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
                Target::Node(node) => (Some((node, attributes(node, nodes.get(&node)?))), 0),
                Target::Tree(slot) => (None, slot),
            };
            Some(Line { name: name.clone(), node, slot, next })
        })
    }
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

fn attributes(id: u64, node: &Node) -> Attributes {
    let (kind, size, links) = match &node.kind {
        Kind::Directory(_) => (S_IFDIR, 0, 2),
        Kind::File(contents) => (S_IFREG, contents.size(), 1),
    };
    Attributes {
        ino: id,
        size,
        seconds: node.owner.seconds,
        nanoseconds: node.owner.nanoseconds,
        mode: kind | node.owner.mode & PERMISSIONS,
        links,
        uid: node.owner.uid,
        gid: node.owner.gid,
        rdev: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { mode: 0o644, uid: 1, gid: 2, seconds: 3, nanoseconds: 4 };

    fn id(number: u64) -> u64 {
        CONTROL_BIT | number
    }

    fn file() -> Contents {
        Contents::Bytes(Arc::from(&b"abc"[..]))
    }

    fn names(control: &Control, node: u64, mut from: u64) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = control.line(node, from) {
            all.push(String::from_utf8(line.name.into_vec()).unwrap());
            from = line.next;
        }
        all
    }

    #[test]
    fn names_that_are_none_and_nodes_in_use_are_refused() {
        let control = Control::new();
        for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(control.add_file(id(1), ROOT_ID, name, OWNER, file()).is_err(), "{name:?}");
        }
        assert!(control.add_file(5, ROOT_ID, "low", OWNER, file()).is_err());
        assert!(control.add_file(id(1), id(9), "orphan", OWNER, file()).is_err());
        control.add_file(id(1), ROOT_ID, "a", OWNER, file()).unwrap();
        assert!(control.add_file(id(1), ROOT_ID, "b", OWNER, file()).is_err());
        assert!(control.add_file(id(2), ROOT_ID, "a", OWNER, file()).is_err());
        assert!(control.add_file(id(2), id(1), "below a file", OWNER, file()).is_err());
        assert_eq!(names(&control, ROOT_ID, 0), ["a"]);
    }

    #[test]
    fn a_listing_goes_on_while_names_come_and_go() {
        let control = Control::new();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            control.add_file(id(number as u64), ROOT_ID, name, OWNER, file()).unwrap();
        }
        let after_a = control.line(ROOT_ID, 0).unwrap().next;
        control.remove(ROOT_ID, "a").unwrap();
        control.remove(ROOT_ID, "b").unwrap();
        control.add_file(id(7), ROOT_ID, "a", OWNER, file()).unwrap();
        assert_eq!(names(&control, ROOT_ID, after_a), ["c", "a"]);
        assert!(control.line(ROOT_ID, u64::MAX).is_none());
    }

    #[test]
    fn removing_takes_what_is_below_along() {
        let control = Control::new();
        control.add_directory(id(1), ROOT_ID, "dir", OWNER, true).unwrap();
        control.add_directory(id(2), id(1), "dir", OWNER, false).unwrap();
        control.add_file(id(3), id(2), "file", OWNER, file()).unwrap();
        control.graft(id(1), "tree", 5).unwrap();
        assert!(matches!(control.lookup(id(1), b"tree"), Found::Tree(5)));
        assert!(matches!(control.lookup(id(1), b"other"), Found::Ask));
        assert!(matches!(control.lookup(id(2), b"other"), Found::Nothing));
        let mut gone = control.remove(ROOT_ID, "dir").unwrap();
        gone.sort_unstable();
        assert_eq!(gone, [id(1), id(2), id(3)]);
        assert!(control.attributes(id(3)).is_none());
        assert!(matches!(control.lookup(id(1), b"tree"), Found::Nothing));
        assert!(control.remove(ROOT_ID, "dir").is_err());
    }
}
