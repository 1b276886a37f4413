//! A small image made by hand, read as it is and after every kind of damage.

use super::*;

const META: u64 = 4096;

/// An extended inode without contents.
fn inode(layout: u16, mode: u16, size: u64, word: u32, xattr_count: u16) -> Vec<u8> {
    let mut raw = vec![0; 64];
    raw[0..2].copy_from_slice(&(layout << 1 | 1).to_le_bytes());
    raw[2..4].copy_from_slice(&xattr_count.to_le_bytes());
    raw[4..6].copy_from_slice(&mode.to_le_bytes());
    raw[8..16].copy_from_slice(&size.to_le_bytes());
    raw[16..20].copy_from_slice(&word.to_le_bytes());
    raw[24..28].copy_from_slice(&70_000u32.to_le_bytes());
    raw[32..40].copy_from_slice(&(-5i64).to_le_bytes());
    raw[40..44].copy_from_slice(&999_999_999u32.to_le_bytes());
    raw[44..48].copy_from_slice(&3u32.to_le_bytes());
    raw
}

/// One block of a directory.
fn block(entries: &[(&str, u64, u8)]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut at = entries.len() * 12;
    for (name, nid, kind) in entries {
        raw.extend(nid.to_le_bytes());
        raw.extend((at as u16).to_le_bytes());
        raw.extend([*kind, 0]);
        at += name.len();
    }
    for (name, ..) in entries {
        raw.extend(name.as_bytes());
    }
    raw
}

fn many() -> Vec<String> {
    (0..600).map(|number| format!("name-{number:05}")).collect()
}

// nids: root 0, file 16, inline 32, link 48, big 64
const FILE: u64 = 16;
const INLINE: u64 = 32;
const LINK: u64 = 48;
const BIG: u64 = 64;

