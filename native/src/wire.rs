//! The FUSE protocol as bytes (`include/uapi/linux/fuse.h`), version 7.41: what we read of requests and write in answers.
#![forbid(unsafe_code)]

use crate::bytes::{u32_at, u64_at};

// Both machines we run on are little-endian, and the protocol is the host's order.
#[cfg(not(target_endian = "little"))]
compile_error!("the wire format is written little-endian");

pub const ROOT_ID: u64 = 1;

pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const TMPFILE: u32 = 51;
}

pub const NOTIFY_INVAL_INODE: i32 = 2;
pub const NOTIFY_INVAL_ENTRY: i32 = 3;

pub const IN_HEADER: usize = 40;
pub const OUT_HEADER: usize = 16;

/// The largest READ: 256 pages.
pub const MAX_READ: usize = 1 << 20;
const MAX_PAGES: u16 = 256;
/// Nothing is ever written.
const MAX_WRITE: u32 = 4096;
/// A buffer for any request: the longest the kernel sends is SETXATTR with a name of 256 bytes and a value of 64 KiB.
pub const REQUEST_BYTES: usize = 72 << 10;
/// Reads that wait for a chunk occupy the kernel's background queue, whose default of 12 would let them stop all read-ahead.
const MAX_BACKGROUND: u16 = 1024;
const CONGESTION: u16 = 768;
/// The kernel takes the smaller of this and what the mount's bdi says, so the bdi decides.
const MAX_READAHEAD: u32 = 64 << 20;
const MINOR: u32 = 41;
/// 7.23 made INIT's answer 64 bytes long.
const MINOR_MIN: u32 = 23;

const ASYNC_READ: u64 = 1;
const DO_READDIRPLUS: u64 = 1 << 13;
const ASYNC_DIO: u64 = 1 << 15;
const NO_OPEN_SUPPORT: u64 = 1 << 17;
const PARALLEL_DIROPS: u64 = 1 << 18;
const POSIX_ACL: u64 = 1 << 20;
const ABORT_ERROR: u64 = 1 << 21;
const MAX_PAGES_FLAG: u64 = 1 << 22;
const CACHE_SYMLINKS: u64 = 1 << 23;
const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
const INIT_EXT: u64 = 1 << 30;
const HAS_RESEND: u64 = 1 << 39;
const ALLOW_IDMAP: u64 = 1 << 40;
/// Everything here is a reading file system's; locks stay the kernel's (engines lock files of read-only stores). With ACLs the kernel asks
/// for those of every file and directory whose mode alone does not tell, once: without, it would go by the mode, which is more than an ACL
/// that denies somebody allows.
const WANTED: u64 = ASYNC_READ
    | DO_READDIRPLUS
    | ASYNC_DIO
    | NO_OPEN_SUPPORT
    | PARALLEL_DIROPS
    | POSIX_ACL
    | ABORT_ERROR
    | MAX_PAGES_FLAG
    | CACHE_SYMLINKS
    | NO_OPENDIR_SUPPORT
    | INIT_EXT
    | HAS_RESEND
    | ALLOW_IDMAP;

pub const OPEN_KEEP_CACHE: u32 = 1 << 1;
pub const OPEN_CACHE_DIR: u32 = 1 << 3;

/// For how long the kernel may believe something, in seconds.
pub const NOT_AT_ALL: u64 = 0;
/// 68 years: longer than any mount, and far from overflowing jiffies.
pub const FOR_EVER: u64 = 1 << 31;

/// A request as it came.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    /// The thread that asks, as our PID namespace numbers it; 0 when it is in none below ours. Its user the kernel tells only to those who
    /// do not have idmapped mounts.
    pub pid: u32,
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// None when the bytes are no request: then there is nothing to answer to.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            opcode: u32_at(bytes, 4)?,
            unique: u64_at(bytes, 8)?,
            node: u64_at(bytes, 16)?,
            pid: u32_at(bytes, 32)?,
            body: bytes.get(IN_HEADER..)?,
        })
    }

    /// The NUL-terminated name that follows `skip` bytes of arguments.
    pub fn name(&self, skip: usize) -> Option<&'a [u8]> {
        let rest = self.body.get(skip..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        rest.get(..end)
    }

    /// Offset and size of READ, READDIR and READDIRPLUS.
    pub fn window(&self) -> Option<(u64, u32)> {
        Some((u64_at(self.body, 8)?, u32_at(self.body, 16)?))
    }

    /// The first number of the arguments: size of GETXATTR and LISTXATTR.
    pub fn size(&self) -> Option<u32> {
        u32_at(self.body, 0)
    }

    /// Calls `each` with the nodes of FORGET or BATCH_FORGET, and how often the kernel was told of each.
    pub fn forgotten(&self, mut each: impl FnMut(u64, u64)) {
        if self.opcode == op::FORGET {
            if let Some(times) = u64_at(self.body, 0) {
                each(self.node, times);
            }
            return;
        }
        // struct fuse_batch_forget_in { u32 count, u32 dummy }, then count times { u64 nodeid, u64 nlookup }
        let count = u32_at(self.body, 0).unwrap_or(0) as usize;
        let records = self.body.get(8..).unwrap_or_default();
        for record in records.chunks_exact(16).take(count) {
            if let (Some(node), Some(times)) = (u64_at(record, 0), u64_at(record, 8)) {
                each(node, times);
            }
        }
    }

    /// The request that an INTERRUPT is about.
    pub fn interrupted(&self) -> Option<u64> {
        u64_at(self.body, 0)
    }
}

