//! INIT: what the kernel can and what we want of it.
#![forbid(unsafe_code)]

use super::MAX_READ;
use crate::bytes::u32_at;

const MAX_PAGES: u16 = (MAX_READ / 4096) as u16;
/// Nothing is ever written.
const MAX_WRITE: u32 = 4096;
/// Reads that wait for a chunk occupy the kernel's background queue, whose default of 12 would let them stop all read-ahead.
const MAX_BACKGROUND: u16 = 1024;
const CONGESTION: u16 = 768;
/// The kernel takes the smaller of this and what the mount's bdi says, so the bdi decides.
const MAX_READAHEAD: u32 = 64 << 20;
const MINOR: u32 = 41;
/// 7.23 made INIT's answer 64 bytes long.
const MINOR_MIN: u32 = 23;

const ASYNC_READ: u64 = 1;
const DO_READDIRPLUS: u64 = 1 << 13;
const ASYNC_DIO: u64 = 1 << 15;
const NO_OPEN_SUPPORT: u64 = 1 << 17;
const PARALLEL_DIROPS: u64 = 1 << 18;
const POSIX_ACL: u64 = 1 << 20;
const ABORT_ERROR: u64 = 1 << 21;
const MAX_PAGES_FLAG: u64 = 1 << 22;
const CACHE_SYMLINKS: u64 = 1 << 23;
const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
const INIT_EXT: u64 = 1 << 30;
const HAS_RESEND: u64 = 1 << 39;
const ALLOW_IDMAP: u64 = 1 << 40;
/// Everything here is a reading file system's; locks stay the kernel's (engines lock files of read-only stores). With ACLs the kernel asks
/// for those of every file and directory whose mode alone does not tell, once: without, it would go by the mode, which is more than an ACL
/// that denies somebody allows.
const WANTED: u64 = ASYNC_READ
    | DO_READDIRPLUS
    | ASYNC_DIO
    | NO_OPEN_SUPPORT
    | PARALLEL_DIROPS
    | POSIX_ACL
    | ABORT_ERROR
    | MAX_PAGES_FLAG
    | CACHE_SYMLINKS
    | NO_OPENDIR_SUPPORT
    | INIT_EXT
    | HAS_RESEND
    | ALLOW_IDMAP;

/// What a connection is from INIT on, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub minor: u32,
    pub flags: u64,
}

impl Negotiated {
    /// Whether a successor gets what was not answered.
    pub fn resends(&self) -> bool {
        self.flags & HAS_RESEND != 0
    }
}

/// struct fuse_init_out in answer to a fuse_init_in; None when the kernel's version is not one we speak. `resend`: whether a successor is
/// to be able to go on, where the kernel can.
pub fn init(body: &[u8], resend: bool) -> Option<([u8; 64], Negotiated)> {
    let major = u32_at(body, 0)?;
    let minor = u32_at(body, 4)?;
    if major != 7 || minor < MINOR_MIN {
        return None;
    }
    let offered = u64::from(u32_at(body, 12)?);
    let offered = if offered & INIT_EXT == 0 { offered } else { offered | u64::from(u32_at(body, 16)?) << 32 };
    let flags = offered & if resend { WANTED } else { WANTED & !HAS_RESEND };
    let minor = minor.min(MINOR);
    let mut out = [0; 64];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &7u32.to_le_bytes());
    put(4, &minor.to_le_bytes());
    put(8, &MAX_READAHEAD.to_le_bytes());
    put(12, &((flags & 0xffff_ffff) as u32).to_le_bytes());
    put(16, &MAX_BACKGROUND.to_le_bytes());
    put(18, &CONGESTION.to_le_bytes());
    put(20, &MAX_WRITE.to_le_bytes());
    put(24, &1u32.to_le_bytes()); // time_gran: nanoseconds
    put(28, &MAX_PAGES.to_le_bytes());
    put(32, &((flags >> 32) as u32).to_le_bytes());
    Some((out, Negotiated { minor, flags }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_takes_what_it_wants_of_what_is_offered() {
        let mut body = vec![0; 64];
        body[0] = 7;
        body[4] = 45;
        body[12..16].fill(0xff);
        body[16..20].fill(0xff);
        let (out, negotiated) = init(&body, true).unwrap();
        assert_eq!(u64::from(u32_at(&out, 12).unwrap()) | u64::from(u32_at(&out, 32).unwrap()) << 32, WANTED);
        assert_eq!(negotiated, Negotiated { minor: MINOR, flags: WANTED });
        assert!(negotiated.resends());
        assert_eq!(init(&body, false).unwrap().1.flags, WANTED & !HAS_RESEND);
        assert_eq!(u32_at(&out, 4), Some(MINOR));
        // no FUSE_INIT_EXT: the second word is not the kernel's
        body[15] = 0;
        let (out, negotiated) = init(&body, true).unwrap();
        assert_eq!(u32_at(&out, 32), Some(0));
        assert!(!negotiated.resends());
        // neither file locks nor flock
        assert_eq!(WANTED & (1 << 1 | 1 << 10), 0);
        body[0] = 8;
        assert!(init(&body, true).is_none());
        assert!(init(&[7, 0, 0], true).is_none());
    }
}
