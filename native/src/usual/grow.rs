//! Entries -> inodes, as unpacking the layer's tar would make them, whiteouts as overlayfs wants them (`src/tree/entries.ts`). A path that
//! is there twice, unless it is a directory's, is unusual, and so is a hard link to what comes later.

use std::collections::BTreeMap;
use std::ops::Range;

use libc::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

use super::image::{self, Inode};
use super::time::Time;
use super::{Entry, NAME_MAX};

/// Of the largest images a few hundred thousand; a directory in each other takes half a kilobyte of memory.
const INODES_MAX: usize = 500_000;
const DEPTH_MAX: usize = 256;
const PATH_MAX: usize = 4096;
const TARGET_MAX: usize = 4095;
const FILE_MAX: u64 = 1 << 43;
const XATTR_NAME_MAX: usize = 255;
const XATTR_MAX: usize = 0xffff;
const XATTRS_MAX: u64 = 0xffff - 128;
const ID_MAX: u32 = u32::MAX - 1;
const MAJOR_MAX: u32 = 0xfff;
const MINOR_MAX: u32 = 0xf_ffff;

const MARKER: &str = ".wh.";
const INTERNAL: &str = ".wh..wh.";
const OPAQUE: &str = ".wh..wh..opq";
const OPAQUE_XATTR: (&str, &[u8]) = ("trusted.overlay.opaque", b"y");

/// A file that is not empty, and what it consists of.
pub struct File<'s> {
    pub path: &'s str,
    pub inode: usize,
    pub size: u64,
    /// Of the source's.
    pub extents: Range<usize>,
}

/// The inodes, the root first, and the files in the order of the index.
pub fn grow<'s>(entries: &'s [Entry]) -> Option<(Vec<Inode<'s>>, Vec<File<'s>>)> {
    let mut grower =
        Grower { inodes: vec![directory()], files: Vec::new(), opaque: Vec::new(), whiteouts: BTreeMap::new(), last: ("", 0) };
    for entry in entries {
        grower.add(entry)?;
    }
    grower.finish()
}

/// What a directory is that no entry describes.
fn directory<'s>() -> Inode<'s> {
    Inode { children: Some(BTreeMap::new()), ..Inode::new(S_IFDIR | 0o755, 0, 0, Time::default()) }
}

