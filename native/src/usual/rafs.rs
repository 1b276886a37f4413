//! The bootstrap of a nydus image, RAFS version 6, whose chunk table has every chunk (`src/format/nydus` draws it, and reads all others).

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use libc::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};

use super::grow::is_deep;
use super::time::Time;
use super::toc::XATTRS_MAX;
use super::{Algorithm, BLOCK, Blob, CHUNK_MAX_BYTES, CHUNK_STORED_MAX_BYTES, Check, Chunk, Digest, ENTRIES_MAX};
use super::{Entry, Extent, Layer, Part, SAFE_MAX, Source};
use crate::bytes::{slice, u8_at, u16_at, u32_at, u64_at};
use crate::erofs::MAGIC;
use crate::erofs::xattrs::xattr;

/// Of an index as `src/format/nydus/nydus-index.ts` packs it.
const INDEX_MAGIC: u32 = 0x786e_796e;
const BOOTSTRAP: u32 = 0;
const BLOB_SIZE: u32 = 5;

const IS_RAFS: u32 = 0x4000_0000;
const INCOMPAT: u32 = 0xc;
const BLOCK_BITS: u8 = 12;
const NYDUS: u64 = 1152;
/// RafsSuperFlags.
const COMPRESSIONS: u64 = 0x1 | 0x2 | 0x40 | 0x80;
const DIGESTS: u64 = 0x4 | 0x8;
const EXPLICIT_IDS: u64 = 0x10;
const FLAGS_KNOWN: u64 = COMPRESSIONS | DIGESTS | EXPLICIT_IDS | 0x20 | 0x100 | 0x0100_0000 | 0xfc00_0000;
/// BlobFeatures that change what a chunk is, among them zran and batches; those above bit 15 do not.
const FEATURES_UNUSUAL: u32 = 0xffff & !(0x1 | 0x2 | 0x4 | 0x20);
const FEATURE_TOC: u32 = 0x2000_0000;
const TOC_NAME: &str = "rafs.blob.toc";
const BLOB_BYTES: u64 = 256;
const BLOBS_MAX: u64 = 255;
const RECORD_BYTES: u64 = 80;
const CHUNK_NUMBERS: u32 = 1 << 24;
const CHUNKS_MAX: u64 = 1_500_000;
const CHUNK_BYTES_MAX: u32 = 16 << 20;
const CHUNK_BYTES_MIN: u32 = 4 << 10;
const COMPRESSED: u32 = 0x1;
const NONE: u32 = u32::MAX;
/// Numbers of chunks that are in blobs and not in the table.
const SKIPPED_MAX: usize = 1 << 20;
const ENTRIES_EXPECTED: usize = 4096;
const FLAGS_UNUSUAL: u32 = 0x4 | 0x8; // encrypted, in a batch
const ADDRESS_BYTES: u64 = 8;
const NID_BYTES: u64 = 32;
const DIRENT_BYTES: usize = 12;
const XATTR_HEADER: u64 = 12;
const XATTR_ENTRY: u64 = 4;
const SECOND: u32 = 1_000_000_000;
/// Of all paths.
const LETTERS_MAX: usize = 64 << 20;

pub fn nydus<'a>(index: &'a [u8], layer: &Layer) -> Option<Source<'a>> {
    let (bootstrap, sizes) = unpack(index)?;
    let head = head(bootstrap)?;
    let blobs = blobs(bootstrap, &head)?;
    let records = records(bootstrap, &head, &blobs)?;
    let mut walk = Walk {
        bytes: bootstrap,
        head,
        records,
        named: Vec::new(),
        firsts: vec![NONE; bootstrap.len() / NID_BYTES as usize + 1],
        entries: Vec::with_capacity(ENTRIES_EXPECTED),
        extents: Vec::new(),
        taken: 0,
        letters: 0,
    };
    walk.run()?;
    let prefetched = walk.prefetched()?;
    if walk.entries.iter().any(|entry| entry.path.split('/').any(|name| name.starts_with(".wh."))) {
        return None;
    }
    finish(walk, &prefetched, &blobs, &sizes, layer)
}

