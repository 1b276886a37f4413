//! What each request is answered.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::asker;
use crate::control::{CONTROL_BIT, Contents, Found};
use crate::device::Device;
use crate::erofs::{Errno, S_IFDIR};
use crate::inode::{Tree, split};
use crate::parked::{Key, Known, Request as Parked, What, Window};
use crate::reply::Reply;
use crate::session::{Core, Scratch};
use crate::wire::{self, Entry, FOR_EVER, Listing, MAX_READ, NOT_AT_ALL, ROOT_ID, Request, op};

const NAME_MAX: usize = 255;
const TRUSTED_MARKS: &[u8] = b"trusted.overlay.";
const USER_MARKS: &[u8] = b"user.overlay.";
/// The longest list of extended attributes' names, as the VFS has it (XATTR_LIST_MAX).
const LIST_MAX: usize = 65536;

/// A device's bytes are in the kernel twice already, as pages of the device and of the file in the mount: after reads of this size,
/// which do not come again soon, the cache file gives back its own. Small ones share what the disk was asked for with neighbours.
const FORGET_MIN: usize = 128 << 10;
/// What was fetched just now is dirty, and can only be written then; it is given back when the reader has come this much further.
const FORGET_BEHIND: u64 = 8 << 20;

/// So often may what a read was promised be gone again when its turn comes, as where the cache is short of room; then it is EIO.
const WAITS_MAX: u32 = 8;

/// Whose node it is.
enum Node {
    Control,
    Tree(Arc<Tree>, u64),
}

/// What a look into a control directory says.
enum Look {
    Entry(Entry),
    Ask,
}

impl Core {
    fn node(&self, id: u64) -> Result<Node, Errno> {
        if id & CONTROL_BIT != 0 {
            return Ok(Node::Control);
        }
        if id == ROOT_ID {
            return match self.root {
                None => Ok(Node::Control),
                Some(slot) => {
                    let tree = self.tree(slot).ok_or(libc::ESTALE)?;
                    let root = tree.image.root;
                    Ok(Node::Tree(tree, root))
                }
            };
        }
        let (slot, nid) = split(id);
        Ok(Node::Tree(self.tree(slot).ok_or(libc::ESTALE)?, nid))
    }

    pub fn serve(&self, request: &Request, reply: Reply, scratch: &mut Scratch) {
        let errno = match request.opcode {
            op::LOOKUP => return self.lookup(request, reply),
            op::READ => return self.read_request(request, reply, scratch),
            op::FORGET | op::BATCH_FORGET => {
                request.forgotten(|node, times| {
                    if node & CONTROL_BIT != 0 {
                        self.control.forget(node, times);
                    }
                });
                return reply.none();
            }
            op::DESTROY => return reply.none(),
            op::INTERRUPT => {
                // one that is not parked is being answered
                if let Some(unique) = request.interrupted() {
                    self.parked.interrupt(unique);
                }
                return reply.none();
            }
            op::INIT => match wire::init(request.body) {
                Some(out) => return reply.bytes(&out),
                None => libc::EPROTO,
            },
            op::GETATTR => match self.getattr(request.node) {
                Ok(out) => return reply.bytes(&out),
                Err(errno) => errno,
            },
            op::READDIR | op::READDIRPLUS => match self.list(request, scratch) {
                Ok(length) => return reply.bytes(&scratch.answer[..length]),
                Err(errno) => errno,
            },
            op::READLINK => match self.node(request.node) {
                Ok(Node::Tree(tree, nid)) => match tree.image.inode(nid).and_then(|inode| tree.image.link(&inode)) {
                    Ok(target) => return reply.bytes(target),
                    Err(errno) => errno,
                },
                Ok(Node::Control) => match self.control.target(request.node) {
                    Ok(target) => return reply.bytes(&target),
                    Err(errno) => errno,
                },
                Err(errno) => errno,
            },
            op::GETXATTR => return self.xattr(request, reply),
            op::LISTXATTR => return self.xattr_names(request, reply),
            op::STATFS => return reply.bytes(&self.statfs(request.node)),
            op::OPENDIR => return self.opendir(request.node, reply),
            op::RELEASEDIR => return reply.bytes(&[]),
            op::CREATE | op::MKNOD => self.absent(request, "create", 16),
            op::RMDIR => self.absent(request, "rmdir", 0),
            op::SETATTR
            | op::SYMLINK
            | op::MKDIR
            | op::UNLINK
            | op::RENAME
            | op::RENAME2
            | op::LINK
            | op::WRITE
            | op::SETXATTR
            | op::REMOVEXATTR
            | op::FALLOCATE
            | op::COPY_FILE_RANGE
            | op::TMPFILE => libc::EROFS,
            // OPEN, ACCESS, FLUSH, LSEEK, STATX …: the kernel then does it itself and does not ask again
            _ => libc::ENOSYS,
        };
        reply.error(errno);
    }

