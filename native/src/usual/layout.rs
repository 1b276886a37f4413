//! Where the layer's files lie on its device (`src/tree/layout.ts`): each distinct content once, in whole blocks; what is wanted first in
//! front.

use std::collections::{HashMap, HashSet};

use super::alike::Alike;
use super::grow::File;
use super::image::Inode;
use super::{BLOCK, Source};

const DEVICE_BLOCKS_MAX: u64 = 0xffff_fffe;
/// Two of the largest read-aheads.
const GAP_BYTES: u64 = 2 << 20;
/// Of files that nearly every start reads; real ones are smaller.
const FILE_MAX_BYTES: u64 = 4 << 20;

pub struct Layout {
    /// The source's chunks that are needed, in the order of the device but for the first.
    pub chunks: Vec<u32>,
    /// So many of them are wanted first.
    pub first: usize,
    /// Chunk by chunk of the source.
    places: Vec<Place>,
    /// By chunk of the source: where its places end.
    ends: Vec<usize>,
    /// Where on the device files have zeros that no chunk holds: start and end.
    pub zeros: Vec<(u64, u64)>,
    /// Bytes.
    pub device_size: u64,
}

impl Layout {
    pub fn places(&self, chunk: u32) -> &[Place] {
        let chunk = chunk as usize;
        &self.places[if chunk == 0 { 0 } else { self.ends[chunk - 1] }..self.ends[chunk]]
    }
}

/// `length` bytes from `from` in the decoded chunk lie at `at` on the device.
#[derive(Clone, Copy, Default)]
pub struct Place {
    pub from: u64,
    pub length: u64,
    pub at: u64,
}

/// A distinct content: its first file stands for all.
struct Content<'f, 's> {
    file: &'f File<'s>,
    /// Its extents' chunks, the first that are alike; none of zeros.
    pieces: Vec<Option<u32>>,
}

/// Also says of each file's inode where its content is.
pub fn lay_out(source: &Source, files: &[File], inodes: &mut [Inode]) -> Option<Layout> {
    let mut alike = Alike::new(source);
    let mut contents: Vec<Content> = Vec::with_capacity(files.len());
    let mut number_of = Vec::with_capacity(files.len());
    for file in files {
        let number = alike.content(file)?;
        if number == contents.len() {
            let extents = source.extents.get(file.extents.clone())?;
            let piece = |chunk: Option<u32>| chunk.map_or(Some(None), |chunk| alike.representative(chunk).map(Some));
            let pieces: Option<Vec<_>> = extents.iter().map(|extent| extent.chunk).map(piece).collect();
            contents.push(Content { file, pieces: pieces? });
        }
        number_of.push(number);
    }
    let wanted = source.first.iter().copied().chain(usually_read(source, files));
    let mut first = Vec::new();
    let mut is_first = vec![false; source.chunks.len()];
    for chunk in wanted {
        let chunk = alike.representative(chunk)?;
        if !std::mem::replace(&mut is_first[chunk as usize], true) {
            first.push(chunk);
        }
    }
    let leading = if first.is_empty() { Vec::new() } else { wanted_by(&first, &is_first, &contents) };
    let is_leading: HashSet<usize> = leading.iter().copied().collect();
    let rest = (0..contents.len()).filter(|number| !is_leading.contains(number));
    let order: Vec<usize> = leading.iter().copied().chain(rest).collect();
    let (offsets, device_size) = assign_offsets(&order, leading.len(), &contents)?;
    for (file, number) in files.iter().zip(number_of) {
        inodes[file.inode].content = Some(offsets[number]);
    }
    let mut counts = vec![0_usize; source.chunks.len()];
    let mut placed = Vec::with_capacity(source.extents.len());
    let mut zeros = Vec::new();
    let mut chunks = Vec::with_capacity(source.chunks.len());
    for number in order {
        let Content { file, pieces } = &contents[number];
        for (extent, piece) in source.extents.get(file.extents.clone())?.iter().zip(pieces) {
            let at = offsets[number] + extent.at;
            let Some(chunk) = *piece else {
                zeros.push((at, at + extent.length));
                continue;
            };
            let count = &mut counts[chunk as usize];
            if *count == 0 {
                chunks.push(chunk);
            }
            *count += 1;
            placed.push((chunk, Place { from: extent.offset, length: extent.length, at }));
        }
    }
    let (places, ends) = by_chunk(&placed, &counts);
    // what is wanted first leads, whatever lies before it on the device
    first.retain(|chunk| counts[*chunk as usize] > 0);
    let count = first.len();
    if count > 0 {
        chunks.retain(|chunk| !is_first[*chunk as usize]);
        first.append(&mut chunks);
        chunks = first;
    }
    Some(Layout { chunks, first: count, places, ends, zeros, device_size })
}

