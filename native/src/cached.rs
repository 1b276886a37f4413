//! Which parts of files the kernel has in its cache: of a mount that nobody but programs reads, what programs have read.
#![forbid(unsafe_code)]

use std::io;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::sys;

/// Bytes `start` … `end` of a file.
pub struct Part {
    /// From the mount's root.
    pub path: String,
    pub start: u64,
    pub end: u64,
}

/// A byte a part: 1 where a page of it is there. What cannot be opened, is on another mount or behind a symlink counts as not there.
pub fn parts(dir: &str, parts: &[Part]) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let root = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let is_there = |Part { path, start, end }: &Part| {
        let file = openat2(&root, path, flags, Mode::empty(), stay)?;
        sys::cached_pages(file, *start, end.saturating_sub(*start)).map(|pages| pages > 0)
    };
    // that the kernel does not know the question is no answer
    parts
        .iter()
        .map(|part| match is_there(part) {
            Ok(found) => Ok(found.into()),
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Err(error),
            Err(_) => Ok(0),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_is_there_and_what_is_none_is_not() {
        let dir = std::env::temp_dir().join(format!("lazylayer-{}-cached", std::process::id()));
        std::fs::create_dir_all(dir.join("a")).unwrap();
        std::fs::write(dir.join("a/b"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("a/b", dir.join("link")).unwrap();
        let part = |path: &str, start, end| Part { path: path.into(), start, end };
        let asked =
            [part("a/b", 0, 1), part("a/b", 1 << 20, 2 << 20), part("gone", 0, 1), part("link", 0, 1), part("../a", 0, 1)];
        let found = parts(dir.to_str().unwrap(), &asked);
        std::fs::remove_dir_all(&dir).unwrap();
        match found {
            Ok(found) => assert_eq!(found, [1, 0, 0, 0, 0]),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOSYS)),
        }
    }
}