    fn getattr(&self, node: u64) -> Result<[u8; 104], Errno> {
        match self.node(node)? {
            Node::Control => Ok(self.control.attributes(node).ok_or(libc::ESTALE)?.answer(NOT_AT_ALL)),
            Node::Tree(tree, nid) => Ok(tree.attributes(&tree.image.inode(nid)?).answer(FOR_EVER)),
        }
    }

    /// A tree's directories may be cached. Where there is nothing else, ENOSYS says so once and for all; beside a control tree the
    /// kernel has to be told each time, because without OPENDIR it would cache the control tree's too.
    fn opendir(&self, node: u64, reply: Reply) {
        if self.root.is_some() {
            return reply.error(libc::ENOSYS);
        }
        match self.node(node) {
            Ok(Node::Control) => reply.bytes(&wire::opened(0)),
            Ok(Node::Tree(..)) => reply.bytes(&wire::opened(wire::OPEN_KEEP_CACHE | wire::OPEN_CACHE_DIR)),
            Err(errno) => reply.error(errno),
        }
    }

    fn lookup(&self, request: &Request, reply: Reply) {
        self.connection.counters.lookups.fetch_add(1, Relaxed);
        let Some(name) = request.name(0) else { return reply.error(libc::EINVAL) };
        if name.len() > NAME_MAX {
            return reply.error(libc::ENAMETOOLONG);
        }
        match self.node(request.node) {
            Err(errno) => reply.error(errno),
            Ok(Node::Tree(tree, nid)) => match tree.lookup(nid, name) {
                Ok(Some(entry)) => reply.bytes(&entry.answer()),
                Ok(None) => reply.bytes(&Entry::never()),
                Err(errno) => reply.error(errno),
            },
            Ok(Node::Control) => match self.look(request.node, name) {
                Ok(Look::Entry(entry)) => reply.bytes(&entry.answer()),
                Err(errno) => reply.error(errno),
                // a name that JavaScript cannot be given is none of its own
                Ok(Look::Ask) => match std::str::from_utf8(name) {
                    Ok(name) => self.ask(request, name, reply),
                    Err(_) => reply.error(libc::ENOENT),
                },
            },
        }
    }

    fn look(&self, parent: u64, name: &[u8]) -> Result<Look, Errno> {
        match self.control.lookup(parent, name) {
            Found::Node(node, attributes) => {
                Ok(Look::Entry(Entry { node, entry_ttl: NOT_AT_ALL, attr_ttl: NOT_AT_ALL, attributes }))
            }
            Found::Tree(slot) => self.tree(slot).ok_or(libc::ENOENT)?.root().map(Look::Entry),
            Found::Ask => Ok(Look::Ask),
            Found::Nothing => Err(libc::ENOENT),
            Found::NotDirectory => Err(libc::ENOTDIR),
        }
    }

    fn ask(&self, request: &Request, name: &str, reply: Reply) {
        let (parent, user) = (request.node, asker::user_of(request.pid));
        let ticket = self.parked.park_lookup(reply, parent, name, user, self.timeouts.lookup);
        if let Some(ticket) = ticket
            && !self.upcalls.lookup(ticket, parent, name, user)
        {
            self.parked.settle(Key::Lookup(ticket), libc::ENOENT);
        }
    }

    /// CREATE and RMDIR below the control tree's first directories are how engines tell of use, where unknown names are asked for; what
    /// they name is never there. The kernel takes ENOENT at its word and ends the mounts below, so nobody else gets it.
    fn absent(&self, request: &Request, what: &'static str, skip: usize) -> Errno {
        match self.node(request.node) {
            Err(errno) => errno,
            Ok(Node::Tree(..)) => libc::EROFS,
            Ok(Node::Control) if !self.control.hears(request.node) => libc::EROFS,
            Ok(Node::Control) => match request.name(skip) {
                None => libc::EINVAL,
                Some(name) if name.len() > NAME_MAX => libc::ENAMETOOLONG,
                Some(name) => {
                    if let Ok(name) = std::str::from_utf8(name) {
                        self.upcalls.hint(what, request.node, name);
                    }
                    libc::ENOENT
                }
            },
        }
    }

    fn list(&self, request: &Request, scratch: &mut Scratch) -> Result<usize, Errno> {
        let (from, size) = request.window().ok_or(libc::EINVAL)?;
        let room = (size as usize).min(MAX_READ);
        let mut listing = Listing::new(&mut scratch.answer[..room], request.opcode == op::READDIRPLUS);
        match self.node(request.node)? {
            Node::Tree(tree, nid) => tree.list(nid, from, &mut listing)?,
            Node::Control => self.list_control(request.node, from, &mut listing)?,
        }
        Ok(listing.length())
    }

