//! A tree as an EROFS image that holds metadata only (`src/tree/erofs.ts` draws it).

use std::collections::BTreeMap;

use libc::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

use super::BLOCK;
use super::time::Time;
use crate::erofs::MAGIC;
use crate::erofs::xattrs::PREFIXES;

const IMAGE_MAX: u64 = 1 << 30;
const SUPER: usize = 1024;
const SUPER_BYTES: usize = 128;
const SLOT_BYTES: usize = 128;
const DEVICE_TABLE: usize = SUPER + SUPER_BYTES;
const NID_BYTES: u64 = 32;
const INODE_BYTES: u64 = 64;
const DIRENT_BYTES: u64 = 12;
const CHUNK_INDEX_BYTES: u64 = 8;
/// 8-byte indexes, chunks of 2^(12 + 31) bytes: one index a file.
const CHUNK_FORMAT: u32 = 0x20 | 31;
const EXTENDED: u16 = 1;
const PLAIN: u16 = 0;
const INLINE: u16 = 2;
const CHUNKS: u16 = 4;
const XATTR_HEADER: u64 = 12;
const XATTR_ENTRY: u64 = 4;

/// A hard link is one inode under several names.
pub struct Inode<'s> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: Time,
    pub size: u64,
    /// As Linux packs it.
    pub rdev: u32,
    pub target: Option<&'s str>,
    pub xattrs: Vec<(&'s str, &'s [u8])>,
    /// Where on the device a file's bytes are, unless it is empty.
    pub content: Option<u64>,
    /// A directory's, by name.
    pub children: Option<BTreeMap<&'s str, usize>>,
}

impl Inode<'_> {
    pub fn new(mode: u32, uid: u32, gid: u32, time: Time) -> Self {
        let (size, rdev, target, xattrs, content, children) = (0, 0, None, Vec::new(), None, None);
        Self { mode, uid, gid, time, size, rdev, target, xattrs, content, children }
    }
}

pub fn xattr_prefix(name: &str) -> Option<(u8, &'static str)> {
    let is_it = |prefix: &str| if prefix.ends_with('.') { name.starts_with(prefix) } else { name == prefix };
    PREFIXES.into_iter().find(|(_, prefix)| is_it(prefix))
}

/// What a name has behind its prefix, and the prefix's number.
fn numbered(name: &str) -> (u8, &str) {
    xattr_prefix(name).map_or((0, name), |(number, prefix)| (number, &name[prefix.len()..]))
}

/// Header included; 0 without any.
pub fn xattrs_bytes(xattrs: &[(&str, &[u8])]) -> u64 {
    let bytes = |(name, value): &(&str, &[u8])| (XATTR_ENTRY + (numbered(name).1.len() + value.len()) as u64).next_multiple_of(4);
    if xattrs.is_empty() { 0 } else { XATTR_HEADER + xattrs.iter().map(bytes).sum::<u64>() }
}

/// A directory by its number, and where its entries are.
struct Listing {
    number: usize,
    first: usize,
    end: usize,
}

/// Inodes numbered in the order of the image, in columns; places are bytes from its start.
struct Plan<'i, 's> {
    inodes: Vec<&'i Inode<'s>>,
    nlinks: Vec<u32>,
    listings: Vec<Listing>,
    names: Vec<&'s str>,
    numbers: Vec<usize>,
    offsets: Vec<u64>,
    /// Of a directory's entries, or of a symlink's target; as many of their last bytes as lie behind the inode.
    data: Vec<u64>,
    tails: Vec<u64>,
    /// Where the rest of that is; 0: nowhere.
    plain: Vec<u64>,
}

/// @param tag 64 digits: what the device holds, which has so many `blocks`
pub fn write(inodes: &[Inode], tag: &str, blocks: u32) -> Option<Vec<u8>> {
    let mut plan = number(inodes)?;
    let start = ((DEVICE_TABLE + SLOT_BYTES) as u64).next_multiple_of(BLOCK);
    let end = plan.place_inodes(start)?;
    let size = plan.place_plain(end.next_multiple_of(BLOCK))?;
    let mut image = Bytes(vec![0; usize::try_from(size).ok()?]);
    for number in 0..plan.inodes.len() {
        plan.write_inode(number, &mut image);
    }
    for listing in &plan.listings {
        plan.write_entries(listing, &mut image);
    }
    image.u32(SUPER, MAGIC);
    image.u32(SUPER + 8, 0x1 | 0x2); // the checksum counts; times are mtimes
    image.set(SUPER + 12, &[12]); // bits of a block
    image.u16(SUPER + 14, u16::try_from(plan.nid(0)).ok()?);
    image.u64(SUPER + 16, plan.inodes.len() as u64);
    image.u32(SUPER + 36, u32::try_from(size / BLOCK).ok()?);
    image.u32(SUPER + 80, 0x4 | 0x8); // chunk-based files; a device table
    image.u16(SUPER + 86, 1);
    image.u16(SUPER + 88, (DEVICE_TABLE / SLOT_BYTES) as u16);
    image.set(DEVICE_TABLE, tag.as_bytes());
    image.u32(DEVICE_TABLE + 64, blocks);
    let checksum = crc32c(&image.0[SUPER..BLOCK as usize]);
    image.u32(SUPER + 4, checksum);
    Some(image.0)
}