/// The bootstrap, and what a registry said of blobs' sizes.
fn unpack(index: &[u8]) -> Option<(&[u8], HashMap<u32, u64>)> {
    if u32_at(index, 0)? != INDEX_MAGIC {
        return None;
    }
    let count = u64::from(u32_at(index, 4)?);
    let mut at = 8 + 16 * count;
    let mut bootstrap = None;
    let mut sizes = HashMap::new();
    for part in 0..count {
        let (kind, blob) = (u32_at(index, 8 + 16 * part)?, u32_at(index, 12 + 16 * part)?);
        let bytes = slice(index, at, u64_at(index, 16 + 16 * part)?)?;
        at += bytes.len() as u64;
        match kind {
            BOOTSTRAP if bootstrap.is_none() => bootstrap = Some(bytes),
            BLOB_SIZE if bytes.len() == 8 => {
                sizes.insert(blob, u64_at(bytes, 0)?).is_none().then_some(())?;
            }
            _ => return None,
        }
    }
    Some((bootstrap?, sizes))
}

struct Head {
    root: u64,
    inodes_at: u64,
    chunk_size: u64,
    has_owners: bool,
    blobs: Range<u64>,
    records: Range<u64>,
    prefetch: Range<u64>,
}

fn head(of: &[u8]) -> Option<Head> {
    slice(of, 0, NYDUS + 256)?;
    let flags = u64_at(of, NYDUS)?;
    let is_usual = u32_at(of, 1024)? == MAGIC
        && u32_at(of, 1032)? & IS_RAFS != 0
        && u32_at(of, 1104)? == INCOMPAT
        && u8_at(of, 1036)? == BLOCK_BITS
        && flags & !FLAGS_KNOWN == 0
        && (flags & COMPRESSIONS).is_power_of_two()
        && (flags & DIGESTS).is_power_of_two();
    let chunk_size = u32_at(of, NYDUS + 20)?;
    if !is_usual || !chunk_size.is_power_of_two() || !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk_size) {
        return None;
    }
    let table = |at: u64, size: u64, entry: u64| -> Option<Range<u64>> {
        if size == 0 {
            return Some(0..0);
        }
        slice(of, at, size)?;
        size.is_multiple_of(entry).then_some(at..at + size)
    };
    let first_at = u64_at(of, NYDUS + 40)?;
    let first_bytes = if first_at == 0 { 0 } else { u32_at(of, NYDUS + 48)?.into() };
    let blobs = table(u64_at(of, NYDUS + 8)?, u32_at(of, NYDUS + 16)?.into(), BLOB_BYTES)?;
    let records = table(u64_at(of, NYDUS + 24)?, u64_at(of, NYDUS + 32)?, RECORD_BYTES)?;
    if (blobs.end - blobs.start) / BLOB_BYTES > BLOBS_MAX || (records.end - records.start) / RECORD_BYTES > CHUNKS_MAX {
        return None;
    }
    Some(Head {
        root: u16_at(of, 1038)?.into(),
        inodes_at: u64::from(u32_at(of, 1064)?) * BLOCK,
        chunk_size: chunk_size.into(),
        has_owners: flags & EXPLICIT_IDS != 0,
        blobs,
        records,
        prefetch: table(first_at, first_bytes, 4)?,
    })
}

struct RafsBlob {
    /// 64 hex digits.
    id: String,
    /// As the chunk table numbers it.
    codec: u8,
    algorithm: Algorithm,
    stored_size: u64,
    has_toc: bool,
}

fn blobs(of: &[u8], head: &Head) -> Option<Vec<RafsBlob>> {
    let mut blobs = Vec::new();
    for at in head.blobs.clone().step_by(BLOB_BYTES as usize) {
        let features = u32_at(of, at + 84)?;
        let is_usual = u64::from(u32_at(of, at + 64)?) == blobs.len() as u64
            && features & FEATURES_UNUSUAL == 0
            && u32_at(of, at + 216)? == 0
            && u32_at(of, at + 72)? <= CHUNK_NUMBERS
            && u32_at(of, at + 108)? <= 3
            && [88, 112, 120, 128].into_iter().all(|field| u64_at(of, at + field).is_some_and(|value| value <= SAFE_MAX));
        let id = std::str::from_utf8(slice(of, at, 64)?).ok()?;
        if !is_usual || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        blobs.push(RafsBlob {
            id: id.to_owned(),
            codec: match u32_at(of, at + 76)? {
                0 => 0,
                1 => 3, // lz4
                3 => 2, // zstd
                _ => return None,
            },
            algorithm: match u32_at(of, at + 80)? {
                0 => Algorithm::Blake3,
                1 => Algorithm::Sha256,
                _ => return None,
            },
            stored_size: u64_at(of, at + 88)?,
            has_toc: features & FEATURE_TOC != 0,
        });
    }
    Some(blobs)
}

