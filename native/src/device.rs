//! A device: decoded contents in a sparse file, and which of its chunks may be read.
#![forbid(unsafe_code)]

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::fs::{Advice, fadvise};

use crate::bytes::{u32_at, u64_at};
use crate::first_reads::FirstReads;
use crate::map::Ready;

const PLACE: usize = 24;
/// What has a checksum (`src/tree/ready.ts` has the same).
const BLOCK: u64 = 4096;
/// What is read is told of in pieces of this size (`src/store/clock.ts` has the same).
const TOUCHED_BYTES: u64 = 1 << 20;

/// Bytes `at` … `end` of the device are part of a chunk.
struct Place {
    at: u64,
    end: u64,
    chunk: u32,
}

/// Where chunks are that the disk did not take: the same layout, in memory.
struct Spill {
    file: File,
    ready: Ready,
}

pub struct Device {
    pub number: u32,
    pub size: u64,
    file: File,
    ready: Ready,
    /// Looked into for what `ready` has not.
    spill: OnceLock<Spill>,
    /// A bit for each TOUCHED_BYTES that were read since it was last asked.
    touched: Box<[AtomicU8]>,
    first_reads: FirstReads,
    /// Sorted and disjoint.
    places: Vec<Place>,
}

impl Device {
    /// The error is a sentence.
    pub fn new(number: u32, file: File, ready: Ready, chunks: u32, size: u64, packed: &[u8]) -> Result<Self, String> {
        if !packed.len().is_multiple_of(PLACE) {
            return Err(format!("places: {} bytes are no whole number of records of {PLACE}", packed.len()));
        }
        let mut places: Vec<Place> = Vec::with_capacity(packed.len() / PLACE);
        for (index, record) in packed.chunks_exact(PLACE).enumerate() {
            let at = u64_at(record, 0).unwrap_or(0);
            let length = u64_at(record, 8).unwrap_or(0);
            let chunk = u32_at(record, 16).unwrap_or(0);
            let wrong = |why: &str| Err(format!("places: number {index} (chunk {chunk}, {length} bytes at {at}) {why}"));
            let Some(end) = at.checked_add(length).filter(|&end| end <= size) else {
                return wrong("ends after the device");
            };
            if length == 0 {
                return wrong("is empty");
            }
            if chunk >= chunks {
                return wrong("is of a chunk that the device does not have");
            }
            if places.last().is_some_and(|before| before.end > at) {
                return wrong("overlaps the one before, or is out of order");
            }
            places.push(Place { at, end, chunk });
        }
        let touched = (0..size.div_ceil(TOUCHED_BYTES).div_ceil(8)).map(|_| AtomicU8::new(0)).collect();
        let first_reads = FirstReads::new(places.len());
        Ok(Self { number, size, file, ready, spill: OnceLock::new(), touched, first_reads, places })
    }

    /// From now on chunks may also be in memory. The first pair of files stays.
    pub fn spill(&self, file: File, ready: Ready) {
        let _ = self.spill.set(Spill { file, ready });
    }

    /// What was read since this was asked last, and forgets it: a bit for each TOUCHED_BYTES, the lowest first.
    pub fn take_touched(&self) -> Vec<u8> {
        self.touched.iter().map(|byte| byte.swap(0, Relaxed)).collect()
    }

    fn touch(&self, from: u64, to: u64) {
        for piece in from / TOUCHED_BYTES..to.div_ceil(TOUCHED_BYTES) {
            let bit = 1 << (piece % 8);
            // most are set already, and a load takes the line from no other thread
            if let Some(byte) = self.touched.get((piece / 8) as usize)
                && byte.load(Relaxed) & bit == 0
            {
                byte.fetch_or(bit, Relaxed);
            }
        }
    }

    /// Notes what is read for the first time.
    pub fn first_reads(&self) -> &FirstReads {
        &self.first_reads
    }

    /// Start and end of a place on the device.
    pub fn place(&self, index: u32) -> Option<(u64, u64)> {
        self.places.get(index as usize).map(|place| (place.at, place.end))
    }

    fn note(&self, from: u64, to: u64) {
        if self.first_reads.is_noting() {
            let first = self.places.partition_point(|place| place.end <= from);
            let read = self.places[first..].iter().take_while(|place| place.at < to).count();
            (first..first + read).for_each(|place| self.first_reads.note(place));
        }
    }

    /// The places that overlap `from` … `to`.
    fn overlapping(&self, from: u64, to: u64) -> impl Iterator<Item = &Place> {
        let first = self.places.partition_point(|place| place.end <= from);
        self.places[first..].iter().take_while(move |place| place.at < to)
    }

    pub fn verified(&self, chunk: u32) -> bool {
        self.ready.verified(chunk) || self.spill.get().is_some_and(|spill| spill.ready.verified(chunk))
    }

    fn taken_back(&self) -> (u32, u32) {
        (self.ready.taken_back(), self.spill.get().map_or(0, |spill| spill.ready.taken_back()))
    }

