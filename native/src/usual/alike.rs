//! Which bytes of a layer are the same, judged by the digests that they are checked by (`src/tree/alike.ts`).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::grow::File;
use super::{Algorithm, Check, Digest, Extent, Source};

/// Checked ranges and runs of zeros of all files together.
const PIECES_MAX: usize = 4_000_000;
const UNKNOWN: u32 = u32::MAX;

/// What tells contents apart.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    /// All bytes are those of one digest.
    Whole(Digest),
    /// How many there are, and of which digests they are put together.
    Parts(Vec<u8>),
}

/// Hashes by numbers that are drawn anew: whoever makes an index cannot have its digests meet in one slot.
#[derive(Clone, Copy)]
struct Keyed {
    state: u64,
    factor: u64,
}

impl Keyed {
    fn new() -> Self {
        let random = RandomState::new();
        Self { state: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Keyed {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(whole));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product as u64) ^ ((product >> 64) as u64); // its halves
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

pub struct Alike<'s> {
    source: &'s Source<'s>,
    representatives: Vec<u32>,
    /// Of chunks whose checks were looked at: a chunk may have thousands, and as many files.
    is_sound: Vec<bool>,
    chunks: HashMap<Key, u32, Keyed>,
    contents: HashMap<Key, usize, Keyed>,
    /// Of contents, in bytes.
    sizes: Vec<u64>,
    pieces: usize,
}

impl<'s> Alike<'s> {
    pub fn new(source: &'s Source<'s>) -> Self {
        let count = source.chunks.len();
        let keyed = Keyed::new();
        Self {
            source,
            representatives: vec![UNKNOWN; count],
            is_sound: vec![false; count],
            chunks: HashMap::with_capacity_and_hasher(count, keyed),
            contents: HashMap::with_capacity_and_hasher(count, keyed),
            sizes: Vec::with_capacity(count),
            pieces: 0,
        }
    }

    /// The first chunk seen that decodes to the same bytes.
    pub fn representative(&mut self, chunk: u32) -> Option<u32> {
        let known = *self.representatives.get(chunk as usize)?;
        if known != UNKNOWN {
            return Some(known);
        }
        let found = self.first_alike(chunk)?;
        self.representatives[chunk as usize] = found;
        Some(found)
    }

    fn first_alike(&mut self, chunk: u32) -> Option<u32> {
        let size = self.source.chunks[chunk as usize].size;
        let checks = self.checks(chunk)?;
        let [first, ..] = checks else { return Some(chunk) };
        if checks.len() == 1 && first.start == 0 && first.end == size {
            let found = *self.chunks.entry(Key::Whole(first.digest.clone())).or_insert(chunk);
            // one digest of two lengths is a lie: they are told apart below
            if self.source.chunks[found as usize].size == size {
                return Some(found);
            }
        }
        let mut key = size.to_le_bytes().to_vec();
        for Check { start, end, digest } in checks {
            key.extend_from_slice(&start.to_le_bytes());
            key.extend_from_slice(&end.to_le_bytes());
            put(digest, &mut key);
        }
        Some(*self.chunks.entry(Key::Parts(key)).or_insert(chunk))
    }

    /// The number of a file's content, counted from 0 in the order in which contents are seen first.
    pub fn content(&mut self, file: &File) -> Option<usize> {
        let extents = self.source.extents.get(file.extents.clone())?;
        if let Some(digest) = self.digest(file.size, extents)? {
            self.count()?;
            let whole = Key::Whole(digest);
            match self.contents.get(&whole) {
                None => return Some(self.new_content(whole, file.size)),
                Some(&known) if self.sizes[known] == file.size => return Some(known),
                Some(_) => {}
            }
        }
        let key = self.key(file.size, extents)?;
        match self.contents.get(&key) {
            Some(&known) => Some(known),
            None => Some(self.new_content(key, file.size)),
        }
    }

    fn new_content(&mut self, key: Key, size: u64) -> usize {
        let number = self.sizes.len();
        self.sizes.push(size);
        self.contents.insert(key, number);
        number
    }

    /// The digest of all of a file's bytes, where it is one piece of a chunk that has a check of its own.
    fn digest(&mut self, size: u64, extents: &[Extent]) -> Option<Option<Digest>> {
        let [Extent { at: 0, chunk: Some(chunk), offset, length }] = extents else { return Some(None) };
        if *length != size {
            return Some(None);
        }
        let checks = self.piece(*chunk, *offset, *length)?;
        let check = checks.get(last_from(checks, *offset));
        Some(check.filter(|check| check.start == *offset && check.end == offset + size).map(|check| check.digest.clone()))
    }

    /// The digests that a file's bytes are checked by, and how much of what they cover.
    fn key(&mut self, size: u64, extents: &[Extent]) -> Option<Key> {
        let mut key = size.to_le_bytes().to_vec();
        let mut at = 0;
        for extent in extents {
            if extent.at != at || extent.length == 0 {
                return None;
            }
            at += extent.length;
            match extent.chunk {
                None => {
                    self.count()?;
                    key.push(0);
                    key.extend_from_slice(&extent.length.to_le_bytes());
                }
                Some(chunk) => self.key_of_piece(chunk, extent.offset, extent.length, &mut key)?,
            }
        }
        (at == size).then_some(Key::Parts(key))
    }

    fn key_of_piece(&mut self, chunk: u32, offset: u64, length: u64, key: &mut Vec<u8>) -> Option<()> {
        let checks = self.piece(chunk, offset, length)?;
        let mut at = offset;
        let end = offset + length;
        for check in &checks[last_from(checks, offset)..] {
            if at >= end {
                break;
            }
            if check.start > at || check.end <= at {
                return None;
            }
            self.count()?;
            let stop = end.min(check.end);
            let is_whole = check.start == at && check.end == stop;
            key.push(if is_whole { 1 } else { 2 });
            put(&check.digest, key);
            if !is_whole {
                key.extend_from_slice(&(at - check.start).to_le_bytes());
            }
            key.extend_from_slice(&(stop - at).to_le_bytes());
            at = stop;
        }
        (at >= end).then_some(())
    }

    fn count(&mut self) -> Option<()> {
        self.pieces += 1;
        (self.pieces <= PIECES_MAX).then_some(())
    }

    /// The checks of a chunk that has these bytes.
    fn piece(&mut self, chunk: u32, offset: u64, length: u64) -> Option<&'s [Check]> {
        let size = self.source.chunks.get(chunk as usize)?.size;
        if offset.checked_add(length)? > size {
            return None;
        }
        self.checks(chunk)
    }

    /// Of a chunk, by start.
    fn checks(&mut self, chunk: u32) -> Option<&'s [Check]> {
        let of = self.source.chunks.get(chunk as usize)?;
        let checks = self.source.checks.get(of.checks.clone())?;
        let is_sound = self.is_sound.get_mut(chunk as usize)?;
        if !*is_sound {
            let are_within = checks.iter().all(|check| check.start < check.end && check.end <= of.size);
            *is_sound = are_within && checks.is_sorted_by_key(|check| (check.start, check.end));
        }
        is_sound.then_some(checks)
    }
}

fn put(digest: &Digest, key: &mut Vec<u8>) {
    key.push(u8::from(digest.algorithm == Algorithm::Blake3));
    key.extend_from_slice(&digest.bytes);
}

/// Index of the last check that begins at or before `start`; 0 when none does.
fn last_from(checks: &[Check], start: u64) -> usize {
    checks.partition_point(|check| check.start <= start).saturating_sub(1)
}
