//! Extended attributes, which overlayfs reads its marks from.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::Node;
use crate::reply::Reply;
use crate::session::Core;
use crate::wire::{self, Request};

const TRUSTED_MARKS: &[u8] = b"trusted.overlay.";
const USER_MARKS: &[u8] = b"user.overlay.";
/// The longest list of extended attributes' names, as the VFS has it (XATTR_LIST_MAX).
const LIST_MAX: usize = 65536;

impl Core {
    pub(super) fn xattr(&self, request: &Request, reply: Reply) {
        // u32 size, u32 padding, name
        let (Some(size), Some(name)) = (request.size(), request.name(8)) else { return reply.error(libc::EINVAL) };
        match self.node(request.node) {
            Err(errno) => reply.error(errno),
            Ok(Node::Control) => reply.error(libc::ENODATA),
            Ok(Node::Tree(tree, nid)) => {
                let name = if self.user_marks { stored_name(name) } else { Some(Cow::Borrowed(name)) };
                let found = match name {
                    Some(name) => tree.image.inode(nid).and_then(|inode| tree.image.xattr(&inode, &name)),
                    None => Ok(None),
                };
                match found {
                    Err(errno) => reply.error(errno),
                    Ok(None) => reply.error(libc::ENODATA),
                    Ok(Some(value)) => sized(reply, size, value),
                }
            }
        }
    }

    pub(super) fn xattr_names(&self, request: &Request, reply: Reply) {
        let Some(size) = request.size() else { return reply.error(libc::EINVAL) };
        let mut names = Vec::new();
        match self.node(request.node) {
            Err(errno) => reply.error(errno),
            Ok(Node::Control) => sized(reply, size, &names),
            Ok(Node::Tree(tree, nid)) => {
                match tree.image.inode(nid).and_then(|inode| tree.image.xattr_names(&inode, &mut names)) {
                    Err(errno) => reply.error(errno),
                    Ok(()) if names.len() > LIST_MAX => reply.error(libc::E2BIG),
                    Ok(()) if self.user_marks => sized(reply, size, &without_marks(&names)),
                    Ok(()) => sized(reply, size, &names),
                }
            }
        }
    }
}

/// Under which name an image has what is asked for in a user namespace; None: under none.
fn stored_name(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    match name.strip_prefix(USER_MARKS) {
        Some(mark) => Some(Cow::Owned([TRUSTED_MARKS, mark].concat())),
        None if name.starts_with(TRUSTED_MARKS) => None,
        None => Some(Cow::Borrowed(name)),
    }
}

/// Overlayfs asks for them by name; whoever copies all that is listed would make them part of an image.
fn without_marks(names: &[u8]) -> Vec<u8> {
    let names = names.split_inclusive(|&byte| byte == 0);
    names.filter(|name| !name.starts_with(TRUSTED_MARKS)).flatten().copied().collect()
}

/// Answers with a value, or with its size when that is what was asked for.
fn sized(reply: Reply, size: u32, value: &[u8]) {
    match size as usize {
        0 => reply.bytes(&wire::xattr_size(value.len())),
        room if room < value.len() => reply.error(libc::ERANGE),
        _ => reply.bytes(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_have_another_name_in_a_user_namespace_and_are_not_listed() {
        assert_eq!(stored_name(b"user.overlay.opaque").as_deref(), Some(&b"trusted.overlay.opaque"[..]));
        assert_eq!(stored_name(b"trusted.overlay.opaque"), None);
        for name in [&b"user.a"[..], b"user.overlayopaque", b"trusted.overlay", b"security.capability"] {
            assert_eq!(stored_name(name).as_deref(), Some(name));
        }
        assert_eq!(without_marks(b"user.a\0trusted.overlay.opaque\0trusted.b\0"), b"user.a\0trusted.b\0");
        assert_eq!(without_marks(b""), b"");
    }
}
