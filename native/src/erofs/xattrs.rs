//! Extended attributes: after their inode, or shared by many.
#![forbid(unsafe_code)]

use super::{Erofs, Inode, Outcome, sound};
use crate::bytes::{slice, u8_at, u16_at, u32_at};

/// By the number that the format keeps for each; what does not end with a dot is a whole name.
pub const PREFIXES: [(u8, &str); 5] =
    [(1, "user."), (2, "system.posix_acl_access"), (3, "system.posix_acl_default"), (4, "trusted."), (6, "security.")];

impl<B: AsRef<[u8]>> Erofs<B> {
    /// Calls `each` with prefix, rest of the name and value of every extended attribute until it returns false.
    fn each_xattr<'s>(&'s self, inode: &Inode, mut each: impl FnMut(&'static str, &'s [u8], &'s [u8]) -> bool) -> Outcome<()> {
        if inode.xattrs_length == 0 {
            return Ok(());
        }
        let body = sound(slice(self.image(), inode.xattrs, inode.xattrs_length))?;
        let shared = u64::from(sound(u8_at(body, 4))?);
        for number in 0..shared {
            let id = sound(u32_at(body, 12 + 4 * number))?;
            let at = self.xattrs + 4 * u64::from(id);
            let (prefix, name, value, _) = xattr(self.image(), at)?;
            if !prefix.is_empty() && !each(prefix, name, value) {
                return Ok(());
            }
        }
        let mut at = 12 + 4 * shared;
        while at < body.len() as u64 {
            let (prefix, name, value, next) = xattr(body, at)?;
            if !prefix.is_empty() && !each(prefix, name, value) {
                return Ok(());
            }
            at = next;
        }
        Ok(())
    }

    pub fn xattr(&self, inode: &Inode, wanted: &[u8]) -> Outcome<Option<&[u8]>> {
        let mut found = None;
        self.each_xattr(inode, |prefix, name, value| {
            if wanted.strip_prefix(prefix.as_bytes()) == Some(name) {
                found = Some(value);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// The names, each with a NUL after it.
    pub fn xattr_names(&self, inode: &Inode, into: &mut Vec<u8>) -> Outcome<()> {
        self.each_xattr(inode, |prefix, name, _| {
            into.extend(prefix.as_bytes());
            into.extend(name);
            into.push(0);
            true
        })
    }
}

/// Prefix ("" when it is none of ours), rest of the name, value, and where the next attribute starts.
pub fn xattr(bytes: &[u8], at: u64) -> Outcome<(&'static str, &[u8], &[u8], u64)> {
    let name_length = u64::from(sound(u8_at(bytes, at))?);
    let number = sound(u8_at(bytes, at + 1))?;
    let prefix = PREFIXES.into_iter().find(|(each, _)| *each == number).map_or("", |(_, prefix)| prefix);
    let value_length = u64::from(sound(u16_at(bytes, at + 2))?);
    let name = sound(slice(bytes, at + 4, name_length))?;
    let value = sound(slice(bytes, at + 4 + name_length, value_length))?;
    Ok((prefix, name, value, (at + 4 + name_length + value_length).next_multiple_of(4)))
}
