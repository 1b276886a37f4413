//! What the kernel is answered and told.
#![forbid(unsafe_code)]

use super::{FOR_EVER, OUT_HEADER};

/// struct fuse_out_header for an answer or a notification of `length` bytes after it.
pub fn out_header(length: usize, error: i32, unique: u64) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    let total = u32::try_from(OUT_HEADER + length).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&total.to_le_bytes());
    header[4..8].copy_from_slice(&error.to_le_bytes());
    header[8..].copy_from_slice(&unique.to_le_bytes());
    header
}

/// What stat says; atime and ctime are mtime, as in EROFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub ino: u64,
    pub size: u64,
    pub seconds: i64,
    pub nanoseconds: u32,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// As the kernel encodes it (new_encode_dev).
    pub rdev: u32,
}

pub const BLOCK: u64 = 4096;

impl Attributes {
    fn bytes(&self) -> [u8; 88] {
        let mut out = [0; 88];
        let longs = [
            self.ino,
            self.size,
            self.size.div_ceil(BLOCK).saturating_mul(BLOCK / 512),
            self.seconds as u64,
            self.seconds as u64,
            self.seconds as u64,
        ];
        let words = [
            self.nanoseconds,
            self.nanoseconds,
            self.nanoseconds,
            self.mode,
            self.links,
            self.uid,
            self.gid,
            self.rdev,
            BLOCK as u32,
            0,
        ];
        for (to, long) in out.chunks_exact_mut(8).zip(longs) {
            to.copy_from_slice(&long.to_le_bytes());
        }
        for (to, word) in out[48..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// struct fuse_attr_out.
    pub fn answer(&self, ttl: u64) -> [u8; 104] {
        let mut out = [0; 104];
        out[..8].copy_from_slice(&ttl.to_le_bytes());
        out[16..].copy_from_slice(&self.bytes());
        out
    }
}

/// A directory entry with what it points to.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub node: u64,
    pub entry_ttl: u64,
    pub attr_ttl: u64,
    pub attributes: Attributes,
}

pub const ENTRY_BYTES: usize = 128;

impl Entry {
    /// struct fuse_entry_out.
    pub fn answer(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..8].copy_from_slice(&self.node.to_le_bytes());
        out[16..24].copy_from_slice(&self.entry_ttl.to_le_bytes());
        out[24..32].copy_from_slice(&self.attr_ttl.to_le_bytes());
        out[40..].copy_from_slice(&self.attributes.bytes());
        out
    }

    /// There is no such name, and never will be.
    pub fn never() -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[16..24].copy_from_slice(&FOR_EVER.to_le_bytes());
        out
    }
}

/// The answer to READDIR or READDIRPLUS, as long as the kernel has room for.
pub struct Listing<'a> {
    into: &'a mut [u8],
    length: usize,
    plus: bool,
}

impl<'a> Listing<'a> {
    pub fn new(into: &'a mut [u8], plus: bool) -> Self {
        Self { into, length: 0, plus }
    }

    pub fn plus(&self) -> bool {
        self.plus
    }

    /// Adds an entry; `next` is the offset to go on from after it, `mode` gives its type, and `entry` counts for READDIRPLUS only
    /// (None: the kernel is to look it up itself). False when it does not fit.
    pub fn add(&mut self, name: &[u8], ino: u64, mode: u32, next: u64, entry: Option<&Entry>) -> bool {
        let plus = if self.plus { ENTRY_BYTES } else { 0 };
        let total = (plus + 24 + name.len()).next_multiple_of(8);
        let Some(to) = self.into.get_mut(self.length..self.length + total) else {
            return false;
        };
        to.fill(0);
        if let (true, Some(entry)) = (self.plus, entry) {
            to[..ENTRY_BYTES].copy_from_slice(&entry.answer());
        }
        let to = &mut to[plus..];
        to[..8].copy_from_slice(&ino.to_le_bytes());
        to[8..16].copy_from_slice(&next.to_le_bytes());
        to[16..20].copy_from_slice(&(name.len() as u32).to_le_bytes());
        to[20..24].copy_from_slice(&(mode >> 12 & 15).to_le_bytes());
        to[24..24 + name.len()].copy_from_slice(name);
        self.length += total;
        true
    }

    pub fn length(&self) -> usize {
        self.length
    }
}

/// struct fuse_kstatfs of something that has no free space.
pub fn statfs(blocks: u64, files: u64) -> [u8; 80] {
    let mut out = [0; 80];
    out[..8].copy_from_slice(&blocks.to_le_bytes());
    out[24..32].copy_from_slice(&files.to_le_bytes());
    out[40..44].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    out[44..48].copy_from_slice(&255u32.to_le_bytes());
    out[48..52].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    out
}

/// struct fuse_open_out without a handle.
pub fn opened(flags: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[8..12].copy_from_slice(&flags.to_le_bytes());
    out
}

/// struct fuse_getxattr_out: how long the value is.
pub fn xattr_size(length: usize) -> [u8; 8] {
    (length as u64 & 0xffff_ffff).to_le_bytes()
}

/// FUSE_NOTIFY_INVAL_ENTRY: forget `parent/name`.
pub fn inval_entry(parent: u64, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + name.len());
    out.extend(parent.to_le_bytes());
    out.extend((name.len() as u32).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(name);
    out.push(0);
    out
}

/// FUSE_NOTIFY_INVAL_INODE: forget attributes and pages.
pub fn inval_inode(node: u64) -> Vec<u8> {
    [node.to_le_bytes(), [0; 8], [0; 8]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_never_exceeds_its_room() {
        let mut room = [0xaa; 100];
        let mut listing = Listing::new(&mut room[..80], false);
        assert!(listing.add(b"a", 1, 0o100_644, 1, None));
        assert!(listing.add(b"a name of 24 bytes here!", 1, 0o040_755, 2, None));
        assert_eq!(listing.length(), 32 + 48);
        assert!(!listing.add(b"", 1, 0, 3, None));
        assert_eq!((room[20], room[32 + 20], room[80]), (8, 4, 0xaa));
    }
}
