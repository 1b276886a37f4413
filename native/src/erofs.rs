//! A reader of EROFS images without compression, over bytes that are not trusted: whatever is out of bounds is EUCLEAN.
//!
//! Layouts read: flat, flat with its tail in the inode, chunks (with device numbers or without). Directories are blocks of sorted
//! entries, sorted among each other (`Documentation/filesystems/erofs.rst`).
#![forbid(unsafe_code)]

mod directory;
pub mod xattrs;

use crate::bytes::{slice, u8_at, u16_at, u32_at, u64_at};

/// An errno.
pub type Errno = i32;
type Outcome<T> = Result<T, Errno>;

const SUPERBLOCK: u64 = 1024;
pub const MAGIC: u32 = 0xe0f5_e1e2;
const BLOCK_BITS: u8 = 12;
const BLOCK: u64 = 1 << BLOCK_BITS;
/// ZERO_PADDING (how LZ4 blocks are padded: of no meaning without compression), CHUNKED_FILE, DEVICE_TABLE.
const INCOMPAT_KNOWN: u32 = 0x1 | 0x4 | 0x8;
/// A symlink's target is at most PATH_MAX.
const LINK_MAX: u64 = 4096;
/// Device numbers and chunk formats.
const CHUNK_BITS_MASK: u32 = 0x1f;
const CHUNK_INDEXES: u32 = 0x20;
const HOLE: u32 = u32::MAX;

pub const S_IFMT: u32 = 0o170_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFREG: u32 = 0o100_000;
pub const S_IFLNK: u32 = 0o120_000;

fn sound<T>(value: Option<T>) -> Outcome<T> {
    value.ok_or(libc::EUCLEAN)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Plain,
    Inline,
    Chunks,
}

/// An inode, decoded.
#[derive(Clone, Copy, Debug)]
pub struct Inode {
    pub nid: u64,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub seconds: i64,
    pub nanoseconds: u32,
    layout: Layout,
    /// Start block, device number or chunk format.
    word: u32,
    /// Where its extended attributes start in the image, and their length.
    xattrs: u64,
    xattrs_length: u64,
}

impl Inode {
    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == S_IFDIR
    }

    /// The device number of a device node, as stored.
    pub fn rdev(&self) -> u32 {
        match self.kind() {
            0o020_000 | 0o060_000 => self.word,
            _ => 0,
        }
    }

    /// After inode and attributes: inline tail or chunk indexes.
    fn tail(&self) -> u64 {
        self.xattrs + self.xattrs_length
    }
}

/// Where bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    Image(&'a [u8]),
    /// `at` bytes into device slot `slot` (1 …).
    Device {
        slot: u16,
        at: u64,
        length: u64,
    },
    Zeros(u64),
}

impl Place<'_> {
    pub fn length(&self) -> u64 {
        match self {
            Place::Image(bytes) => bytes.len() as u64,
            Place::Device { length, .. } | Place::Zeros(length) => *length,
        }
    }
}

pub struct Erofs<B> {
    bytes: B,
    pub root: u64,
    pub blocks: u64,
    pub inodes: u64,
    /// Slots of the device table.
    pub devices: u16,
    meta: u64,
    xattrs: u64,
    seconds: i64,
    nanoseconds: u32,
}

impl<B: AsRef<[u8]>> Erofs<B> {
    /// Checks superblock and root directory; the error is a sentence.
    pub fn open(bytes: B) -> Result<Self, String> {
        let image = bytes.as_ref();
        let superblock = slice(image, SUPERBLOCK, 128).ok_or("image: no room for a superblock")?;
        let word = |at| u32_at(superblock, at).unwrap_or(0);
        if word(0) != MAGIC {
            return Err("image: not EROFS".into());
        }
        if u8_at(superblock, 12) != Some(BLOCK_BITS) {
            return Err("image: blocks are not of 4096 bytes".into());
        }
        let unknown = word(80) & !INCOMPAT_KNOWN;
        if unknown != 0 || u8_at(superblock, 90) != Some(0) {
            return Err(format!("image: features 0x{unknown:x} are not supported"));
        }
        let erofs = Self {
            root: u64::from(u16_at(superblock, 14).unwrap_or(0)),
            inodes: u64_at(superblock, 16).unwrap_or(0),
            seconds: u64_at(superblock, 24).unwrap_or(0) as i64,
            nanoseconds: word(32),
            blocks: u64::from(word(36)),
            meta: u64::from(word(40)) * BLOCK,
            xattrs: u64::from(word(44)) * BLOCK,
            devices: if word(80) & 0x8 == 0 { 0 } else { u16_at(superblock, 86).unwrap_or(0) },
            bytes,
        };
        match erofs.inode(erofs.root) {
            Ok(root) if root.is_directory() => Ok(erofs),
            _ => Err("image: the root is not a directory".into()),
        }
    }

