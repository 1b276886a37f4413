//! Answers EIO to whatever the kernel asks, when nobody else will.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read, write};

/// struct fuse_in_header and struct fuse_out_header (include/uapi/linux/fuse.h).
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const NOTIFY_RESEND: i32 = 7;
/// FORGET, INTERRUPT, BATCH_FORGET: the kernel waits for no answer.
const UNANSWERED: [u32; 3] = [2, 36, 42];
/// As long as the longest request; the kernel takes no smaller buffer.
const REQUEST_BYTES: usize = 72 << 10;
/// More than wait at a time; so that it ends however fast others ask.
const ANSWERS_MAX: usize = 1 << 16;

/// All that waits now, also what a process that is gone had read. `held`: /dev/fuse first.
pub fn refuse(held: &[OwnedFd]) {
    let Some(device) = held.first() else { return };
    // refused by kernels that cannot: then only what nobody has read yet is answered
    let _ = write(device, &answer(0, NOTIFY_RESEND));
    if fcntl_setfl(device, OFlags::RDWR | OFlags::NONBLOCK).is_err() {
        return;
    }
    let mut request = vec![0; REQUEST_BYTES];
    for _ in 0..ANSWERS_MAX {
        match read(device, &mut request[..]) {
            Ok(length) if length >= IN_HEADER => {
                let word = |at: usize| u32::from_le_bytes([request[at], request[at + 1], request[at + 2], request[at + 3]]);
                if !UNANSWERED.contains(&word(4)) {
                    let unique = u64::from(word(8)) | u64::from(word(12)) << 32;
                    // whose process is gone wants none
                    let _ = write(device, &answer(unique, -libc::EIO));
                }
            }
            // one that was given up while it was read
            Ok(_) | Err(Errno::INTR | Errno::NOENT) => {}
            Err(_) => return, // there is nothing more, or nobody
        }
    }
}

/// What threads of a process ask that is being killed, and that it would have had to answer itself: it cannot end before. What others ask
/// stays unanswered, and comes again to whoever goes on.
pub fn release(held: &[OwnedFd], process: u32) {
    let Some(device) = held.first() else { return };
    let _ = write(device, &answer(0, NOTIFY_RESEND));
    let mut request = vec![0; REQUEST_BYTES];
    for _ in 0..ANSWERS_MAX {
        // it must go on to block: its successor reads by the same
        let mut wait = [PollFd::new(device, PollFlags::IN)];
        if !matches!(poll(&mut wait, Some(&Timespec::default())), Ok(1..)) || !wait[0].revents().contains(PollFlags::IN) {
            return;
        }
        let Ok(length) = read(device, &mut request[..]) else { continue };
        let word = |at: usize| u32::from_le_bytes([request[at], request[at + 1], request[at + 2], request[at + 3]]);
        if length < IN_HEADER || UNANSWERED.contains(&word(4)) {
            continue;
        }
        if Path::new(&format!("/proc/{process}/task/{}", word(32))).exists() {
            let _ = write(device, &answer(u64::from(word(8)) | u64::from(word(12)) << 32, -libc::EIO));
        }
    }
}

fn answer(unique: u64, error: i32) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    header[..4].copy_from_slice(&(OUT_HEADER as u32).to_le_bytes());
    header[4..8].copy_from_slice(&error.to_le_bytes());
    header[8..].copy_from_slice(&unique.to_le_bytes());
    header
}