/// A chunk of a file, by its record.
struct Record {
    blob: u32,
    digest: Digest,
    compressed: bool,
    stored: Range<u64>,
    size: u64,
    /// Its number among those that files name.
    number: u32,
}

struct Records {
    all: Vec<Record>,
    /// By blob, and number in it: places in `all`.
    places: Vec<Vec<u32>>,
}

impl Records {
    fn get_mut(&mut self, blob: u32, index: u32) -> Option<(u32, &mut Record)> {
        let place = *self.places.get(blob as usize)?.get(index as usize)?;
        self.all.get_mut(place as usize).map(|record| (place, record))
    }
}

fn records(of: &[u8], head: &Head, blobs: &[RafsBlob]) -> Option<Records> {
    let count = ((head.records.end - head.records.start) / RECORD_BYTES) as usize;
    let mut all = Vec::with_capacity(count);
    // an image shares few chunks with others, whose blobs have more than it uses
    let mut room = 2 * count + SKIPPED_MAX;
    let mut places: Vec<Vec<u32>> = blobs.iter().map(|_| Vec::new()).collect();
    for (place, at) in (0..).zip(head.records.clone().step_by(RECORD_BYTES as usize)) {
        let blob = u32_at(of, at + 32)?;
        let flags = u32_at(of, at + 36)?;
        let size = u32_at(of, at + 44)?;
        let index = u32_at(of, at + 72)? as usize;
        let start = u64_at(of, at + 48)?;
        let is_usual = flags & FLAGS_UNUSUAL == 0
            && (1..=CHUNK_BYTES_MAX).contains(&size)
            && index < CHUNK_NUMBERS as usize
            && start <= SAFE_MAX
            && u64_at(of, at + 64)? <= SAFE_MAX;
        let algorithm = blobs.get(blob as usize)?.algorithm;
        let of_blob = places.get_mut(blob as usize)?;
        if !is_usual {
            return None;
        }
        if index >= of_blob.len() {
            room = room.checked_sub(index + 1 - of_blob.len())?;
            of_blob.resize(index + 1, NONE);
        }
        if std::mem::replace(&mut of_blob[index], place) != NONE {
            return None;
        }
        all.push(Record {
            blob,
            digest: Digest { algorithm, bytes: slice(of, at, 32)?.try_into().ok()? },
            compressed: flags & COMPRESSED != 0,
            stored: start..start + u64::from(u32_at(of, at + 40)?),
            size: size.into(),
            number: NONE,
        });
    }
    Some(Records { all, places })
}

struct Walk<'a> {
    bytes: &'a [u8],
    head: Head,
    records: Records,
    /// Of the chunks that files name, in the order in which they are named first: places in `records`.
    named: Vec<u32>,
    /// By nid: the entry that has an inode's first name.
    firsts: Vec<u32>,
    entries: Vec<Entry<'a>>,
    extents: Vec<Extent>,
    /// Bytes of what was read, which nothing shares.
    taken: u64,
    letters: usize,
}

/// A directory whose children are being added.
struct Open<'a> {
    path: String,
    children: std::vec::IntoIter<(&'a str, u64)>,
}

struct Inode<'a> {
    mode: u32,
    uid: u32,
    gid: u32,
    time: Time,
    size: u64,
    word: u32,
    layout: u16,
    xattrs: Vec<(Cow<'a, str>, Vec<u8>)>,
    end: u64,
}

impl<'a> Walk<'a> {
    /// Depth first, as it lies.
    fn run(&mut self) -> Option<()> {
        let mut open = vec![self.add(String::new(), self.head.root)??];
        while let Some(top) = open.last_mut() {
            let Some((name, nid)) = top.children.next() else {
                open.pop();
                continue;
            };
            let path = if top.path.is_empty() { name.to_owned() } else { format!("{}/{name}", top.path) };
            self.letters += path.len();
            if is_deep(open.len()) || self.letters > LETTERS_MAX {
                return None;
            }
            if let Some(below) = self.add(path, nid)? {
                open.push(below);
            }
        }
        Some(())
    }

