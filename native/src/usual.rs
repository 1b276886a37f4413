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
mod rafs;
mod table;
mod time;
mod toc;

use std::borrow::Cow;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

/// As `src/tree/chunk.ts` has them.
const CHUNK_MAX_BYTES: u64 = 64 << 20;
const CHUNK_STORED_MAX_BYTES: u64 = 96 << 20;
/// As `src/tree/entries.ts` has them; names and paths in bytes.
const ENTRIES_MAX: usize = 2_000_000;
const NAME_MAX: usize = 255;
const BLOCK: u64 = 4096;
/// 2^53 - 1: the other side has no greater numbers.
const SAFE_MAX: u64 = (1 << 53) - 1;

type Text<'a> = Cow<'a, str>;
type Sha = [u8; 32];

/// Parts of a `BuiltTree` (`src/format/parser.ts`).
pub struct Tree {
    pub image: Vec<u8>,
    pub digest: String,
    /// A chunk table's bytes.
    pub chunks: Vec<u8>,
    /// Digest of what the chunks hold.
    pub content: String,
    pub parts: Option<Vec<Part>>,
}

/// What a nydus image's bootstrap says of another layer of its unit.
#[derive(Clone)]
pub struct Part {
    pub digest: String,
    pub ends: Option<&'static str>,
}

/// Parts of a `Unit` (`src/format/format.ts`).
pub struct Layer {
    /// Digest of what the manifest vouches for.
    pub index: Sha,
    pub blobs: Vec<Blob>,
}

#[derive(Clone)]
pub struct Blob {
    pub digest: String,
    pub size: Option<u64>,
}

impl Layer {
    /// Where one layer is the whole unit.
    fn blob(&self) -> Option<(&Blob, u64)> {
        let [blob] = self.blobs.as_slice() else { return None };
        Some((blob, blob.size?))
    }
}

/// The tree of a unit. @param index as its format's `readIndex` returns it
pub fn build(format: &str, index: &[u8], layer: &Layer) -> Option<Tree> {
    let source = match format {
        "estargz" => toc::estargz(index, layer),
        "zstd:chunked" => toc::zstd_chunked(index, layer),
        "nydus" => rafs::nydus(index, layer),
        _ => None,
    }?;
    let (mut inodes, files) = grow::grow(&source.entries)?;
    let layout = layout::lay_out(&source, &files, &mut inodes)?;
    let (chunks, content) = table::encode(&source, &layout)?;
    let image = image::write(&inodes, &hex(&content), u32::try_from(layout.device_size / BLOCK).ok()?)?;
    let digest = named(&Sha256::digest(&image).into());
    Some(Tree { image, digest, chunks, content: named(&content), parts: source.parts.clone() })
}

fn hex(digest: &Sha) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(digest: &Sha) -> String {
    format!("sha256:{}", hex(digest))
}

/// What an index says; entries, chunks and extents name each other by their places.
struct Source<'a> {
    /// With their sizes.
    blobs: Vec<Blob>,
    chunks: Vec<Chunk>,
    checks: Vec<Check>,
    entries: Vec<Entry<'a>>,
    extents: Vec<Extent>,
    /// Chunks that the image wants ready first, in that order.
    first: Vec<u32>,
    parts: Option<Vec<Part>>,
}

/// A chunk as it is stored.
struct Chunk {
    /// Of `Source::blobs`.
    blob: u32,
    start: u64,
    end: u64,
    /// Decoded bytes.
    size: u64,
    /// As `src/tree/chunk-table.ts` numbers them.
    codec: u8,
    /// Of `Source::checks`.
    checks: Range<usize>,
}

/// Decoded bytes from `start` to `end` have this digest.
struct Check {
    start: u64,
    end: u64,
    digest: Digest,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Digest {
    algorithm: Algorithm,
    bytes: Sha,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Algorithm {
    Sha256,
    Blake3,
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

impl<'a> Entry<'a> {
    fn new(path: Text<'a>, mode: u32, uid: u32, gid: u32, time: time::Time) -> Self {
        let (size, rdev, target, link, xattrs, extents) = (0, (0, 0), None, None, Vec::new(), 0..0);
        Self { path, mode, uid, gid, time, size, rdev, target, link, xattrs, extents }
    }
}
