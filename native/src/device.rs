//! A device: decoded contents in a sparse file, and which of its chunks may be read.
#![forbid(unsafe_code)]

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::fs::{Advice, fadvise};

use crate::bytes::{u32_at, u64_at};
use crate::map::Ready;

const PLACE: usize = 24;
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
        Ok(Self { number, size, file, ready, spill: OnceLock::new(), touched, places })
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
mod tests {
    use std::io::Write;

    use super::*;

    fn scratch(name: &str, bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("lazylayer-{}-{name}", std::process::id()));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn ready_file(name: &str, states: &[u8]) -> File {
        let mut bytes = b"lazyrdy\n\x01\0\0\0".to_vec();
        bytes.extend((states.len() as u32).to_le_bytes());
        bytes.resize(64, 0);
        bytes.extend(states);
        scratch(name, &bytes)
    }

    fn ready(name: &str, states: &[u8]) -> Ready {
        Ready::of(&ready_file(name, states), states.len() as u32).unwrap()
    }

    fn pack(places: &[(u64, u64, u32)]) -> Vec<u8> {
        places
            .iter()
            .flat_map(|(at, length, chunk)| [at.to_le_bytes(), length.to_le_bytes(), u64::from(*chunk).to_le_bytes()].concat())
            .collect()
    }

    #[test]
    fn places_that_break_a_bound_are_refused() {
        let check = |name: &str, packed: &[u8], want: &str| {
            let made = Device::new(1, scratch(name, b""), ready(name, &[0, 0]), 2, 10_000, packed);
            assert!(made.is_err_and(|error| error.contains(want)), "{want}");
        };
        check("cut", &pack(&[(0, 1, 0)])[1..], "no whole number of records");
        check("end", &pack(&[(9_000, 1_001, 0)]), "ends after the device");
        check("wrap", &pack(&[(u64::MAX, 2, 0)]), "ends after the device");
        check("empty", &pack(&[(0, 0, 0)]), "is empty");
        check("chunk", &pack(&[(0, 1, 2)]), "does not have");
        check("order", &pack(&[(10, 10, 0), (0, 5, 1)]), "out of order");
        check("overlap", &pack(&[(0, 10, 0), (9, 5, 1)]), "overlaps");
    }

    #[test]
    fn only_chunks_in_reach_that_are_not_verified_are_missing() {
        let device = Device::new(
            1,
            scratch("m", b""),
            ready("m", &[1, 0, 2, 0]),
            4,
            1_000,
            &pack(&[(0, 10, 0), (10, 10, 1), (20, 10, 2), (100, 10, 3)]),
        )
        .unwrap();
        let missing = |from, to| {
            let mut all = Vec::new();
            device.missing(from, to, |chunk| all.push(chunk));
            all
        };
        assert_eq!(missing(0, 10), []);
        assert_eq!(missing(0, 11), [1]);
        assert_eq!(missing(5, 1_000), [1, 2, 3]);
        assert_eq!(missing(30, 100), []);
        assert_eq!(missing(109, 110), [3]);
        assert_eq!(missing(110, 1_000), []);
    }

    #[test]
    fn bytes_that_no_chunk_covers_are_zeros_whatever_the_file_holds() {
        let device =
            Device::new(1, scratch("g", &[7; 60]), ready("g", &[1, 1]), 2, 100, &pack(&[(10, 10, 0), (30, 10, 1)])).unwrap();
        let mut got = [9; 90];
        device.read(5, &mut got, |_| panic!("a chunk is missing")).unwrap();
        let want: Vec<u8> = (5..95).map(|at| if (10..20).contains(&at) || (30..40).contains(&at) { 7 } else { 0 }).collect();
        assert_eq!(got[..], want[..]);
    }

    #[test]
    fn a_cache_file_shorter_than_its_ready_bytes_promise_is_an_error() {
        let device = Device::new(1, scratch("s", &[7; 15]), ready("s", &[1]), 1, 100, &pack(&[(10, 10, 0)])).unwrap();
        assert_eq!(device.read(0, &mut [0; 50], |_| {}), Err(libc::EIO));
        assert_eq!(device.read(0, &mut [0; 15], |_| {}), Ok(()));
    }

    /// A device of two chunks of ten bytes (1), and its files.
    fn two_chunks(name: &str) -> (Device, File, File) {
        let (file, ready) = (scratch(name, &[1; 20]), ready_file(name, &[1, 1]));
        let copy = file.try_clone().unwrap();
        let mapped = Ready::of(&ready, 2).unwrap();
        (Device::new(1, copy, mapped, 2, 20, &pack(&[(0, 10, 0), (10, 10, 1)])).unwrap(), file, ready)
    }

