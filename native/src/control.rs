//! The control tree: directories, small files, symlinks and device files that JavaScript adds, replaces and removes while the mount
//! is in use.
//! The kernel is allowed to believe nothing about it (TTL 0).
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::erofs::{S_IFDIR, S_IFLNK, S_IFREG};
use crate::wire::{Attributes, ROOT_ID};

/// The top bit of the node IDs that JavaScript chooses.
pub const CONTROL_BIT: u64 = 1 << 63;
const PERMISSIONS: u32 = 0o7777;
const NAME_MAX: usize = 255;
/// The kernel's PATH_MAX, less the NUL.
const LINK_MAX: usize = 4095;

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
    Symlink(Box<[u8]>),
}

struct Node {
    owner: Owner,
    parent: u64,
    kind: Kind,
    /// How often the kernel was told of it, less what it forgot. A reply that got lost counts too, which keeps a node too long, never
    /// too short.
    lookups: AtomicU64,
    /// Another node has its name: it goes when the kernel forgets it.
    replaced: bool,
}

impl Node {
    fn new(owner: Owner, parent: u64, kind: Kind) -> Self {
        Self { owner, parent, kind, lookups: AtomicU64::new(0), replaced: false }
    }
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

    /// Whether the kernel knows a node; one that is not there it does not.
    pub fn is_known(&self, node: u64) -> bool {
        self.read().get(&node).is_some_and(|found| found.lookups.load(Relaxed) > 0)
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
                    Found::Node(*node, attributes(*node, found))
                }
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
                Target::Node(node) => (Some((node, attributes(node, nodes.get(&node)?))), 0),
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

fn attributes(id: u64, node: &Node) -> Attributes {
    let (kind, size, links) = match &node.kind {
        Kind::Directory(_) => (S_IFDIR, 0, 2),
        Kind::File(contents) => (S_IFREG, contents.size(), 1),
        Kind::Symlink(target) => (S_IFLNK, target.len() as u64, 1),
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
    fn a_late_file_that_is_small_needs_no_descriptor() {
        let control = Control::new();
        let path = std::env::temp_dir().join(format!("lazylayer-late-{}", std::process::id()));
        for (number, length, told) in [(1, 10, 10), (2, 20_000, 20_000), (3, 10, 11), (4, 0, 4096), (5, 20_000, 4096)] {
            std::fs::write(&path, vec![7; length]).unwrap();
            let late = Contents::Late { size: told, file: None };
            control.add_file(id(number), ROOT_ID, &number.to_string(), OWNER, late).unwrap();
            assert!(control.set_late(id(number), Arc::new(File::open(&path).unwrap())));
            match control.contents(id(number)) {
                Ok(Contents::Bytes(bytes)) => assert_eq!(&*bytes, &vec![7; length][..]),
                Ok(Contents::Late { size, file: Some(_) }) => assert_eq!(size, length as u64),
                _ => panic!("file {number} has no contents"),
            }
            assert_eq!(matches!(control.contents(id(number)), Ok(Contents::Bytes(_))), length <= 16 << 10);
        }
        std::fs::remove_file(path).unwrap();
        assert!(!control.set_late(id(9), Arc::new(File::open("/dev/null").unwrap())));
    }

    #[test]
    fn of_many_late_files_the_first_are_let_go_of() {
        let control = Control::new();
        let path = std::env::temp_dir().join(format!("lazylayer-open-{}", std::process::id()));
        std::fs::write(&path, vec![7; 20_000]).unwrap();
        let open = |number| matches!(control.contents(id(number)), Ok(Contents::Late { size: 20_000, file: Some(_) }));
        for number in 1..=OPEN_MAX as u64 + 2 {
            let late = Contents::Late { size: 4096, file: None };
            control.add_file(id(number), ROOT_ID, &number.to_string(), OWNER, late).unwrap();
            assert!(control.set_late(id(number), Arc::new(File::open(&path).unwrap())));
        }
        assert!(!open(1) && !open(2) && (3..=OPEN_MAX as u64 + 2).all(open));
        assert!(control.set_late(id(1), Arc::new(File::open(&path).unwrap())));
        assert!(open(1) && !open(3));
        std::fs::remove_file(path).unwrap();
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

    fn node(found: Found) -> u64 {
        match found {
            Found::Node(node, _) => node,
            _ => panic!("no node"),
        }
    }

    #[test]
    fn a_symlink_says_where_it_leads_and_is_nothing_else() {
        let control = Control::new();
        for target in ["", "a\0b", &"x".repeat(4096)] {
            assert!(control.add_symlink(id(1), ROOT_ID, "link", OWNER, target).is_err(), "{} bytes", target.len());
        }
        control.add_symlink(id(1), ROOT_ID, "link", OWNER, "../dir/file").unwrap();
        let attributes = control.attributes(id(1)).unwrap();
        assert_eq!((attributes.mode & 0o170_000, attributes.size), (S_IFLNK, 11));
        assert_eq!(&*control.target(id(1)).unwrap(), b"../dir/file");
        assert_eq!(control.contents(id(1)).err(), Some(libc::EINVAL));
        assert_eq!(control.parent(id(1)), Err(libc::ENOTDIR));
        assert!(matches!(control.lookup(id(1), b"below"), Found::NotDirectory));
        assert_eq!(control.target(ROOT_ID), Err(libc::EINVAL));
        assert_eq!(control.target(id(2)), Err(libc::ESTALE));
        assert_eq!(control.remove(ROOT_ID, "link"), Ok(vec![id(1)]));
    }

    #[test]
    fn a_replaced_file_stays_readable_until_the_kernel_forgets_it() {
        let control = Control::new();
        let version = |text: &'static [u8]| Contents::Bytes(Arc::from(text));
        let bytes = |node| match control.contents(node) {
            Ok(Contents::Bytes(bytes)) => Some(bytes.to_vec()),
            _ => None,
        };
        control.add_file(id(1), ROOT_ID, "file", OWNER, version(b"one")).unwrap();
        assert_eq!(node(control.lookup(ROOT_ID, b"file")), id(1));
        control.told(id(1)); // a listing
        control.replace_file(id(2), ROOT_ID, "file", OWNER, version(b"two!")).unwrap();
        assert_eq!(node(control.lookup(ROOT_ID, b"file")), id(2));
        assert_eq!(names(&control, ROOT_ID, 0), ["file"]);
        assert_eq!((bytes(id(1)), bytes(id(2))), (Some(b"one".to_vec()), Some(b"two!".to_vec())));
        control.forget(id(1), 1);
        assert_eq!(bytes(id(1)), Some(b"one".to_vec()));
        control.forget(id(1), 1);
        assert_eq!(bytes(id(1)), None);
        // one that has its name stays, whatever is forgotten
        control.forget(id(2), 7);
        assert_eq!(bytes(id(2)), Some(b"two!".to_vec()));
        // one that nobody knows goes at once
        control.replace_file(id(3), ROOT_ID, "file", OWNER, version(b"3")).unwrap();
        assert_eq!((bytes(id(2)), bytes(id(3))), (None, Some(b"3".to_vec())));
    }

    #[test]
    fn only_files_that_are_there_are_replaced_and_by_new_nodes() {
        let control = Control::new();
        control.add_file(id(1), ROOT_ID, "file", OWNER, file()).unwrap();
        control.add_directory(id(2), ROOT_ID, "dir", OWNER, false).unwrap();
        control.graft(ROOT_ID, "tree", 5).unwrap();
        for (number, parent, name) in [
            (1, ROOT_ID, "file"),
            (9, ROOT_ID, "other"),
            (9, ROOT_ID, "dir"),
            (9, ROOT_ID, "tree"),
            (9, id(1), "file"),
            (9, id(8), "file"),
        ] {
            assert!(control.replace_file(id(number), parent, name, OWNER, file()).is_err(), "{name}");
        }
        assert!(control.replace_file(9, ROOT_ID, "file", OWNER, file()).is_err());
        assert_eq!(node(control.lookup(ROOT_ID, b"file")), id(1));
        assert!(control.attributes(id(9)).is_none());
    }
}
