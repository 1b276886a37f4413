//! What of a device is read for the first time, in order: what a start reads. Only what the kernel asks for is noted, never what is fetched
//! ahead; but the kernel may ask for more than programs do (`src/mount/kernel-mounts.ts` tells these apart).
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A profile names some 2,000 files (`src/image/profile.ts`); large ones have several places. 256 KiB a device.
const NOTED_MAX: usize = 1 << 14;

/// Place number `place` of a device, and when it was read: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FirstRead {
    pub place: u32,
    pub at_ms: u64,
}

#[derive(Default)]
struct Noted {
    /// Not taken yet.
    list: Vec<FirstRead>,
    /// Those that were taken included.
    count: usize,
}

pub struct FirstReads {
    noting: AtomicBool,
    /// A bit a place.
    seen: Box<[AtomicU8]>,
    noted: Mutex<Noted>,
}

impl FirstReads {
    /// Notes from now on.
    pub fn new(places: usize) -> Self {
        Self {
            noting: AtomicBool::new(true),
            seen: (0..places.div_ceil(8)).map(|_| AtomicU8::new(0)).collect(),
            noted: Mutex::default(),
        }
    }

    pub fn is_noting(&self) -> bool {
        self.noting.load(Relaxed)
    }

    pub fn note(&self, place: usize) {
        let bit = 1 << (place % 8);
        let Some(byte) = self.seen.get(place / 8) else { return };
        // most are set already, and a load takes the line from no other thread
        if byte.load(Relaxed) & bit != 0 || byte.fetch_or(bit, Relaxed) & bit != 0 {
            return;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.count == NOTED_MAX {
            self.noting.store(false, Relaxed);
            return;
        }
        noted.count += 1;
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        noted.list.push(FirstRead { place: place as u32, at_ms });
    }

    /// What was noted since the last time.
    pub fn take(&self) -> Vec<FirstRead> {
        std::mem::take(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner).list)
    }

    /// Notes anew, as if nothing had been read.
    pub fn begin(&self) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = Noted::default();
        for byte in &self.seen {
            byte.store(0, Relaxed);
        }
        self.noting.store(true, Relaxed);
    }

    /// Notes nothing more; reads cost nothing for it then.
    pub fn end(&self) {
        self.noting.store(false, Relaxed);
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Noted::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(reads: &FirstReads) -> Vec<u32> {
        reads.take().iter().map(|read| read.place).collect()
    }

    #[test]
    fn each_place_is_noted_once_in_the_order_of_its_first_read() {
        let reads = FirstReads::new(10);
        for place in [9, 2, 9, 2, 0] {
            reads.note(place);
        }
        assert_eq!(places(&reads), [9, 2, 0]);
        reads.note(2);
        reads.note(3);
        assert_eq!(places(&reads), [3]);
    }

    #[test]
    fn what_is_no_place_is_not_noted() {
        let reads = FirstReads::new(1);
        reads.note(8);
        assert!(reads.take().is_empty());
    }

    #[test]
    fn notes_are_bounded_and_begin_anew() {
        let reads = FirstReads::new(NOTED_MAX + 2);
        for place in 0..NOTED_MAX + 2 {
            reads.note(place);
        }
        assert!(!reads.is_noting());
        assert_eq!(reads.take().len(), NOTED_MAX);
        reads.begin();
        assert!(reads.is_noting());
        reads.note(5);
        assert_eq!(places(&reads), [5]);
        reads.note(6);
        reads.end();
        assert!(!reads.is_noting() && reads.take().is_empty());
    }
}