    #[test]
    fn bytes_of_a_chunk_that_is_taken_back_while_they_are_read_do_not_count() {
        let (device, file, ready) = two_chunks("taken");
        let read = |then: &dyn Fn()| {
            let (mut got, mut missing) = ([9; 20], Vec::new());
            let by = |into: &mut [u8]| {
                let count = device.read_file(0, into);
                then();
                count
            };
            device.read_by(0, &mut got, |chunk| missing.push(chunk), by).map(|()| (got, missing))
        };
        assert_eq!(read(&|| {}), Ok(([1; 20], vec![])));
        assert_eq!(read(&|| ready.write_all_at(&[0], 65).unwrap()).unwrap().1, [1]);
        // and stay so, though they are in the file
        assert_eq!(read(&|| {}).unwrap().1, [1]);
        ready.write_all_at(&[1], 65).unwrap();
        assert_eq!(read(&|| {}), Ok(([1; 20], vec![])));
        // a file that was cut meanwhile is no broken promise
        let cut = || {
            ready.write_all_at(&[0], 65).unwrap();
            file.set_len(12).unwrap();
        };
        file.set_len(12).unwrap();
        assert_eq!(read(&cut).unwrap().1, [1]);
    }

    #[test]
    fn a_chunk_that_is_taken_back_and_filled_again_while_it_is_read_is_read_again() {
        let (device, file, ready) = two_chunks("again");
        file.write_all_at(&[0; 10], 10).unwrap(); // a hole
        let (mut got, mut turns) = ([9; 20], 0);
        let by = |into: &mut [u8]| {
            turns += 1;
            let count = device.read_file(0, into);
            if turns == 1 {
                ready.write_all_at(&1_u32.to_le_bytes(), 48).unwrap();
                file.write_all_at(&[2; 10], 10).unwrap();
            }
            count
        };
        device.read_by(0, &mut got, |_| panic!("a chunk is missing"), by).unwrap();
        assert_eq!((turns, &got[..10], &got[10..]), (2, &[1; 10][..], &[2; 10][..]));
    }
    #[test]
    fn chunks_that_are_in_memory_are_read_from_there_until_they_are_taken_back() {
        let (device, _file, ready) = two_chunks("spilled");
        ready.write_all_at(&[0], 65).unwrap();
        let (memory, spilled) = (scratch("memory", &[3; 20]), ready_file("memory-ready", &[0, 1]));
        device.spill(memory.try_clone().unwrap(), Ready::of(&spilled, 2).unwrap());
        let read = || {
            let (mut got, mut missing) = ([9; 20], Vec::new());
            device.read(0, &mut got, |chunk| missing.push(chunk)).unwrap();
            (got, missing)
        };
        let (got, missing) = read();
        assert_eq!((&got[..10], &got[10..], missing.len()), (&[1; 10][..], &[3; 10][..], 0));
        spilled.write_all_at(&[0], 65).unwrap();
        assert_eq!(read().1, [1]);
        ready.write_all_at(&[1], 65).unwrap();
        assert_eq!(read().0, [1; 20]);
        // one that goes while it is read
        ready.write_all_at(&[0], 65).unwrap();
        spilled.write_all_at(&[1], 65).unwrap();
        let (mut got, mut missing) = ([9; 20], Vec::new());
        let by = |into: &mut [u8]| {
            spilled.write_all_at(&[0], 65).unwrap();
            device.read_file(0, into)
        };
        device.read_by(0, &mut got, |chunk| missing.push(chunk), by).unwrap();
        assert_eq!(missing, [1]);
    }

    #[test]
    fn what_was_read_is_told_once() {
        let size = 20 << 20;
        let file = scratch("touched", b"");
        file.set_len(size).unwrap();
        let device = Device::new(1, file, ready("touched", &[1]), 1, size, &pack(&[(0, size, 0)])).unwrap();
        device.read((3 << 20) - 1, &mut [0; 2], |_| {}).unwrap();
        device.read(9 << 20, &mut [0; 1 << 20], |_| {}).unwrap();
        assert_eq!(device.take_touched(), [0b1100, 0b10, 0]);
        assert_eq!(device.take_touched(), [0, 0, 0]);
    }
}
