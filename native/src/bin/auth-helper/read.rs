//! Reading all that somebody writes, if it is not too much and does not take too long.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

/// What is read at once.
const PIECE_BYTES: usize = 4096;

/// Reads until whoever writes has closed its end. The error is `TimedOut` at the deadline, `FileTooLarge` for more than `max` bytes.
pub fn to_end(from: impl AsFd, max: usize, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; PIECE_BYTES];
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        match read(&from, &mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(count) if count > max - bytes.len() => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Write, pipe};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(60);

    fn read(written: &[u8], max: usize) -> Result<Vec<u8>, ErrorKind> {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(written).unwrap();
        drop(writer);
        to_end(reader, max, Instant::now() + SOON).map_err(|error| error.kind())
    }

    #[test]
    fn all_is_read_up_to_the_bound_and_nothing_beyond_it() {
        assert_eq!(read(b"", 0), Ok(vec![]));
        assert_eq!(read(&[7; 10_000], 10_000), Ok(vec![7; 10_000]));
        assert_eq!(read(&[7; 10_001], 10_000), Err(ErrorKind::FileTooLarge));
        assert_eq!(read(&[7; 60_000], 1), Err(ErrorKind::FileTooLarge));
    }

    #[test]
    fn who_never_ends_is_left_at_the_deadline() {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"half").unwrap();
        assert_eq!(to_end(reader, 100, Instant::now()).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(writer);
    }
}