/// struct fuse_out_header for an answer or a notification of `length` bytes after it.
pub fn out_header(length: usize, error: i32, unique: u64) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    let total = u32::try_from(OUT_HEADER + length).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&total.to_le_bytes());
    header[4..8].copy_from_slice(&error.to_le_bytes());
    header[8..].copy_from_slice(&unique.to_le_bytes());
    header
}

/// struct fuse_init_out in answer to a fuse_init_in; None when the kernel's version is not one we speak.
pub fn init(body: &[u8]) -> Option<[u8; 64]> {
    let major = u32_at(body, 0)?;
    let minor = u32_at(body, 4)?;
    if major != 7 || minor < MINOR_MIN {
        return None;
    }
    let offered = u64::from(u32_at(body, 12)?);
    let offered = if offered & INIT_EXT == 0 { offered } else { offered | u64::from(u32_at(body, 16)?) << 32 };
    let flags = offered & WANTED;
    let mut out = [0; 64];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &7u32.to_le_bytes());
    put(4, &minor.min(MINOR).to_le_bytes());
    put(8, &MAX_READAHEAD.to_le_bytes());
    put(12, &((flags & 0xffff_ffff) as u32).to_le_bytes());
    put(16, &MAX_BACKGROUND.to_le_bytes());
    put(18, &CONGESTION.to_le_bytes());
    put(20, &MAX_WRITE.to_le_bytes());
    put(24, &1u32.to_le_bytes()); // time_gran: nanoseconds
    put(28, &MAX_PAGES.to_le_bytes());
    put(32, &((flags >> 32) as u32).to_le_bytes());
    Some(out)
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
    fn init_takes_what_it_wants_of_what_is_offered() {
        let mut body = vec![0; 64];
        body[0] = 7;
        body[4] = 45;
        body[12..16].fill(0xff);
        body[16..20].fill(0xff);
        let out = init(&body).unwrap();
        assert_eq!(u64::from(u32_at(&out, 12).unwrap()) | u64::from(u32_at(&out, 32).unwrap()) << 32, WANTED);
        assert_eq!(u32_at(&out, 4), Some(MINOR));
        // no FUSE_INIT_EXT: the second word is not the kernel's
        body[15] = 0;
        assert_eq!(u32_at(&init(&body).unwrap(), 32), Some(0));
        // neither file locks nor flock
        assert_eq!(WANTED & (1 << 1 | 1 << 10), 0);
        body[0] = 8;
        assert!(init(&body).is_none());
        assert!(init(&[7, 0, 0]).is_none());
    }

    #[test]
    fn what_is_forgotten_is_what_the_request_holds_and_no_more() {
        let forgotten = |opcode, body: &[u8]| {
            let mut all = Vec::new();
            Request { opcode, unique: 0, node: 9, pid: 0, body }.forgotten(|node, times| all.push((node, times)));
            all
        };
        assert_eq!(forgotten(op::FORGET, &3u64.to_le_bytes()), [(9, 3)]);
        assert_eq!(forgotten(op::FORGET, &[3, 0, 0]), []);
        let mut body = [2u32, 0].map(u32::to_le_bytes).concat();
        body.extend([5u64, 1, 6, 2, 7].map(u64::to_le_bytes).concat());
        assert_eq!(forgotten(op::BATCH_FORGET, &body), [(5, 1), (6, 2)]);
        body[0] = 1;
        assert_eq!(forgotten(op::BATCH_FORGET, &body), [(5, 1)]);
        body[..4].fill(0xff);
        assert_eq!(forgotten(op::BATCH_FORGET, &body), [(5, 1), (6, 2)]);
        assert_eq!(forgotten(op::BATCH_FORGET, &body[..6]), []);
    }

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

    #[test]
    fn a_name_ends_at_its_nul() {
        let request = Request { opcode: 1, unique: 1, node: 1, pid: 0, body: b"ab\0cd" };
        assert_eq!(request.name(0), Some(&b"ab"[..]));
        assert_eq!(request.name(3), None);
        assert_eq!(request.name(9), None);
    }
}
