//! A device: decoded contents in a sparse file, and which of its chunks may be read.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::bytes::{u32_at, u64_at};
use crate::map::Ready;

const PLACE: usize = 24;

/// Bytes `at` … `end` of the device are part of a chunk.
struct Place {
    at: u64,
    end: u64,
    chunk: u32,
}

pub struct Device {
    pub number: u32,
    pub size: u64,
    file: File,
    ready: Ready,
    /// Sorted and disjoint.
    places: Vec<Place>,
}

impl Device {
    /// The error is a sentence.
    pub fn new(number: u32, file: File, ready: Ready, chunks: u32, size: u64, packed: &[u8]) -> Result<Self, String> {
        if packed.len() % PLACE != 0 {
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
        Ok(Self { number, size, file, ready, places })
    }

    /// The places that overlap `from` … `to`.
    fn overlapping(&self, from: u64, to: u64) -> impl Iterator<Item = &Place> {
        let first = self.places.partition_point(|place| place.end <= from);
        self.places[first..].iter().take_while(move |place| place.at < to)
    }

    pub fn verified(&self, chunk: u32) -> bool {
        self.ready.verified(chunk)
    }

    /// Adds the chunks that `from` … `to` needs and that are not verified.
    pub fn missing(&self, from: u64, to: u64, mut add: impl FnMut(u32)) {
        for place in self.overlapping(from, to) {
            if !self.ready.verified(place.chunk) {
                add(place.chunk);
            }
        }
    }

    /// Reads verified bytes; what no chunk covers is zeros, whatever the file holds.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<(), i32> {
        let end = at + into.len() as u64;
        let mut got = 0;
        while got < into.len() {
            match self.file.read_at(&mut into[got..], at + got as u64) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(_) => return Err(libc::EIO),
            }
        }
        let mut done = at;
        for place in self.overlapping(at, end) {
            // the cache file is shorter than what its ready bytes promise
            if place.end.min(end) > at + got as u64 {
                return Err(libc::EIO);
            }
            if place.at > done {
                into[(done - at) as usize..(place.at - at) as usize].fill(0);
            }
            done = place.end.min(end);
        }
        into[(done - at) as usize..].fill(0);
        Ok(())
    }
}