/// Children are numbered side by side, so that a walk reads forward.
fn number<'i, 's>(inodes: &'i [Inode<'s>]) -> Option<Plan<'i, 's>> {
    const NONE: usize = usize::MAX;
    let mut order = vec![0];
    let mut number_of = vec![NONE; inodes.len()];
    *number_of.first_mut()? = 0;
    let mut nlinks = vec![2_u32];
    let mut listings = Vec::new();
    let (mut names, mut numbers) = (Vec::new(), Vec::new());
    let mut pending = vec![(0, 0)];
    while let Some((number, parent)) = pending.pop() {
        let children = inodes[order[number]].children.as_ref()?;
        let first = names.len();
        let below = pending.len();
        let mut dots = [(".", number), ("..", parent)].into_iter().peekable();
        for (&name, &child) in children {
            while let Some((dot, of)) = dots.next_if(|&(dot, _)| dot < name) {
                names.push(dot);
                numbers.push(of);
            }
            let mut of = number_of[child];
            if of == NONE {
                of = order.len();
                number_of[child] = of;
                order.push(child);
                if inodes[child].children.is_some() {
                    nlinks.push(2);
                    nlinks[number] += 1;
                    pending.push((of, number));
                } else {
                    nlinks.push(1);
                }
            } else {
                nlinks[of] += 1;
            }
            names.push(name);
            numbers.push(of);
        }
        for (dot, of) in dots {
            names.push(dot);
            numbers.push(of);
        }
        pending[below..].reverse();
        listings.push(Listing { number, first, end: names.len() });
    }
    let count = order.len();
    let mut data = vec![0; count];
    for listing in &listings {
        data[listing.number] = entries_bytes(&names[listing.first..listing.end]);
    }
    let (offsets, tails, plain) = (vec![0; count], vec![0; count], vec![0; count]);
    let inodes = order.into_iter().map(|at| &inodes[at]).collect();
    Some(Plan { inodes, nlinks, listings, names, numbers, offsets, data, tails, plain })
}

fn entry_bytes(name: &str) -> u64 {
    DIRENT_BYTES + name.len() as u64
}

/// So many of the names fit a block, and what they take.
fn fitting(names: &[&str]) -> (usize, u64) {
    let mut used = 0;
    for (i, name) in names.iter().enumerate() {
        if used + entry_bytes(name) > BLOCK {
            return (i, used);
        }
        used += entry_bytes(name);
    }
    (names.len(), used)
}

/// What a directory's entries take: whole blocks, then the used part of the last.
fn entries_bytes(mut names: &[&str]) -> u64 {
    let mut bytes = 0;
    loop {
        let (count, used) = fitting(names);
        names = &names[count..];
        if names.is_empty() {
            return bytes + used;
        }
        bytes += BLOCK;
    }
}

impl Plan<'_, '_> {
    fn nid(&self, number: usize) -> u64 {
        self.offsets[number] / NID_BYTES
    }

    /// An inode with what lies behind it crosses no block unless it is larger than one.
    fn place_inodes(&mut self, start: u64) -> Option<u64> {
        let mut at = start;
        for (i, inode) in self.inodes.iter().enumerate() {
            if let Some(target) = inode.target {
                self.data[i] = target.len() as u64;
            }
            let mut size = INODE_BYTES + xattrs_bytes(&inode.xattrs);
            let tail = self.data[i] % BLOCK;
            if inode.content.is_some() {
                size = size.next_multiple_of(CHUNK_INDEX_BYTES) + CHUNK_INDEX_BYTES;
            } else if size + tail <= BLOCK {
                self.tails[i] = tail;
                size += tail;
            }
            let room = BLOCK - at % BLOCK;
            if size > room {
                at += room;
            }
            self.offsets[i] = at;
            at = (at + size).next_multiple_of(NID_BYTES);
        }
        (at <= IMAGE_MAX).then_some(at)
    }