    fn list_control(&self, node: u64, from: u64, listing: &mut Listing) -> Result<(), Errno> {
        let parent = self.control.parent(node)?;
        if from < 1 && !listing.add(b".", node, S_IFDIR, 1, None) {
            return Ok(());
        }
        if from < 2 && !listing.add(b"..", parent, S_IFDIR, 2, None) {
            return Ok(());
        }
        let mut from = from;
        while let Some(line) = self.control.line(node, from) {
            let entry = match line.node {
                Some((node, attributes)) => Some(Entry { node, entry_ttl: NOT_AT_ALL, attr_ttl: NOT_AT_ALL, attributes }),
                None => self.tree(line.slot).and_then(|tree| tree.root().ok()),
            };
            from = line.next;
            // a name whose tree is gone is none
            let Some(entry) = entry else { continue };
            if !listing.add(&line.name, entry.attributes.ino, entry.attributes.mode, from, Some(&entry)) {
                break;
            }
            if listing.plus() && line.node.is_some() {
                self.control.told(entry.node);
            }
        }
        Ok(())
    }

    fn xattr(&self, request: &Request, reply: Reply) {
        // u32 size, u32 padding, name
        let (Some(size), Some(name)) = (request.size(), request.name(8)) else { return reply.error(libc::EINVAL) };
        match self.node(request.node) {
            Err(errno) => reply.error(errno),
            Ok(Node::Control) => reply.error(libc::ENODATA),
            Ok(Node::Tree(tree, nid)) => {
                let name = if self.user_marks { stored_name(name) } else { Some(Cow::Borrowed(name)) };
                let found = match name {
                    Some(name) => tree.image.inode(nid).and_then(|inode| tree.image.xattr(&inode, &name)),
                    None => Ok(None),
                };
                match found {
                    Err(errno) => reply.error(errno),
                    Ok(None) => reply.error(libc::ENODATA),
                    Ok(Some(value)) => sized(reply, size, value),
                }
            }
        }
    }

    fn xattr_names(&self, request: &Request, reply: Reply) {
        let Some(size) = request.size() else { return reply.error(libc::EINVAL) };
        let mut names = Vec::new();
        match self.node(request.node) {
            Err(errno) => reply.error(errno),
            Ok(Node::Control) => sized(reply, size, &names),
            Ok(Node::Tree(tree, nid)) => {
                match tree.image.inode(nid).and_then(|inode| tree.image.xattr_names(&inode, &mut names)) {
                    Err(errno) => reply.error(errno),
                    Ok(()) if names.len() > LIST_MAX => reply.error(libc::E2BIG),
                    Ok(()) if self.user_marks => sized(reply, size, &without_marks(&names)),
                    Ok(()) => sized(reply, size, &names),
                }
            }
        }
    }

    fn statfs(&self, node: u64) -> [u8; 80] {
        match self.node(node) {
            Ok(Node::Tree(tree, _)) => wire::statfs(tree.blocks(), tree.image.inodes),
            _ => wire::statfs(0, 0),
        }
    }

    fn read_request(&self, request: &Request, reply: Reply, scratch: &mut Scratch) {
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
    fn read(&self, window: Window, reply: Reply, scratch: &mut Scratch, waits: u32) {
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

/// Under which name an image has what is asked for in a user namespace; None: under none.
fn stored_name(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    match name.strip_prefix(USER_MARKS) {
        Some(mark) => Some(Cow::Owned([TRUSTED_MARKS, mark].concat())),
        None if name.starts_with(TRUSTED_MARKS) => None,
        None => Some(Cow::Borrowed(name)),
    }
}

/// Overlayfs asks for them by name; whoever copies all that is listed would make them part of an image.
fn without_marks(names: &[u8]) -> Vec<u8> {
    let names = names.split_inclusive(|&byte| byte == 0);
    names.filter(|name| !name.starts_with(TRUSTED_MARKS)).flatten().copied().collect()
}

/// Answers with a value, or with its size when that is what was asked for.
fn sized(reply: Reply, size: u32, value: &[u8]) {
    match size as usize {
        0 => reply.bytes(&wire::xattr_size(value.len())),
        room if room < value.len() => reply.error(libc::ERANGE),
        _ => reply.bytes(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_have_another_name_in_a_user_namespace_and_are_not_listed() {
        assert_eq!(stored_name(b"user.overlay.opaque").as_deref(), Some(&b"trusted.overlay.opaque"[..]));
        assert_eq!(stored_name(b"trusted.overlay.opaque"), None);
        for name in [&b"user.a"[..], b"user.overlayopaque", b"trusted.overlay", b"security.capability"] {
            assert_eq!(stored_name(name).as_deref(), Some(name));
        }
        assert_eq!(without_marks(b"user.a\0trusted.overlay.opaque\0trusted.b\0"), b"user.a\0trusted.b\0");
        assert_eq!(without_marks(b""), b"");
    }
}