    fn image(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    pub fn inode(&self, nid: u64) -> Outcome<Inode> {
        let at = sound(nid.checked_mul(32).and_then(|offset| offset.checked_add(self.meta)))?;
        let image = self.image();
        let format = sound(u16_at(image, at))?;
        let layout = match format >> 1 {
            0 => Layout::Plain,
            2 => Layout::Inline,
            4 => Layout::Chunks,
            _ => return Err(libc::EUCLEAN),
        };
        let extended = format & 1 == 1;
        let header = if extended { 64 } else { 32 };
        let raw = sound(slice(image, at, header))?;
        let (half, word, long) =
            (|at| u16_at(raw, at).unwrap_or(0), |at| u32_at(raw, at).unwrap_or(0), |at| u64_at(raw, at).unwrap_or(0));
        let xattrs_length = match half(2) {
            0 => 0,
            count => 12 + 4 * (u64::from(count) - 1),
        };
        let common = Inode {
            nid,
            mode: u32::from(half(4)),
            links: u32::from(half(6)),
            uid: u32::from(half(24)),
            gid: u32::from(half(26)),
            size: u64::from(word(8)),
            seconds: self.seconds,
            nanoseconds: self.nanoseconds,
            layout,
            word: word(16),
            xattrs: at + header,
            xattrs_length,
        };
        let inode = if extended {
            Inode {
                links: word(44),
                uid: word(24),
                gid: word(28),
                size: long(8),
                seconds: long(32) as i64,
                nanoseconds: word(40),
                ..common
            }
        } else {
            common
        };
        // the kernel's own bounds: loff_t, and nanoseconds below a second
        if inode.size > i64::MAX as u64 || inode.nanoseconds >= 1_000_000_000 {
            return Err(libc::EUCLEAN);
        }
        Ok(inode)
    }

    /// Bytes `from` … `to` of a file laid out flat, cut at the end of the block that `from` is in where a tail may follow.
    fn flat(&self, inode: &Inode, from: u64, to: u64) -> Outcome<&[u8]> {
        let last = (inode.size.max(1) - 1) / BLOCK;
        let (at, to) = if inode.layout == Layout::Inline && from / BLOCK == last {
            (sound(inode.tail().checked_add(from % BLOCK))?, to)
        } else {
            let start = u64::from(inode.word) * BLOCK;
            let to = if inode.layout == Layout::Inline { to.min(last * BLOCK) } else { to };
            (sound(start.checked_add(from))?, to)
        };
        sound(slice(self.image(), at, sound(to.checked_sub(from))?))
    }

    /// The place of the first bytes of `from` … `to`, which must lie within the file; at least one byte.
    pub fn place(&self, inode: &Inode, from: u64, to: u64) -> Outcome<Place<'_>> {
        if inode.layout != Layout::Chunks {
            return self.flat(inode, from, to).map(Place::Image);
        }
        let format = inode.word;
        if format & !(CHUNK_BITS_MASK | CHUNK_INDEXES) != 0 {
            return Err(libc::EUCLEAN);
        }
        let bits = u32::from(BLOCK_BITS) + (format & CHUNK_BITS_MASK);
        let number = from >> bits;
        let within = from - (number << bits);
        let length = (to - from).min((1 << bits) - within);
        let unit = if format & CHUNK_INDEXES == 0 { 4 } else { 8 };
        let index = sound(number.checked_mul(unit).and_then(|offset| offset.checked_add(inode.tail().next_multiple_of(unit))))?;
        let (slot, block) = if unit == 4 {
            (0, sound(u32_at(self.image(), index))?)
        } else {
            (sound(u16_at(self.image(), index + 2))?, sound(u32_at(self.image(), index + 4))?)
        };
        if block == HOLE {
            return Ok(Place::Zeros(length));
        }
        let at = sound((u64::from(block) * BLOCK).checked_add(within))?;
        match slot {
            0 => sound(slice(self.image(), at, length)).map(Place::Image),
            slot if slot <= self.devices => Ok(Place::Device { slot, at, length }),
            _ => Err(libc::EUCLEAN),
        }
    }

    /// A symlink's target.
    pub fn link(&self, inode: &Inode) -> Outcome<&[u8]> {
        if inode.kind() != S_IFLNK {
            return Err(libc::EINVAL);
        }
        if inode.size == 0 || inode.size > LINK_MAX || inode.layout == Layout::Chunks {
            return Err(libc::EUCLEAN);
        }
        self.flat(inode, 0, inode.size)
    }
}

#[cfg(test)]
mod tests;
