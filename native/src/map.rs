//! Files mapped into memory: images, which never change, and ready bytes, which others set.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

/// A read-only shared mapping of a whole file.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is read-only memory that is unmapped only when the last owner drops it.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        if length == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping, and nothing borrowed outlives it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The bytes of an image. Its file is immutable from the moment its digest was checked: nothing of ours writes to it or cuts it.
pub struct Image(Mapping);

impl Image {
    pub fn of(file: &File) -> io::Result<Self> {
        Mapping::of(file).map(Self)
    }
}

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped, readable, and not written to while it is mapped (see the type).
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }
}

const HEADER_BYTES: usize = 64;
const TAKEN_BACK_AT: usize = 48;
const MAGIC: &[u8] = b"lazyrdy\n";
const VERSION: u32 = 1;
const VERIFIED: u8 = 1;

/// The ready bytes of a device (`src/tree/ready.ts`), set by other threads and processes.
pub struct Ready {
    mapping: Mapping,
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
        let mapping = Mapping::of(file).map_err(|error| format!("ready file: {error}"))?;
        if mapping.length < HEADER_BYTES + chunks as usize {
            return Err(format!("ready file: too short for {chunks} chunks"));
        }
        Ok(Self { mapping, chunks: chunks as usize })
    }

    /// How often chunks were taken back: their bytes unset, this counted up, then their places punched. Whoever finds it unchanged
    /// after a read, and the chunks verified before, has read no hole, and nothing that was half written into one.
    pub fn taken_back(&self) -> u32 {
        fence(Ordering::SeqCst); // what was read before this was read before it is looked at
        // SAFETY: the header lies within the mapping (checked in `of`), which begins with a page, so the word is aligned; otherwise as
        // in `verified`.
        let word = unsafe { AtomicU32::from_ptr(self.mapping.start.as_ptr().add(TAKEN_BACK_AT).cast()) };
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
        let byte = unsafe { AtomicU8::from_ptr(self.mapping.start.as_ptr().add(HEADER_BYTES + chunk)) };
        let verified = byte.load(Ordering::Relaxed) == VERIFIED;
        fence(Ordering::Acquire);
        verified
    }
}