    /// Adds an entry; what a directory has below it is still to be added.
    fn add(&mut self, path: String, nid: u64) -> Option<Option<Open<'a>>> {
        if self.entries.len() >= ENTRIES_MAX {
            return None;
        }
        // an inode that lies in the bootstrap has one of these places
        let known = self.firsts.get(usize::try_from(nid).ok()?).copied()?;
        if known != NONE {
            let first = self.entries.get(known as usize)?;
            if first.mode & S_IFMT == S_IFDIR {
                return None;
            }
            let (mode, uid, gid, time) = (first.mode, first.uid, first.gid, first.time);
            let link = Some(first.path.clone());
            self.entries.push(Entry { link, ..Entry::new(Cow::Owned(path), mode, uid, gid, time) });
            return Some(None);
        }
        let at = self.head.inodes_at.checked_add(nid.checked_mul(NID_BYTES)?)?;
        let inode = inode(self.bytes, at)?;
        let (uid, gid) = if self.head.has_owners { (inode.uid, inode.gid) } else { (0, 0) };
        self.firsts[nid as usize] = u32::try_from(self.entries.len()).ok()?;
        self.take(inode.end - at)?;
        let kind = inode.mode & S_IFMT;
        let mut entry = Entry::new(Cow::Owned(path), inode.mode, uid, gid, inode.time);
        let mut below = None;
        match kind {
            S_IFREG => {
                entry.size = inode.size;
                entry.extents = self.contents(&inode)?;
            }
            S_IFDIR => below = Some(children(self.content(&inode)?)?),
            S_IFLNK => {
                let target = match self.content(&inode)? {
                    (target, []) | ([], target) => target,
                    _ => return None,
                };
                entry.target = Some(Cow::Borrowed(std::str::from_utf8(target).ok()?));
            }
            S_IFCHR | S_IFBLK => {
                entry.rdev = ((inode.word >> 8) & 0xfff, (inode.word & 0xff) | ((inode.word >> 12) & 0xf_ff00));
            }
            _ => {}
        }
        entry.xattrs = inode.xattrs;
        let open = below.map(|children| Open { path: entry.path.clone().into_owned(), children: children.into_iter() });
        self.entries.push(entry);
        Some(open)
    }

    /// A directory's or a symlink's content, of a flat layout: whole blocks, and what is left, behind the inode.
    fn content(&mut self, inode: &Inode) -> Option<(&'a [u8], &'a [u8])> {
        let Inode { size, layout, .. } = *inode;
        let tail = match layout {
            0 => 0,
            2 if size % BLOCK == 0 => size.min(BLOCK),
            2 => size % BLOCK,
            _ => return None,
        };
        self.take(size)?;
        let blocks = if tail == size { &[] } else { slice(self.bytes, u64::from(inode.word) * BLOCK, size - tail)? };
        Some((blocks, slice(self.bytes, inode.end, tail)?))
    }

    /// A file's, in terms of chunks that are named.
    fn contents(&mut self, inode: &Inode) -> Option<Range<usize>> {
        let chunk_size = self.head.chunk_size;
        let count = inode.size.div_ceil(chunk_size);
        let start = inode.end.next_multiple_of(ADDRESS_BYTES);
        if inode.layout != 4 || inode.size > SAFE_MAX {
            return None;
        }
        let addresses = slice(self.bytes, start, count.checked_mul(ADDRESS_BYTES)?)?;
        self.take(addresses.len() as u64)?;
        let first = self.extents.len();
        for (at, address) in (0..).step_by(chunk_size as usize).zip(addresses.chunks_exact(ADDRESS_BYTES as usize)) {
            let length = chunk_size.min(inode.size - at);
            let blob = u32::from(u8_at(address, 2)?).checked_sub(1)?;
            let index = u32::from(u8_at(address, 3)?) << 16 | u32::from(u16_at(address, 0)?);
            let (place, record) = self.records.get_mut(blob, index)?;
            if record.size < length {
                return None;
            }
            if record.number == NONE {
                record.number = u32::try_from(self.named.len()).ok()?;
                self.named.push(place);
            }
            self.extents.push(Extent { at, chunk: Some(record.number), offset: 0, length });
        }
        (self.extents.len() as u64 <= CHUNKS_MAX).then_some(first..self.extents.len())
    }

    fn take(&mut self, bytes: u64) -> Option<()> {
        self.taken = self.taken.checked_add(bytes)?;
        (self.taken <= self.bytes.len() as u64).then_some(())
    }

    fn first(&self, nid: u32) -> Option<usize> {
        self.firsts.get(nid as usize).copied().filter(|&entry| entry != NONE).map(|entry| entry as usize)
    }

    /// The entries that the prefetch table names; what it names that is not there does not matter.
    fn prefetched(&self) -> Option<Vec<usize>> {
        let nids = self.head.prefetch.clone().step_by(4).map(|at| u32_at(self.bytes, at));
        Some(nids.collect::<Option<Vec<_>>>()?.iter().filter_map(|nid| self.first(*nid)).collect())
    }
}