    /// Adds the chunks that `from` … `to` needs and that are not verified.
    fn missing(&self, from: u64, to: u64, mut add: impl FnMut(u32)) {
        for place in self.overlapping(from, to) {
            if !self.verified(place.chunk) {
                add(place.chunk);
            }
        }
    }

    /// Gives the pages of `from` … `to` in the file's own page cache back to the kernel.
    pub fn forget(&self, from: u64, to: u64) {
        // those that are dirty, locked or mapped stay: it is only advice
        let _ = fadvise(&self.file, from, NonZeroU64::new(to - from), Advice::DontNeed);
    }

    /// Reads, unless chunks are not verified: those it adds, and the bytes count for nothing. What no chunk covers is zeros, whatever the
    /// file holds.
    pub fn read(&self, at: u64, into: &mut [u8], missing: impl FnMut(u32)) -> Result<(), i32> {
        self.read_by(at, into, missing, |into| self.read_file(at, into))
    }

    /// A chunk may be taken back while it is read, and even be there again when that is looked at: only bytes that were verified before and
    /// after, with nothing taken back in between, are no hole's. Each further turn needs another chunk to go while a local file is read.
    fn read_by(
        &self,
        at: u64,
        into: &mut [u8],
        mut missing: impl FnMut(u32),
        mut by: impl FnMut(&mut [u8]) -> Result<usize, i32>,
    ) -> Result<(), i32> {
        let end = at + into.len() as u64;
        // in the order in which programs want them, not in that in which they come
        self.note(at, end);
        loop {
            let taken_back = self.taken_back();
            let mut all_there = true;
            self.missing(at, end, |chunk| {
                all_there = false;
                missing(chunk);
            });
            if !all_there {
                return Ok(());
            }
            let got = by(into)?;
            self.read_spilled(at, into)?;
            all_there &= self.taken_back() == taken_back;
            self.missing(at, end, |_| all_there = false);
            if all_there {
                if self.has_changed(at, into, &mut missing)? {
                    return Ok(());
                }
                self.touch(at, end);
                return self.zero_gaps(at, into, got);
            }
        }
    }

    /// What the file has not, as far as it is in memory.
    fn read_spilled(&self, at: u64, into: &mut [u8]) -> Result<(), i32> {
        let Some(spill) = self.spill.get() else { return Ok(()) };
        let end = at + into.len() as u64;
        for place in self.overlapping(at, end) {
            if !self.ready.verified(place.chunk) {
                let (from, to) = (place.at.max(at), place.end.min(end));
                let part = &mut into[(from - at) as usize..(to - at) as usize];
                spill.file.read_exact_at(part, from).map_err(|_| libc::EIO)?;
            }
        }
        Ok(())
    }

    /// Whether bytes are not those that were verified: bits may flip on the disk. Their chunks are verified again before they are served, and
    /// added. Blocks that are read in part, or in which two places meet, are not looked at.
    fn has_changed(&self, at: u64, into: &[u8], mut missing: impl FnMut(u32)) -> Result<bool, i32> {
        let end = at + into.len() as u64;
        let first = self.places.partition_point(|place| place.end <= at);
        let mut has_changed = false;
        for (index, place) in self.places[first..].iter().enumerate().take_while(|(_, place)| place.at < end) {
            let next = self.places.get(first + index + 1).map_or(u64::MAX, |next| next.at);
            let is_right = (place.at.max(at).div_ceil(BLOCK)..place.end.min(end).div_ceil(BLOCK)).all(|block| {
                let (from, to) = (block * BLOCK, place.end.min((block + 1) * BLOCK));
                let sum = if to > end || (to == place.end && next < (block + 1) * BLOCK) { 0 } else { self.ready.sum(block) };
                sum == 0 || crc32fast::hash(&into[(from - at) as usize..(to - at) as usize]) == sum
            });
            // what is not on the disk is in memory, and was read from there
            if !is_right && self.ready.verified(place.chunk) {
                if !self.ready.demote(place.chunk) {
                    return Err(libc::EIO);
                }
                missing(place.chunk);
                has_changed = true;
            }
        }
        Ok(has_changed)
    }

    fn zero_gaps(&self, at: u64, into: &mut [u8], got: usize) -> Result<(), i32> {
        let mut done = at;
        for place in self.overlapping(at, at + into.len() as u64) {
            let end = place.end.min(at + into.len() as u64);
            // the cache file is shorter than what its ready bytes promise
            if end > at + got as u64 {
                return Err(libc::EIO);
            }
            if place.at > done {
                into[(done - at) as usize..(place.at - at) as usize].fill(0);
            }
            done = end;
        }
        into[(done - at) as usize..].fill(0);
        Ok(())
    }

    /// As much as the file has.
    fn read_file(&self, at: u64, into: &mut [u8]) -> Result<usize, i32> {
        let mut got = 0;
        while got < into.len() {
            match self.file.read_at(&mut into[got..], at + got as u64) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(_) => return Err(libc::EIO),
            }
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests;