    fn place_plain(&mut self, start: u64) -> Option<u64> {
        let mut at = start;
        for (i, bytes) in self.data.iter().enumerate() {
            let plain = (bytes - self.tails[i]).next_multiple_of(BLOCK);
            if plain > 0 {
                self.plain[i] = at;
                at += plain;
            }
        }
        (at <= IMAGE_MAX).then_some(at)
    }

    fn write_inode(&self, i: usize, image: &mut Bytes) {
        let inode = self.inodes[i];
        let at = self.offsets[i] as usize;
        let kind = inode.mode & S_IFMT;
        let xattrs = xattrs_bytes(&inode.xattrs);
        let layout = match (inode.content, self.tails[i]) {
            (Some(_), _) => CHUNKS,
            (None, 0) => PLAIN,
            _ => INLINE,
        };
        image.u16(at, EXTENDED | (layout << 1));
        image.u16(at + 2, if xattrs == 0 { 0 } else { ((xattrs - XATTR_HEADER) / 4 + 1) as u16 });
        image.u16(at + 4, inode.mode as u16);
        image.u64(at + 8, if kind == S_IFREG { inode.size } else { self.data[i] });
        let word = match inode.content {
            Some(_) => CHUNK_FORMAT,
            None if kind == S_IFCHR || kind == S_IFBLK => inode.rdev,
            None => (self.plain[i] / BLOCK) as u32,
        };
        image.u32(at + 16, word);
        image.u32(at + 20, i as u32 + 1);
        image.u32(at + 24, inode.uid);
        image.u32(at + 28, inode.gid);
        image.u64(at + 32, inode.time.seconds as u64); // its bits
        image.u32(at + 40, inode.time.nanoseconds);
        image.u32(at + 44, self.nlinks[i]);
        write_xattrs(&inode.xattrs, at + INODE_BYTES as usize, image);
        let behind = at as u64 + INODE_BYTES + xattrs;
        if let Some(content) = inode.content {
            let index = behind.next_multiple_of(CHUNK_INDEX_BYTES) as usize;
            image.u16(index + 2, 1);
            image.u32(index + 4, (content / BLOCK) as u32);
        } else if let Some(target) = inode.target {
            image.set(if self.tails[i] > 0 { behind } else { self.plain[i] } as usize, target.as_bytes());
        }
    }

    /// Blocks of entries, each: the entries in order, then their names; the last block may lie behind the inode.
    fn write_entries(&self, listing: &Listing, image: &mut Bytes) {
        let number = listing.number;
        let tail = self.offsets[number] + INODE_BYTES + xattrs_bytes(&self.inodes[number].xattrs);
        let mut plain = self.plain[number];
        let mut i = listing.first;
        while i < listing.end {
            let (count, _) = fitting(&self.names[i..listing.end]);
            let stop = i + count;
            let at = if stop == listing.end && self.tails[number] > 0 { tail } else { plain } as usize;
            let mut name_at = count * DIRENT_BYTES as usize;
            for (place, entry) in (i..stop).enumerate() {
                let at_entry = at + place * DIRENT_BYTES as usize;
                let child = self.numbers[entry];
                image.u64(at_entry, self.nid(child));
                image.u16(at_entry + 8, name_at as u16);
                image.set(at_entry + 10, &[file_type(self.inodes[child].mode)]);
                image.set(at + name_at, self.names[entry].as_bytes());
                name_at += self.names[entry].len();
            }
            plain += BLOCK;
            i = stop;
        }
    }
}

/// By name, so that equal sets have equal bytes.
fn write_xattrs(xattrs: &[(&str, &[u8])], start: usize, image: &mut Bytes) {
    let mut sorted = xattrs.to_vec();
    sorted.sort_by_key(|(name, _)| *name);
    let mut at = start + XATTR_HEADER as usize;
    for (name, value) in sorted {
        let (index, rest) = numbered(name);
        image.set(at, &[rest.len() as u8, index]);
        image.u16(at + 2, value.len() as u16);
        image.set(at + 4, rest.as_bytes());
        image.set(at + 4 + rest.len(), value);
        at = (at + 4 + rest.len() + value.len()).next_multiple_of(4);
    }
}

/// Linux's generic FT_* numbers.
fn file_type(mode: u32) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFSOCK => 6,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// CRC-32C (Castagnoli), seeded with all ones and not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// Little-endian numbers into bytes.
struct Bytes(Vec<u8>);

impl Bytes {
    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u16(&mut self, at: usize, value: u16) {
        self.set(at, &value.to_le_bytes());
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_le_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.set(at, &value.to_le_bytes());
    }
}
