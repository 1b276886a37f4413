//! Directories: blocks of sorted entries, sorted among each other.
#![forbid(unsafe_code)]

use std::cmp::Ordering;

use super::{BLOCK, Erofs, Inode, Layout, Outcome, S_IFDIR, S_IFLNK, S_IFREG, sound};
use crate::bytes::{u8_at, u16_at, u64_at};

const DIRENT: u64 = 12;
const NAME_MAX: usize = 255;

pub struct DirEntry<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    /// S_IFMT bits, from the entry.
    pub mode: u32,
    /// Offset to go on from after this entry.
    pub next: u64,
}

impl<B: AsRef<[u8]>> Erofs<B> {
    fn block(&self, directory: &Inode, number: u64) -> Outcome<Block<'_>> {
        if directory.layout == Layout::Chunks {
            return Err(libc::EUCLEAN);
        }
        let from = number * BLOCK;
        Block::new(self.flat(directory, from, directory.size.min(from + BLOCK))?)
    }

    /// The nid that a directory has under a name.
    pub fn lookup(&self, directory: &Inode, name: &[u8]) -> Outcome<Option<u64>> {
        if !directory.is_directory() {
            return Err(libc::ENOTDIR);
        }
        // the last block whose first name is not above ours
        let (mut low, mut high) = (0, directory.size.div_ceil(BLOCK));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.block(directory, middle)?.name(0)?.cmp(name) {
                Ordering::Greater => high = middle,
                _ => low = middle,
            }
        }
        if high == 0 {
            return Ok(None);
        }
        let block = self.block(directory, low)?;
        let (mut low, mut high) = (0, block.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match block.name(middle)?.cmp(name) {
                Ordering::Equal => return block.nid(middle).map(Some),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Calls `each` for the entries from offset `from` on until it returns false.
    pub fn entries<'s>(
        &'s self,
        directory: &Inode,
        from: u64,
        mut each: impl FnMut(DirEntry<'s>) -> Outcome<bool>,
    ) -> Outcome<()> {
        if !directory.is_directory() {
            return Err(libc::ENOTDIR);
        }
        let blocks = directory.size.div_ceil(BLOCK);
        let mut index = from % BLOCK / DIRENT;
        for number in from / BLOCK..blocks {
            let block = self.block(directory, number)?;
            for index in index..block.count {
                let entry = DirEntry {
                    name: block.name(index)?,
                    nid: block.nid(index)?,
                    mode: block.mode(index)?,
                    next: number * BLOCK + (index + 1) * DIRENT,
                };
                if !each(entry)? {
                    return Ok(());
                }
            }
            index = 0;
        }
        Ok(())
    }
}

/// A directory's block: entries, then their names.
struct Block<'a> {
    bytes: &'a [u8],
    count: u64,
}

impl<'a> Block<'a> {
    fn new(bytes: &'a [u8]) -> Outcome<Self> {
        let names = u64::from(sound(u16_at(bytes, 8))?);
        if names < DIRENT || !names.is_multiple_of(DIRENT) || names > bytes.len() as u64 {
            return Err(libc::EUCLEAN);
        }
        Ok(Self { bytes, count: names / DIRENT })
    }

    fn name(&self, index: u64) -> Outcome<&'a [u8]> {
        let start = sound(u16_at(self.bytes, index * DIRENT + 8))? as usize;
        let name = if index + 1 < self.count {
            let end = sound(u16_at(self.bytes, (index + 1) * DIRENT + 8))? as usize;
            sound(self.bytes.get(start..end))?
        } else {
            // the last name ends with the block or at its padding
            let rest = sound(self.bytes.get(start..))?;
            rest.split(|&byte| byte == 0).next().unwrap_or(rest)
        };
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(libc::EUCLEAN);
        }
        Ok(name)
    }

    fn nid(&self, index: u64) -> Outcome<u64> {
        sound(u64_at(self.bytes, index * DIRENT))
    }

    fn mode(&self, index: u64) -> Outcome<u32> {
        Ok(match sound(u8_at(self.bytes, index * DIRENT + 10))? {
            1 => S_IFREG,
            2 => S_IFDIR,
            3 => 0o020_000,
            4 => 0o060_000,
            5 => 0o010_000,
            6 => 0o140_000,
            7 => S_IFLNK,
            _ => 0,
        })
    }
}