/// Block 0 superblock, 1 inodes, 2 shared attributes, 3 … the big directory.
fn image() -> Vec<u8> {
    let mut image = vec![0; 3 * 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(1024, &MAGIC.to_le_bytes());
    put(1024 + 12, &[12]);
    put(1024 + 40, &1u32.to_le_bytes());
    put(1024 + 44, &2u32.to_le_bytes());
    put(1024 + 80, &0xcu32.to_le_bytes());
    put(1024 + 86, &1u16.to_le_bytes());
    let meta = |nid: u64| (META + nid * 32) as usize;
    let root = block(&[(".", 0, 2), ("..", 0, 2), ("big", BIG, 2), ("file", FILE, 1), ("inline", INLINE, 1), ("link", LINK, 7)]);
    put(meta(0), &inode(2, 0o040_755, root.len() as u64, 0, 0));
    put(meta(0) + 64, &root);
    // chunks of 8 KiB: device, hole, device; one shared attribute, one inline: 12 + 4 + 4 + 1 + 3 -> 24 bytes
    put(meta(FILE), &inode(4, 0o100_644, 20_000, 0x21, 1 + (24 - 12) / 4));
    put(meta(FILE) + 64 + 4, &[1]);
    put(meta(FILE) + 64 + 16, &[1, 1, 3, 0, b'a', b'b', b'c', b'd']);
    for (index, start) in [7u32, u32::MAX, 9].into_iter().enumerate() {
        put(meta(FILE) + 64 + 24 + index * 8 + 2, &1u16.to_le_bytes());
        put(meta(FILE) + 64 + 24 + index * 8 + 4, &start.to_le_bytes());
    }
    put(meta(INLINE), &inode(2, 0o100_600, 5, 0, 0));
    put(meta(INLINE) + 64, b"hello");
    put(meta(LINK), &inode(2, 0o120_777, 6, 0, 0));
    put(meta(LINK) + 64, b"target");
    put(2 * 4096, &[14, 4, 1, 0]);
    put(2 * 4096 + 4, b"overlay.opaquey");
    let names = many();
    let mut blocks = Vec::new();
    let mut from = 0;
    while from < names.len() {
        let count = 150.min(names.len() - from);
        let entries: Vec<_> = names[from..from + count].iter().map(|name| (name.as_str(), INLINE, 1)).collect();
        let mut bytes = block(&entries);
        from += count;
        if from < names.len() {
            bytes.resize(4096, 0);
        }
        blocks.extend(bytes);
    }
    put(meta(BIG), &inode(0, 0o040_755, blocks.len() as u64, 3, 0));
    image.extend(blocks);
    image
}

fn opened() -> Erofs<Vec<u8>> {
    Erofs::open(image()).unwrap()
}

#[test]
fn an_extended_inode_has_its_wide_fields() {
    let inode = opened().inode(FILE).unwrap();
    assert_eq!((inode.mode, inode.links, inode.uid, inode.size), (0o100_644, 3, 70_000, 20_000));
    assert_eq!((inode.seconds, inode.nanoseconds), (-5, 999_999_999));
}

#[test]
fn every_name_is_found_and_no_other() {
    let erofs = opened();
    let root = erofs.inode(0).unwrap();
    for (name, nid) in [(".", 0), ("big", BIG), ("file", FILE), ("inline", INLINE), ("link", LINK)] {
        assert_eq!(erofs.lookup(&root, name.as_bytes()), Ok(Some(nid)), "{name}");
    }
    let big = erofs.inode(BIG).unwrap();
    for name in many() {
        assert_eq!(erofs.lookup(&big, name.as_bytes()), Ok(Some(INLINE)), "{name}");
        assert_eq!(erofs.lookup(&big, format!("{name}x").as_bytes()), Ok(None));
    }
    assert_eq!(erofs.lookup(&big, b"a"), Ok(None));
    assert_eq!(erofs.lookup(&erofs.inode(FILE).unwrap(), b"a"), Err(libc::ENOTDIR));
}

#[test]
fn a_listing_goes_on_from_any_entry() {
    let erofs = opened();
    let big = erofs.inode(BIG).unwrap();
    let (mut from, mut seen) = (0, Vec::new());
    loop {
        let before = seen.len();
        // seven at a time
        erofs
            .entries(&big, from, |entry| {
                if seen.len() == before + 7 {
                    return Ok(false);
                }
                seen.push(String::from_utf8(entry.name.to_vec()).unwrap());
                from = entry.next;
                Ok(true)
            })
            .unwrap();
        if seen.len() == before {
            break;
        }
    }
    assert_eq!(seen, many());
}

#[test]
fn chunks_lead_to_devices_and_holes() {
    let erofs = opened();
    let file = erofs.inode(FILE).unwrap();
    let check = |from, to, want| assert_eq!(erofs.place(&file, from, to), Ok(want), "{from}");
    check(0, 20_000, Place::Device { slot: 1, at: 7 * 4096, length: 8192 });
    check(100, 200, Place::Device { slot: 1, at: 7 * 4096 + 100, length: 100 });
    check(8192, 20_000, Place::Zeros(8192));
    check(16_384, 20_000, Place::Device { slot: 1, at: 9 * 4096, length: 20_000 - 16_384 });
    let inline = erofs.inode(INLINE).unwrap();
    assert_eq!(erofs.place(&inline, 1, 5), Ok(Place::Image(b"ello")));
}

#[test]
fn links_and_attributes_are_read() {
    let erofs = opened();
    assert_eq!(erofs.link(&erofs.inode(LINK).unwrap()), Ok(&b"target"[..]));
    assert_eq!(erofs.link(&erofs.inode(FILE).unwrap()), Err(libc::EINVAL));
    let file = erofs.inode(FILE).unwrap();
    assert_eq!(erofs.xattr(&file, b"user.a"), Ok(Some(&b"bcd"[..])));
    assert_eq!(erofs.xattr(&file, b"trusted.overlay.opaque"), Ok(Some(&b"y"[..])));
    assert_eq!(erofs.xattr(&file, b"user."), Ok(None));
    let mut names = Vec::new();
    erofs.xattr_names(&file, &mut names).unwrap();
    assert_eq!(names, b"trusted.overlay.opaque\0user.a\0");
}

#[test]
fn images_of_other_kinds_are_refused() {
    let check = |at: usize, byte: u8, want: &str| {
        let mut image = image();
        image[1024 + at] = byte;
        assert_eq!(Erofs::open(image).err().as_deref(), Some(want));
    };
    check(0, 0, "image: not EROFS");
    check(12, 9, "image: blocks are not of 4096 bytes");
    check(80, 0x10, "image: features 0x10 are not supported");
    check(14, FILE as u8, "image: the root is not a directory");
    assert!(Erofs::open(vec![0; 1000]).is_err());
}

/// All that a mount would ask, of every inode there could be.
fn walk(erofs: &Erofs<Vec<u8>>) {
    for nid in [0, FILE, INLINE, LINK, BIG, u64::MAX, u64::MAX / 32] {
        let Ok(inode) = erofs.inode(nid) else { continue };
        let _ = erofs.link(&inode);
        let _ = erofs.lookup(&inode, b"name-00300");
        let _ = erofs.xattr(&inode, b"user.a");
        let _ = erofs.xattr_names(&inode, &mut Vec::new());
        for from in [0, 4095, 9000, u64::MAX] {
            let mut left = 1000;
            let _ = erofs.entries(&inode, from, |_| {
                left -= 1;
                Ok(left > 0)
            });
            let from = from.min(inode.size);
            if from < inode.size
                && let Ok(place) = erofs.place(&inode, from, inode.size)
            {
                assert!(place.length() > 0 && place.length() <= inode.size - from);
            }
        }
    }
}

#[test]
fn no_damage_makes_the_reader_panic_or_leave_the_image() {
    let whole = image();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let values = [0, 1, 0x7f, 0x80, 0xff];
    for round in 0..4_000 {
        let mut image = whole.clone();
        for _ in 0..1 + next(6) {
            // the superblock's and the inodes' blocks are where a byte matters
            let at = if round % 4 == 0 { next(image.len()) } else { 1024 + next(7000) };
            image[at] = if next(2) == 0 { values[next(values.len())] } else { next(256) as u8 };
        }
        if round % 10 == 0 {
            image.truncate(next(image.len()));
        }
        if let Ok(erofs) = Erofs::open(image) {
            walk(&erofs);
        }
    }
}
