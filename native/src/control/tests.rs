//! The control tree alone.

use super::*;
use crate::erofs::S_IFLNK;

const OWNER: Owner = Owner { mode: 0o644, uid: 1, gid: 2, seconds: 3, nanoseconds: 4 };

fn id(number: u64) -> u64 {
    CONTROL_BIT | number
}

fn file() -> Contents {
    Contents::Bytes(Arc::from(&b"abc"[..]))
}

fn names(control: &Control, node: u64, mut from: u64) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(line) = control.line(node, from) {
        all.push(String::from_utf8(line.name.into_vec()).unwrap());
        from = line.next;
    }
    all
}

#[test]
fn names_that_are_none_and_nodes_in_use_are_refused() {
    let control = Control::new();
    for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert!(control.add_file(id(1), ROOT_ID, name, OWNER, file()).is_err(), "{name:?}");
    }
    assert!(control.add_file(5, ROOT_ID, "low", OWNER, file()).is_err());
    assert!(control.add_file(id(1), id(9), "orphan", OWNER, file()).is_err());
    control.add_file(id(1), ROOT_ID, "a", OWNER, file()).unwrap();
    assert!(control.add_file(id(1), ROOT_ID, "b", OWNER, file()).is_err());
    assert!(control.add_file(id(2), ROOT_ID, "a", OWNER, file()).is_err());
    assert!(control.add_file(id(2), id(1), "below a file", OWNER, file()).is_err());
    assert_eq!(names(&control, ROOT_ID, 0), ["a"]);
}

#[test]
fn a_listing_goes_on_while_names_come_and_go() {
    let control = Control::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        control.add_file(id(number as u64), ROOT_ID, name, OWNER, file()).unwrap();
    }
    let after_a = control.line(ROOT_ID, 0).unwrap().next;
    control.remove(ROOT_ID, "a").unwrap();
    control.remove(ROOT_ID, "b").unwrap();
    control.add_file(id(7), ROOT_ID, "a", OWNER, file()).unwrap();
    assert_eq!(names(&control, ROOT_ID, after_a), ["c", "a"]);
    assert!(control.line(ROOT_ID, u64::MAX).is_none());
}

#[test]
fn a_late_file_that_is_small_needs_no_descriptor() {
    let control = Control::new();
    let path = std::env::temp_dir().join(format!("lazylayer-late-{}", std::process::id()));
    for (number, length, told) in [(1, 10, 10), (2, 20_000, 20_000), (3, 10, 11), (4, 0, 4096), (5, 20_000, 4096)] {
        std::fs::write(&path, vec![7; length]).unwrap();
        let late = Contents::Late { size: told, file: None };
        control.add_file(id(number), ROOT_ID, &number.to_string(), OWNER, late).unwrap();
        assert!(control.set_late(id(number), Arc::new(File::open(&path).unwrap())));
        match control.contents(id(number)) {
            Ok(Contents::Bytes(bytes)) => assert_eq!(&*bytes, &vec![7; length][..]),
            Ok(Contents::Late { size, file: Some(_) }) => assert_eq!(size, length as u64),
            _ => panic!("file {number} has no contents"),
        }
        assert_eq!(matches!(control.contents(id(number)), Ok(Contents::Bytes(_))), length <= 16 << 10);
    }
    std::fs::remove_file(path).unwrap();
    assert!(!control.set_late(id(9), Arc::new(File::open("/dev/null").unwrap())));
}

