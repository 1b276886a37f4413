//! What each request is answered.
#![forbid(unsafe_code)]

mod read;
mod xattr;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::asker;
use crate::control::{CONTROL_BIT, Found};
use crate::erofs::{Errno, S_IFDIR};
use crate::inode::{Tree, split};
use crate::parked::Key;
use crate::reply::Reply;
use crate::session::{Core, Scratch};
use crate::wire::{self, Entry, FOR_EVER, Listing, MAX_READ, NOT_AT_ALL, ROOT_ID, Request, op};

const NAME_MAX: usize = 255;

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
                    } else if let Some(tree) = self.tree(split(node).0) {
                        tree.forget(times);
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
            op::INIT => match wire::init(request.body, self.resend) {
                Some((out, negotiated)) => {
                    reply.bytes(&out);
                    return self.upcalls.initialized(negotiated);
                }
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
                Ok(Some(entry)) => {
                    tree.told();
                    reply.bytes(&entry.answer());
                }
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
            Found::Tree(slot) => {
                let tree = self.tree(slot).ok_or(libc::ENOENT)?;
                let root = tree.root()?;
                tree.told();
                Ok(Look::Entry(root))
            }
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
            if listing.plus() {
                match line.node {
                    Some(_) => self.control.told(entry.node),
                    None => self.tree(line.slot).iter().for_each(|tree| tree.told()),
                }
            }
        }
        Ok(())
    }

    fn statfs(&self, node: u64) -> [u8; 80] {
        match self.node(node) {
            Ok(Node::Tree(tree, _)) => wire::statfs(tree.blocks(), tree.image.inodes),
            _ => wire::statfs(0, 0),
        }
    }
}