fn inode(of: &[u8], at: u64) -> Option<Inode<'_>> {
    slice(of, at, 32)?;
    let format = u16_at(of, at)?;
    let is_extended = format & 1 != 0;
    let head = if is_extended { 64 } else { 32 };
    slice(of, at, head)?;
    let xattrs_count = u64::from(u16_at(of, at + 2)?);
    let xattrs_bytes = if xattrs_count == 0 { 0 } else { XATTR_HEADER + XATTR_ENTRY * (xattrs_count - 1) };
    let xattrs_at = at + head;
    let mut inode = Inode {
        mode: u16_at(of, at + 4)?.into(),
        uid: u16_at(of, at + 24)?.into(),
        gid: u16_at(of, at + 26)?.into(),
        time: Time::default(),
        size: u32_at(of, at + 8)?.into(),
        word: u32_at(of, at + 16)?,
        layout: format >> 1,
        xattrs: xattrs(of, xattrs_at, xattrs_bytes)?,
        end: xattrs_at + xattrs_bytes,
    };
    if is_extended {
        inode.uid = u32_at(of, at + 24)?;
        inode.gid = u32_at(of, at + 28)?;
        inode.size = u64_at(of, at + 8)?;
        let seconds = u64_at(of, at + 32)?.cast_signed();
        inode.time = Time { seconds, nanoseconds: u32_at(of, at + 40)? };
        if seconds.unsigned_abs() >= SAFE_MAX || inode.time.nanoseconds >= SECOND || inode.size > SAFE_MAX {
            return None;
        }
    }
    matches!(inode.layout, 0 | 2 | 4).then_some(inode)
}

fn xattrs(of: &[u8], start: u64, bytes: u64) -> Option<Vec<(Cow<'_, str>, Vec<u8>)>> {
    let list = slice(of, start, bytes)?;
    let mut all: Vec<(Cow<str>, Vec<u8>)> = Vec::new();
    if bytes == 0 {
        return Some(all);
    }
    if u8_at(list, 4)? != 0 {
        return None; // it has shared ones
    }
    let mut at = XATTR_HEADER;
    while at < bytes {
        let (prefix, rest, value, next) = xattr(list, at).ok()?;
        let name = format!("{prefix}{}", std::str::from_utf8(rest).ok()?);
        if prefix.is_empty() || all.len() == XATTRS_MAX || all.iter().any(|(other, _)| *other == name) {
            return None;
        }
        all.push((Cow::Owned(name), value.to_vec()));
        at = next;
    }
    Some(all)
}

/// Without `.` and `..`; sorted, as EROFS wants them.
fn children<'a>((blocks, tail): (&'a [u8], &'a [u8])) -> Option<Vec<(&'a str, u64)>> {
    let mut children = Vec::new();
    let mut last = "";
    for block in blocks.chunks(BLOCK as usize).chain(tail.chunks(BLOCK as usize)) {
        let names_at = usize::from(u16_at(block, 8)?);
        if names_at < DIRENT_BYTES || !names_at.is_multiple_of(DIRENT_BYTES) || names_at > block.len() {
            return None;
        }
        let mut start = names_at;
        for at in (0..names_at).step_by(DIRENT_BYTES) {
            let next = at + DIRENT_BYTES;
            let end = if next == names_at {
                block.get(start..)?.iter().position(|&byte| byte == 0).map_or(block.len(), |length| start + length)
            } else {
                usize::from(u16_at(block, next as u64 + 8)?)
            };
            if end <= start || end > block.len() {
                return None;
            }
            let name = std::str::from_utf8(&block[start..end]).ok()?;
            if name.contains(['/', '\0']) || name <= last {
                return None;
            }
            last = name;
            if name != "." && name != ".." {
                let nid = u64_at(block, at as u64)?;
                children.push((name, (nid <= SAFE_MAX).then_some(nid)?));
            }
            start = end;
        }
    }
    Some(children)
}