/// Places chunk by chunk, sorted, and where those of each chunk end.
fn by_chunk(placed: &[(u32, Place)], counts: &[usize]) -> (Vec<Place>, Vec<usize>) {
    let mut next: Vec<usize> = Vec::with_capacity(counts.len());
    let mut total = 0;
    for count in counts {
        next.push(total);
        total += count;
    }
    let mut places = vec![Place::default(); placed.len()];
    for (chunk, place) in placed {
        let at = &mut next[*chunk as usize];
        places[*at] = *place;
        *at += 1;
    }
    for (end, count) in next.iter().zip(counts) {
        if *count > 1 {
            places[end - count..*end].sort_by_key(|place| (place.from, place.at));
        }
    }
    (places, next)
}

/// The contents that `first` chunks are wanted for, chunk by chunk; of several that share one, those of which everything is wanted, if there
/// are any.
fn wanted_by(first: &[u32], is_first: &[bool], contents: &[Content]) -> Vec<usize> {
    let mut users: HashMap<u32, Vec<usize>> = HashMap::with_capacity(first.len());
    let is_wanted = |piece: &Option<u32>| piece.is_none_or(|chunk| is_first[chunk as usize]);
    let mut is_whole = vec![false; contents.len()];
    for (number, content) in contents.iter().enumerate() {
        is_whole[number] = content.pieces.iter().all(is_wanted);
        for chunk in content.pieces.iter().flatten().filter(|chunk| is_first[**chunk as usize]) {
            users.entry(*chunk).or_default().push(number);
        }
    }
    let mut seen = vec![false; contents.len()];
    let mut wanted = Vec::new();
    for chunk in first {
        let Some(all) = users.get(chunk) else { continue };
        let any_whole = all.iter().any(|&number| is_whole[number]);
        for &number in all.iter().filter(|number| !any_whole || is_whole[**number]) {
            if !std::mem::replace(&mut seen[number], true) {
                wanted.push(number);
            }
        }
    }
    wanted
}

/// By content, and the device's size. A gap keeps the kernel's read-ahead of what is wanted first from asking for what comes behind.
fn assign_offsets(order: &[usize], leading: usize, contents: &[Content]) -> Option<(Vec<u64>, u64)> {
    let mut offsets = vec![0; contents.len()];
    let mut at = 0;
    for (i, &number) in order.iter().enumerate() {
        if i == leading && leading > 0 {
            at += GAP_BYTES;
        }
        offsets[number] = at;
        at += contents[number].file.size.next_multiple_of(BLOCK);
        if at > DEVICE_BLOCKS_MAX * BLOCK {
            return None;
        }
    }
    Some((offsets, at))
}

/// Chunks of files that nearly every start reads (`src/tree/usually-read.ts`), in the order of the index.
fn usually_read(source: &Source, files: &[File]) -> Vec<u32> {
    let says_first = !source.first.is_empty();
    let is_read = |file: &&File| {
        let path = file.path;
        file.size <= FILE_MAX_BYTES && (matches!(path, "etc/passwd" | "etc/group") || (!says_first && is_read_by_programs(path)))
    };
    let read = files.iter().filter(is_read).filter_map(|file| source.extents.get(file.extents.clone()));
    read.flatten().filter_map(|extent| extent.chunk).collect()
}

/// The loader and its cache, and the C library.
fn is_read_by_programs(path: &str) -> bool {
    if path == "etc/ld.so.cache" {
        return true;
    }
    let path = path.strip_prefix("usr/").unwrap_or(path);
    let Some(path) = path.strip_prefix("lib64/").or_else(|| path.strip_prefix("lib/")) else { return false };
    let name = match path.split_once('/') {
        Some(("", _)) => return false,
        Some((_, name)) => name,
        None => path,
    };
    let Some((stem, version)) = name.rsplit_once(".so.") else { return false };
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    let is_one = stem.starts_with("ld-linux") || stem.starts_with("ld-musl-") || stem == "libc" || stem.starts_with("libc.musl-");
    is_version && is_one && !name.contains('/')
}