#[test]
fn of_many_late_files_the_first_are_let_go_of() {
    let control = Control::new();
    let path = std::env::temp_dir().join(format!("lazylayer-open-{}", std::process::id()));
    std::fs::write(&path, vec![7; 20_000]).unwrap();
    let open = |number| matches!(control.contents(id(number)), Ok(Contents::Late { size: 20_000, file: Some(_) }));
    for number in 1..=OPEN_MAX as u64 + 2 {
        let late = Contents::Late { size: 4096, file: None };
        control.add_file(id(number), ROOT_ID, &number.to_string(), OWNER, late).unwrap();
        assert!(control.set_late(id(number), Arc::new(File::open(&path).unwrap())));
    }
    assert!(!open(1) && !open(2) && (3..=OPEN_MAX as u64 + 2).all(open));
    assert!(control.set_late(id(1), Arc::new(File::open(&path).unwrap())));
    assert!(open(1) && !open(3));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn removing_takes_what_is_below_along() {
    let control = Control::new();
    control.add_directory(id(1), ROOT_ID, "dir", OWNER, true).unwrap();
    control.add_directory(id(2), id(1), "dir", OWNER, false).unwrap();
    control.add_file(id(3), id(2), "file", OWNER, file()).unwrap();
    control.graft(id(1), "tree", 5).unwrap();
    assert!(matches!(control.lookup(id(1), b"tree"), Found::Tree(5)));
    assert!(matches!(control.lookup(id(1), b"other"), Found::Ask));
    assert!(matches!(control.lookup(id(2), b"other"), Found::Nothing));
    let mut gone = control.remove(ROOT_ID, "dir").unwrap();
    gone.sort_unstable();
    assert_eq!(gone, [id(1), id(2), id(3)]);
    assert!(control.attributes(id(3)).is_none());
    assert!(matches!(control.lookup(id(1), b"tree"), Found::Nothing));
    assert!(control.remove(ROOT_ID, "dir").is_err());
}

fn node(found: Found) -> u64 {
    match found {
        Found::Node(node, _) => node,
        _ => panic!("no node"),
    }
}

#[test]
fn a_symlink_says_where_it_leads_and_is_nothing_else() {
    let control = Control::new();
    for target in ["", "a\0b", &"x".repeat(4096)] {
        assert!(control.add_symlink(id(1), ROOT_ID, "link", OWNER, target).is_err(), "{} bytes", target.len());
    }
    control.add_symlink(id(1), ROOT_ID, "link", OWNER, "../dir/file").unwrap();
    let attributes = control.attributes(id(1)).unwrap();
    assert_eq!((attributes.mode & 0o170_000, attributes.size), (S_IFLNK, 11));
    assert_eq!(&*control.target(id(1)).unwrap(), b"../dir/file");
    assert_eq!(control.contents(id(1)).err(), Some(libc::EINVAL));
    assert_eq!(control.parent(id(1)), Err(libc::ENOTDIR));
    assert!(matches!(control.lookup(id(1), b"below"), Found::NotDirectory));
    assert_eq!(control.target(ROOT_ID), Err(libc::EINVAL));
    assert_eq!(control.target(id(2)), Err(libc::ESTALE));
    assert_eq!(control.remove(ROOT_ID, "link"), Ok(vec![id(1)]));
}

#[test]
fn a_replaced_file_stays_readable_until_the_kernel_forgets_it() {
    let control = Control::new();
    let version = |text: &'static [u8]| Contents::Bytes(Arc::from(text));
    let bytes = |node| match control.contents(node) {
        Ok(Contents::Bytes(bytes)) => Some(bytes.to_vec()),
        _ => None,
    };
    control.add_file(id(1), ROOT_ID, "file", OWNER, version(b"one")).unwrap();
    assert_eq!(node(control.lookup(ROOT_ID, b"file")), id(1));
    control.told(id(1)); // a listing
    control.replace_file(id(2), ROOT_ID, "file", OWNER, version(b"two!")).unwrap();
    assert_eq!(node(control.lookup(ROOT_ID, b"file")), id(2));
    assert_eq!(names(&control, ROOT_ID, 0), ["file"]);
    assert_eq!((bytes(id(1)), bytes(id(2))), (Some(b"one".to_vec()), Some(b"two!".to_vec())));
    control.forget(id(1), 1);
    assert_eq!(bytes(id(1)), Some(b"one".to_vec()));
    control.forget(id(1), 1);
    assert_eq!(bytes(id(1)), None);
    // one that has its name stays, whatever is forgotten
    control.forget(id(2), 7);
    assert_eq!(bytes(id(2)), Some(b"two!".to_vec()));
    // one that nobody knows goes at once
    control.replace_file(id(3), ROOT_ID, "file", OWNER, version(b"3")).unwrap();
    assert_eq!((bytes(id(2)), bytes(id(3))), (None, Some(b"3".to_vec())));
}

#[test]
fn only_files_that_are_there_are_replaced_and_by_new_nodes() {
    let control = Control::new();
    control.add_file(id(1), ROOT_ID, "file", OWNER, file()).unwrap();
    control.add_directory(id(2), ROOT_ID, "dir", OWNER, false).unwrap();
    control.graft(ROOT_ID, "tree", 5).unwrap();
    for (number, parent, name) in [
        (1, ROOT_ID, "file"),
        (9, ROOT_ID, "other"),
        (9, ROOT_ID, "dir"),
        (9, ROOT_ID, "tree"),
        (9, id(1), "file"),
        (9, id(8), "file"),
    ] {
        assert!(control.replace_file(id(number), parent, name, OWNER, file()).is_err(), "{name}");
    }
    assert!(control.replace_file(9, ROOT_ID, "file", OWNER, file()).is_err());
    assert_eq!(node(control.lookup(ROOT_ID, b"file")), id(1));
    assert!(control.attributes(id(9)).is_none());
}
