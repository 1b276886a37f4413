//! Trees of usual layers, made natively: what `src/format` and `src/tree` make of the same index, byte for byte, in a tenth of the time.
//!
//! None where anything is unusual, wrong or too large: whoever asked has the index parsed there, where each case is decided, and what
//! is wrong is said. So nothing here is lenient, and no message is made.
#![forbid(unsafe_code)]

mod alike;
mod grow;
mod image;
mod json;
mod layout;
mod table;
mod time;
mod toc;

use std::borrow::Cow;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

/// As `src/tree/chunk.ts` has them.
const CHUNK_MAX_BYTES: u64 = 64 << 20;
const CHUNK_STORED_MAX_BYTES: u64 = 96 << 20;
/// As `src/tree/entries.ts` has it.
const ENTRIES_MAX: usize = 2_000_000;
const BLOCK: u64 = 4096;
/// 2^53 - 1: the other side has no greater numbers.
const SAFE_MAX: u64 = (1 << 53) - 1;

type Text<'a> = Cow<'a, str>;
type Sha = [u8; 32];

/// Parts of a `Tree` (`src/tree/tree.ts`).
pub struct Tree {
    pub image: Vec<u8>,
    pub digest: String,
    /// A chunk table's bytes.
    pub chunks: Vec<u8>,
    /// Digest of what the chunks hold.
    pub content: String,
}

/// What a table of contents does not say itself.
pub struct Layer {
    /// Of the blob.
    pub digest: String,
    pub size: u64,
    /// Of the table's JSON.
    pub toc: Sha,
}

/// The tree of an eStargz layer. @param index as its format's `readIndex` returns it
pub fn estargz(index: &[u8], layer: &Layer) -> Option<Tree> {
    build(&toc::estargz(index, layer)?, layer)
}

/// The tree of a zstd:chunked layer.
pub fn zstd_chunked(index: &[u8], layer: &Layer) -> Option<Tree> {
    build(&toc::zstd_chunked(index, layer)?, layer)
}

fn build(source: &Source, layer: &Layer) -> Option<Tree> {
    let (mut inodes, files) = grow::grow(&source.entries)?;
    let layout = layout::lay_out(source, &files, &mut inodes)?;
    let (chunks, content) = table::encode(source, &layout, layer)?;
    let image = image::write(&inodes, &hex(&content), u32::try_from(layout.device_size / BLOCK).ok()?)?;
    Some(Tree { digest: named(&Sha256::digest(&image).into()), image, chunks, content: named(&content) })
}

fn hex(digest: &Sha) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(digest: &Sha) -> String {
    format!("sha256:{}", hex(digest))
}

/// What an index says; entries, chunks and extents name each other by their places.
struct Source<'a> {
    chunks: Vec<Chunk>,
    checks: Vec<Check>,
    entries: Vec<Entry<'a>>,
    extents: Vec<Extent>,
    /// Chunks that the image wants ready first, in that order.
    first: Vec<u32>,
}

/// A chunk as it is stored.
struct Chunk {
    start: u64,
    end: u64,
    /// Decoded bytes.
    size: u64,
    codec: u8,
    /// Of `Source::checks`.
    checks: Range<usize>,
}

/// Decoded bytes from `start` to `end` have this digest.
struct Check {
    start: u64,
    end: u64,
    digest: Sha,
}

/// A piece of a file: `length` bytes at `at` are bytes from `offset` on of a chunk; zeros, which no chunk holds, without one.
struct Extent {
    at: u64,
    chunk: Option<u32>,
    offset: u64,
    length: u64,
}

/// As `src/tree/entry.ts` has it; its path is clean.
struct Entry<'a> {
    path: Text<'a>,
    mode: u32,
    uid: u32,
    gid: u32,
    time: time::Time,
    size: u64,
    rdev: (u32, u32),
    target: Option<Text<'a>>,
    link: Option<Text<'a>>,
    xattrs: Vec<(Text<'a>, Vec<u8>)>,
    /// Of `Source::extents`.
    extents: Range<usize>,
}

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