struct Grower<'s> {
    inodes: Vec<Inode<'s>>,
    files: Vec<File<'s>>,
    opaque: Vec<usize>,
    /// By directory and name.
    whiteouts: BTreeMap<(usize, &'s str), &'s Entry<'s>>,
    /// The directory that an entry was in last: the next is mostly in the same.
    last: (&'s str, usize),
}

impl<'s> Grower<'s> {
    fn add(&mut self, entry: &'s Entry) -> Option<()> {
        let path: &str = &entry.path;
        if path.is_empty() {
            let inode = inode(entry)?;
            let children = inode.children.is_some().then(|| self.inodes[0].children.take())?;
            self.inodes[0] = Inode { children, ..inode };
            return Some(());
        }
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        check_name(name)?;
        let parent = if parents == self.last.0 { self.last.1 } else { self.descend(parents)? };
        if path.len() > PATH_MAX {
            return None;
        }
        if let Some(removes) = name.strip_prefix(MARKER) {
            if name == OPAQUE {
                self.opaque.push(parent);
            } else if !name.starts_with(INTERNAL) {
                if matches!(removes, "" | "." | "..") || self.whiteouts.insert((parent, removes), entry).is_some() {
                    return None;
                }
            } else if parents != self.last.0 {
                return None; // whose directories nobody makes
            }
        } else if let Some(link) = &entry.link {
            let of = self.find(link)?;
            // what is at the link's own path is not there when it is looked for
            let is_own = **link == *path || link.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
            if is_own || self.inodes[of].children.is_some() || link.len() > PATH_MAX {
                return None;
            }
            self.insert(parent, name, of)?;
        } else {
            self.add_inode(parent, name, entry)?;
        }
        self.last = (parents, parent);
        Some(())
    }

    fn finish(mut self) -> Option<(Vec<Inode<'s>>, Vec<File<'s>>)> {
        for ((directory, name), entry) in std::mem::take(&mut self.whiteouts) {
            let children = self.inodes[directory].children.as_ref()?;
            match children.get(name) {
                Some(&present) if self.inodes[present].children.is_some() => self.opaque.push(present),
                Some(_) => {}
                None => {
                    let whiteout = Inode::new(S_IFCHR, entry.uid, entry.gid, entry.time);
                    check_ids(&whiteout)?;
                    self.push(directory, name, whiteout)?;
                }
            }
        }
        for directory in self.opaque {
            let xattrs = &mut self.inodes[directory].xattrs;
            if !xattrs.contains(&OPAQUE_XATTR) {
                xattrs.push(OPAQUE_XATTR);
            }
        }
        Some((self.inodes, self.files))
    }

    fn add_inode(&mut self, parent: usize, name: &'s str, entry: &'s Entry) -> Option<()> {
        let inode = inode(entry)?;
        if let Some(&present) = self.inodes[parent].children.as_ref()?.get(name) {
            // a directory over a directory keeps the children and takes the new metadata
            inode.children.as_ref()?;
            let children = Some(self.inodes[present].children.take()?);
            self.inodes[present] = Inode { children, ..inode };
            return Some(());
        }
        let size = inode.size;
        let number = self.push(parent, name, inode)?;
        if size > 0 {
            self.files.push(File { path: &entry.path, inode: number, size, extents: entry.extents.clone() });
        } else if !entry.extents.is_empty() {
            return None;
        }
        Some(())
    }

    fn push(&mut self, parent: usize, name: &'s str, inode: Inode<'s>) -> Option<usize> {
        let number = self.inodes.len();
        if number >= INODES_MAX {
            return None;
        }
        self.inodes.push(inode);
        self.insert(parent, name, number)?;
        Some(number)
    }

    fn insert(&mut self, parent: usize, name: &'s str, number: usize) -> Option<()> {
        self.inodes[parent].children.as_mut()?.insert(name, number).is_none().then_some(())
    }

    /// The directory at `parents`, made where it is missing.
    fn descend(&mut self, parents: &'s str) -> Option<usize> {
        let mut at = 0;
        if parents.is_empty() {
            return Some(at);
        }
        for (depth, name) in parents.split('/').enumerate() {
            check_name(name)?;
            if is_deep(depth + 1) || name.starts_with(MARKER) {
                return None;
            }
            at = match self.inodes[at].children.as_ref()?.get(name) {
                Some(&next) => next,
                None => self.push(at, name, directory())?,
            };
        }
        self.inodes[at].children.is_some().then_some(at)
    }

    fn find(&self, path: &str) -> Option<usize> {
        path.split('/').try_fold(0, |at, name| self.inodes[at].children.as_ref()?.get(name).copied())
    }
}

/// Whether so many directories may not be above a name.
pub fn is_deep(above: usize) -> bool {
    above >= DEPTH_MAX
}

fn check_name(name: &str) -> Option<()> {
    let is_name = !matches!(name, "" | "." | "..") && name.len() <= NAME_MAX && !name.contains('\0');
    is_name.then_some(())
}

fn check_ids(inode: &Inode) -> Option<()> {
    (inode.uid <= ID_MAX && inode.gid <= ID_MAX).then_some(())
}

/// Within what Linux and EROFS can hold.
fn inode<'s>(entry: &'s Entry) -> Option<Inode<'s>> {
    let kind = entry.mode & S_IFMT;
    let mut inode = Inode::new(entry.mode, entry.uid, entry.gid, entry.time);
    check_ids(&inode)?;
    if entry.mode > 0xffff {
        return None;
    }
    match kind {
        S_IFREG if entry.size <= FILE_MAX => inode.size = entry.size,
        S_IFDIR => inode.children = Some(BTreeMap::new()),
        S_IFLNK => {
            let target = entry.target.as_deref()?;
            if target.is_empty() || target.contains('\0') || target.len() > TARGET_MAX {
                return None;
            }
            inode.mode = S_IFLNK | 0o777;
            inode.target = Some(target);
        }
        S_IFCHR | S_IFBLK => {
            let (major, minor) = entry.rdev;
            if major > MAJOR_MAX || minor > MINOR_MAX {
                return None;
            }
            inode.rdev = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        }
        S_IFIFO | S_IFSOCK => {}
        _ => return None,
    }
    for (name, value) in &entry.xattrs {
        if !can_hold(name, kind) {
            continue;
        }
        if name.contains('\0') || name.len() > XATTR_NAME_MAX || value.len() > XATTR_MAX {
            return None;
        }
        inode.xattrs.push((name, value));
    }
    (image::xattrs_bytes(&inode.xattrs) <= XATTRS_MAX).then_some(inode)
}

/// Without overlayfs's own, and without those that no Linux filesystem can hold (`src/tree/metadata.ts`).
fn can_hold(name: &str, kind: u32) -> bool {
    let Some((_, prefix)) = image::xattr_prefix(name) else { return false };
    if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
        return false;
    }
    if !prefix.ends_with('.') {
        return kind != S_IFLNK;
    }
    if prefix == "user." && kind != S_IFREG && kind != S_IFDIR {
        return false;
    }
    name != prefix
}