/// @param sizes what registries said @param prefetched entries
fn finish<'a>(
    Walk { entries, extents, named, records: Records { all: records, .. }, .. }: Walk<'a>,
    prefetched: &[usize],
    blobs: &[RafsBlob],
    sizes: &HashMap<u32, u64>,
    layer: &Layer,
) -> Option<Source<'a>> {
    let record = |place: &u32| &records[*place as usize];
    let mut is_used = vec![false; blobs.len()];
    named.iter().for_each(|place| is_used[record(place).blob as usize] = true);
    let used: Vec<u32> = (0..).zip(is_used).filter_map(|(blob, is_used)| is_used.then_some(blob)).collect();
    let in_manifest = |digest: &str| layer.blobs.iter().find(|blob| blob.digest == *digest)?.size;
    let mut sizes_of = Vec::new();
    for number in &used {
        let RafsBlob { id, stored_size, .. } = blobs.get(*number as usize)?;
        let digest = format!("sha256:{id}");
        let size = in_manifest(&digest).or_else(|| sizes.get(number).copied()).unwrap_or(*stored_size);
        sizes_of.push(Blob { digest, size: Some((size <= SAFE_MAX).then_some(size)?) });
    }
    let mut chunks = Vec::with_capacity(named.len());
    let mut checks = Vec::with_capacity(named.len());
    for Record { blob, digest, compressed, stored, size, .. } in named.iter().map(record) {
        let number = used.binary_search(blob).ok()?;
        let codec = if *compressed { blobs.get(*blob as usize)?.codec } else { 0 };
        let stored_bytes = stored.end - stored.start;
        let is_usual = stored_bytes > 0
            && stored.end <= sizes_of.get(number)?.size?
            && stored_bytes <= CHUNK_STORED_MAX_BYTES
            && *size <= CHUNK_MAX_BYTES
            && (codec != 0 || stored_bytes == *size);
        if !is_usual {
            return None;
        }
        let check = checks.len();
        checks.push(Check { start: 0, end: *size, digest: digest.clone() });
        let (start, end) = (stored.start, stored.end);
        chunks.push(Chunk { blob: number as u32, start, end, size: *size, codec, checks: check..check + 1 });
    }
    let first = wanted_first(&entries, &extents, prefetched);
    let part = |blob: &RafsBlob| Part { digest: format!("sha256:{}", blob.id), ends: blob.has_toc.then_some(TOC_NAME) };
    let parts = Some(blobs.iter().map(part).collect());
    Some(Source { blobs: sizes_of, chunks, checks, entries, extents, first, parts })
}

/// The chunks of what is wanted first, in its order; of a directory, all that is below it. A list that begins with everything orders nothing.
fn wanted_first(entries: &[Entry], extents: &[Extent], prefetched: &[usize]) -> Vec<u32> {
    let mut first = Vec::new();
    let mut is_first = vec![false; extents.len()];
    let mut is_taken = vec![false; entries.len()];
    // of entries that the list named: where what is below them ends
    let mut ends: HashMap<usize, usize> = HashMap::new();
    for &start in prefetched.iter().take_while(|&&entry| !entries[entry].path.is_empty()) {
        if is_taken[start] {
            continue;
        }
        let path = &entries[start].path;
        let mut i = start;
        while let Some(entry) = entries.get(i) {
            let is_below = entry.path.strip_prefix(&**path).is_some_and(|rest| rest.starts_with('/'));
            if i > start && !is_below {
                break;
            }
            for chunk in extents[entry.extents.clone()].iter().filter_map(|extent| extent.chunk) {
                if !std::mem::replace(&mut is_first[chunk as usize], true) {
                    first.push(chunk);
                }
            }
            is_taken[i] = true;
            i = ends.get(&i).copied().unwrap_or(i + 1);
        }
        ends.insert(start, i);
    }
    first
}
