use std::io::Write;

use super::*;

fn scratch(name: &str, bytes: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("lazylayer-{}-{name}", std::process::id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn ready_file(name: &str, states: &[u8]) -> File {
    let mut bytes = b"lazyrdy\n\x01\0\0\0".to_vec();
    bytes.extend((states.len() as u32).to_le_bytes());
    bytes.resize(64, 0);
    bytes.extend(states);
    scratch(name, &bytes)
}

fn ready(name: &str, states: &[u8]) -> Ready {
    Ready::of(&ready_file(name, states), states.len() as u32).unwrap()
}

fn pack(places: &[(u64, u64, u32)]) -> Vec<u8> {
    places
        .iter()
        .flat_map(|(at, length, chunk)| [at.to_le_bytes(), length.to_le_bytes(), u64::from(*chunk).to_le_bytes()].concat())
        .collect()
}

#[test]
fn places_that_break_a_bound_are_refused() {
    let check = |name: &str, packed: &[u8], want: &str| {
        let made = Device::new(1, scratch(name, b""), ready(name, &[0, 0]), 2, 10_000, packed);
        assert!(made.is_err_and(|error| error.contains(want)), "{want}");
    };
    check("cut", &pack(&[(0, 1, 0)])[1..], "no whole number of records");
    check("end", &pack(&[(9_000, 1_001, 0)]), "ends after the device");
    check("wrap", &pack(&[(u64::MAX, 2, 0)]), "ends after the device");
    check("empty", &pack(&[(0, 0, 0)]), "is empty");
    check("chunk", &pack(&[(0, 1, 2)]), "does not have");
    check("order", &pack(&[(10, 10, 0), (0, 5, 1)]), "out of order");
    check("overlap", &pack(&[(0, 10, 0), (9, 5, 1)]), "overlaps");
}

#[test]
fn only_chunks_in_reach_that_are_not_verified_are_missing() {
    let device = Device::new(
        1,
        scratch("m", b""),
        ready("m", &[1, 0, 2, 0]),
        4,
        1_000,
        &pack(&[(0, 10, 0), (10, 10, 1), (20, 10, 2), (100, 10, 3)]),
    )
    .unwrap();
    let missing = |from, to| {
        let mut all = Vec::new();
        device.missing(from, to, |chunk| all.push(chunk));
        all
    };
    assert_eq!(missing(0, 10), []);
    assert_eq!(missing(0, 11), [1]);
    assert_eq!(missing(5, 1_000), [1, 2, 3]);
    assert_eq!(missing(30, 100), []);
    assert_eq!(missing(109, 110), [3]);
    assert_eq!(missing(110, 1_000), []);
}

#[test]
fn bytes_that_no_chunk_covers_are_zeros_whatever_the_file_holds() {
    let device = Device::new(1, scratch("g", &[7; 60]), ready("g", &[1, 1]), 2, 100, &pack(&[(10, 10, 0), (30, 10, 1)])).unwrap();
    let mut got = [9; 90];
    device.read(5, &mut got, |_| panic!("a chunk is missing")).unwrap();
    let want: Vec<u8> = (5..95).map(|at| if (10..20).contains(&at) || (30..40).contains(&at) { 7 } else { 0 }).collect();
    assert_eq!(got[..], want[..]);
}

#[test]
fn a_cache_file_shorter_than_its_ready_bytes_promise_is_an_error() {
    let device = Device::new(1, scratch("s", &[7; 15]), ready("s", &[1]), 1, 100, &pack(&[(10, 10, 0)])).unwrap();
    assert_eq!(device.read(0, &mut [0; 50], |_| {}), Err(libc::EIO));
    assert_eq!(device.read(0, &mut [0; 15], |_| {}), Ok(()));
}

/// A device of two chunks of ten bytes (1), and its files.
fn two_chunks(name: &str) -> (Device, File, File) {
    let (file, ready) = (scratch(name, &[1; 20]), ready_file(name, &[1, 1]));
    let copy = file.try_clone().unwrap();
    let mapped = Ready::of(&ready, 2).unwrap();
    (Device::new(1, copy, mapped, 2, 20, &pack(&[(0, 10, 0), (10, 10, 1)])).unwrap(), file, ready)
}

#[test]
fn bytes_of_a_chunk_that_is_taken_back_while_they_are_read_do_not_count() {
    let (device, file, ready) = two_chunks("taken");
    let read = |then: &dyn Fn()| {
        let (mut got, mut missing) = ([9; 20], Vec::new());
        let by = |into: &mut [u8]| {
            let count = device.read_file(0, into);
            then();
            count
        };
        device.read_by(0, &mut got, |chunk| missing.push(chunk), by).map(|()| (got, missing))
    };
    assert_eq!(read(&|| {}), Ok(([1; 20], vec![])));
    assert_eq!(read(&|| ready.write_all_at(&[0], 65).unwrap()).unwrap().1, [1]);
    // and stay so, though they are in the file
    assert_eq!(read(&|| {}).unwrap().1, [1]);
    ready.write_all_at(&[1], 65).unwrap();
    assert_eq!(read(&|| {}), Ok(([1; 20], vec![])));
    // a file that was cut meanwhile is no broken promise
    let cut = || {
        ready.write_all_at(&[0], 65).unwrap();
        file.set_len(12).unwrap();
    };
    file.set_len(12).unwrap();
    assert_eq!(read(&cut).unwrap().1, [1]);
}

#[test]
fn a_chunk_that_is_taken_back_and_filled_again_while_it_is_read_is_read_again() {
    let (device, file, ready) = two_chunks("again");
    file.write_all_at(&[0; 10], 10).unwrap(); // a hole
    let (mut got, mut turns) = ([9; 20], 0);
    let by = |into: &mut [u8]| {
        turns += 1;
        let count = device.read_file(0, into);
        if turns == 1 {
            ready.write_all_at(&1_u32.to_le_bytes(), 48).unwrap();
            file.write_all_at(&[2; 10], 10).unwrap();
        }
        count
    };
    device.read_by(0, &mut got, |_| panic!("a chunk is missing"), by).unwrap();
    assert_eq!((turns, &got[..10], &got[10..]), (2, &[1; 10][..], &[2; 10][..]));
}
#[test]
fn chunks_that_are_in_memory_are_read_from_there_until_they_are_taken_back() {
    let (device, _file, ready) = two_chunks("spilled");
    ready.write_all_at(&[0], 65).unwrap();
    let (memory, spilled) = (scratch("memory", &[3; 20]), ready_file("memory-ready", &[0, 1]));
    device.spill(memory.try_clone().unwrap(), Ready::of(&spilled, 2).unwrap());
    let read = || {
        let (mut got, mut missing) = ([9; 20], Vec::new());
        device.read(0, &mut got, |chunk| missing.push(chunk)).unwrap();
        (got, missing)
    };
    let (got, missing) = read();
    assert_eq!((&got[..10], &got[10..], missing.len()), (&[1; 10][..], &[3; 10][..], 0));
    spilled.write_all_at(&[0], 65).unwrap();
    assert_eq!(read().1, [1]);
    ready.write_all_at(&[1], 65).unwrap();
    assert_eq!(read().0, [1; 20]);
    // one that goes while it is read
    ready.write_all_at(&[0], 65).unwrap();
    spilled.write_all_at(&[1], 65).unwrap();
    let (mut got, mut missing) = ([9; 20], Vec::new());
    let by = |into: &mut [u8]| {
        spilled.write_all_at(&[0], 65).unwrap();
        device.read_file(0, into)
    };
    device.read_by(0, &mut got, |chunk| missing.push(chunk), by).unwrap();
    assert_eq!(missing, [1]);
}

#[test]
fn what_was_read_is_told_once() {
    let size = 20 << 20;
    let file = scratch("touched", b"");
    file.set_len(size).unwrap();
    let device = Device::new(1, file, ready("touched", &[1]), 1, size, &pack(&[(0, size, 0)])).unwrap();
    device.read((3 << 20) - 1, &mut [0; 2], |_| {}).unwrap();
    device.read(9 << 20, &mut [0; 1 << 20], |_| {}).unwrap();
    assert_eq!(device.take_touched(), [0b1100, 0b10, 0]);
    assert_eq!(device.take_touched(), [0, 0, 0]);
}

#[test]
fn a_block_that_is_not_what_was_verified_is_not_served_and_its_chunk_is_verified_again() {
    let (size, bytes) = (12_288, vec![7; 12_288]);
    let (file, ready) = (scratch("sums", &bytes), ready_file("sums", &[1, 1]));
    // two places meet in the second block, and the third has one alone
    let places = pack(&[(0, 6_000, 0), (6_000, 2_192, 1), (8_192, 100, 1)]);
    let sums = [crc32fast::hash(&bytes[..4096]), 1, crc32fast::hash(&bytes[..100])];
    for (block, sum) in sums.iter().enumerate() {
        ready.write_all_at(&sum.to_le_bytes(), 68 + 4 * block as u64).unwrap();
    }
    let mapped = Ready::of(&ready, 2).unwrap();
    let device = Device::new(1, file.try_clone().unwrap(), mapped, 2, size, &places).unwrap();
    let read = |at: u64, length: usize| {
        let mut missing = Vec::new();
        device.read(at, &mut vec![9; length], |chunk| missing.push(chunk)).map(|()| missing)
    };
    let states = || {
        let mut states = [0; 2];
        ready.read_exact_at(&mut states, 64).unwrap();
        states
    };
    assert_eq!((read(0, size as usize), states()), (Ok(vec![]), [1, 1]));
    file.write_all_at(&[6], 4_000).unwrap();
    // of a part of the block nobody can tell
    assert_eq!((read(1, 5_000), states()), (Ok(vec![]), [1, 1]));
    assert_eq!((read(0, 4_096), states()), (Ok(vec![0]), [2, 1]));
    assert_eq!(read(0, 4_096), Ok(vec![0]));
    file.write_all_at(&[7], 4_000).unwrap();
    ready.write_all_at(&[1], 64).unwrap();
    file.write_all_at(&[6], 8_291).unwrap();
    assert_eq!((read(0, 9_000), states()), (Ok(vec![1]), [1, 2]));
}
