//! Files mapped into memory: images, which never change, and ready bytes, which others set.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

use memmap2::{Mmap, MmapOptions, MmapRaw};

/// The bytes of an image. Its file is immutable from the moment its digest was checked: nothing of ours writes to it or cuts it.
pub struct Image(Mmap);

impl Image {
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the file is not written to, and not cut, while it is mapped (see the type).
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

const HEADER_BYTES: usize = 64;
const TAKEN_BACK_AT: usize = 48;
const MAGIC: &[u8] = b"lazyrdy\n";
const VERSION: u32 = 1;
const VERIFIED: u8 = 1;

const STORED: u8 = 2;

/// The ready bytes of a device (`src/tree/ready.ts`), set by other threads and processes.
pub struct Ready {
    mapping: MmapRaw,
    is_writable: bool,
    chunks: usize,
}

impl Ready {
    pub fn of(file: &File, chunks: u32) -> Result<Self, String> {
        use std::os::unix::fs::FileExt;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(|error| format!("ready file: {error}"))?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..8] != MAGIC || word(8) != VERSION {
            return Err("ready file: not a ready file of version 1".into());
        }
        if word(12) != chunks {
            return Err(format!("ready file: made for {} chunks, not {chunks}", word(12)));
        }
        // one that was opened for reading, or is on a disk that is mounted so, is only read
        let writable = MmapOptions::new().map_raw(file);
        let is_writable = writable.is_ok();
        let mapping =
            writable.or_else(|_| MmapOptions::new().map_raw_read_only(file)).map_err(|error| format!("ready file: {error}"))?;
        if mapping.len() < HEADER_BYTES + chunks as usize {
            return Err(format!("ready file: too short for {chunks} chunks"));
        }
        Ok(Self { mapping, is_writable, chunks: chunks as usize })
    }

    /// Checksum of what places have of a block of the device; 0: none was written down.
    pub fn sum(&self, block: u64) -> u32 {
        let at = (HEADER_BYTES + self.chunks).next_multiple_of(size_of::<u32>()) as u64 + block * size_of::<u32>() as u64;
        if at + size_of::<u32>() as u64 > self.mapping.len() as u64 {
            return 0;
        }
        // SAFETY: the word lies within the mapping, which begins with a page, so that it is aligned; otherwise as in `verified`.
        unsafe { AtomicU32::from_ptr(self.mapping.as_ptr().add(at as usize).cast_mut().cast()) }.load(Ordering::Relaxed)
    }

    /// The chunk, which was verified, must be verified again before it is read. False: that cannot be written down.
    pub fn demote(&self, chunk: u32) -> bool {
        let chunk = chunk as usize;
        if !self.is_writable || chunk >= self.chunks {
            return false;
        }
        // SAFETY: as in `verified`; of memory that is mapped to be written to. The byte was written before, so the disk has a place for it.
        let byte = unsafe { AtomicU8::from_ptr(self.mapping.as_mut_ptr().add(HEADER_BYTES + chunk)) };
        // whoever changed it meanwhile knows better
        let _ = byte.compare_exchange(VERIFIED, STORED, Ordering::AcqRel, Ordering::Relaxed);
        true
    }

    /// How often chunks were taken back: their bytes unset, this counted up, then their places punched. Whoever finds it unchanged
    /// after a read, and the chunks verified before, has read no hole, and nothing that was half written into one.
    pub fn taken_back(&self) -> u32 {
        fence(Ordering::SeqCst); // what was read before this was read before it is looked at
        // SAFETY: the header lies within the mapping (checked in `of`), which begins with a page, so the word is aligned; otherwise as
        // in `verified`.
        let word = unsafe { AtomicU32::from_ptr(self.mapping.as_ptr().add(TAKEN_BACK_AT).cast_mut().cast()) };
        let taken_back = word.load(Ordering::Relaxed);
        fence(Ordering::SeqCst);
        taken_back
    }

    /// Whether the chunk's places may be read; what was written before the byte was set is seen after. Never remembered: a chunk may be
    /// taken back.
    pub fn verified(&self, chunk: u32) -> bool {
        let chunk = chunk as usize;
        if chunk >= self.chunks {
            return false;
        }
        // SAFETY: header and chunks lie within the mapping (checked in `of`); a u8 has no alignment, and the byte is only ever
        // accessed atomically in this process. Of memory that is mapped read-only, std allows atomic loads that are relaxed.
        let byte = unsafe { AtomicU8::from_ptr(self.mapping.as_ptr().add(HEADER_BYTES + chunk).cast_mut()) };
        let verified = byte.load(Ordering::Relaxed) == VERIFIED;
        fence(Ordering::Acquire);
        verified
    }
}
