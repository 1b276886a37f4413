//! A chunk table (`src/tree/chunk-table.ts` draws it), and the digest of what its chunks hold (`src/tree/content-digest.ts`).

use sha2::{Digest as _, Sha256};

use super::layout::Layout;
use super::{Algorithm, Blob, Sha, Source};

const MAGIC: &[u8] = b"lazychk3";

/// The table's bytes, and the digest.
pub fn encode(source: &Source, layout: &Layout) -> Option<(Vec<u8>, Sha)> {
    let chunks = || layout.chunks.iter().map(|&number| (&source.chunks[number as usize], layout.places(number)));
    let checks = || chunks().flat_map(|(chunk, _)| &source.checks[chunk.checks.clone()]);
    let places = || chunks().flat_map(|(_, places)| places);
    let (count, check_count, place_count) = (layout.chunks.len(), checks().count(), places().count());
    let blob = |blob: &Blob| blob.size.map(|size| format!("{{\"digest\":\"{}\",\"size\":{size}}}", blob.digest));
    let blobs = source.blobs.iter().map(blob).collect::<Option<Vec<_>>>()?.join(",");
    let header = format!(
        "{{\"blobs\":[{blobs}],\"first\":{},\"chunks\":{count},\"checks\":{check_count},\"places\":{place_count},\
         \"states\":0,\"stateBytes\":0,\"zeros\":{},\"deviceSize\":{}}}",
        layout.first,
        layout.zeros.len(),
        layout.device_size
    );
    let mut bytes = Vec::with_capacity(256 + count * 56 + check_count * 56 + place_count * 32);
    let start = (MAGIC.len() + 4 + header.len()).next_multiple_of(8);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&u32::try_from(start - MAGIC.len() - 4).ok()?.to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(start, b' ');
    let mut table = Columns(bytes);
    table.f64(chunks().map(|(chunk, _)| chunk.start));
    table.f64(chunks().map(|(chunk, _)| chunk.end));
    table.f64(chunks().map(|(chunk, _)| chunk.size));
    table.u32(chunks().map(|(chunk, _)| chunk.blob));
    table.u8(chunks().map(|(chunk, _)| chunk.codec));
    table.u32(chunks().map(|_| 0)); // none has a state
    table.u32(sums(chunks().map(|(chunk, _)| chunk.checks.len())));
    table.u32(sums(chunks().map(|(_, places)| places.len())));
    table.f64(checks().map(|check| check.start));
    table.f64(checks().map(|check| check.end));
    table.u8(checks().map(|_| 0)); // of decoded bytes
    table.u8(checks().map(|check| u8::from(check.digest.algorithm == Algorithm::Blake3)));
    table.u8(checks().flat_map(|check| check.digest.bytes));
    table.f64(places().map(|place| place.from));
    table.f64(places().map(|place| place.length));
    table.f64(places().map(|place| place.at));
    table.u32(chunks().zip(0..).flat_map(|((_, places), number)| std::iter::repeat_n(number, places.len())));
    table.f64(layout.zeros.iter().map(|&(start, _)| start));
    table.f64(layout.zeros.iter().map(|&(_, end)| end));
    let mut bytes = table.0;
    let digest: Sha = Sha256::digest(&bytes).into();
    bytes.extend_from_slice(&digest);
    Some((bytes, content(source, layout)))
}

fn content(source: &Source, layout: &Layout) -> Sha {
    let mut hashed = Hashed { hash: Sha256::new(), bytes: Vec::with_capacity(HASHED_AT_ONCE + 256) };
    for &number in &layout.chunks {
        let (chunk, places) = (&source.chunks[number as usize], layout.places(number));
        hashed.f64(chunk.size as f64);
        hashed.put(&(chunk.checks.len() as u32).to_le_bytes());
        hashed.put(&(places.len() as u32).to_le_bytes());
        for check in &source.checks[chunk.checks.clone()] {
            let start = check.start as f64;
            hashed.f64(if check.digest.algorithm == Algorithm::Blake3 { -1.0 - start } else { start });
            hashed.f64(check.end as f64);
            hashed.put(&check.digest.bytes);
        }
        for place in places {
            hashed.f64(place.from as f64);
            hashed.f64(place.length as f64);
            hashed.f64(place.at as f64);
        }
    }
    for &(start, end) in &layout.zeros {
        hashed.f64(-1.0 - start as f64);
        hashed.f64(end as f64);
    }
    hashed.hash.update(&hashed.bytes);
    hashed.hash.finalize().into()
}

const HASHED_AT_ONCE: usize = 16 << 10;

/// Bytes that are hashed some at a time.
struct Hashed {
    hash: Sha256,
    bytes: Vec<u8>,
}

impl Hashed {
    fn f64(&mut self, number: f64) {
        self.put(&number.to_le_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= HASHED_AT_ONCE {
            self.hash.update(&self.bytes);
            self.bytes.clear();
        }
    }
}

/// How many there are up to each, that one included.
fn sums(counts: impl Iterator<Item = usize>) -> impl Iterator<Item = u32> {
    counts.scan(0, |sum, count| {
        *sum += count as u32; // as many as bytes of an index, at most
        Some(*sum)
    })
}

/// Columns one behind the other, each filled up to 8 bytes.
struct Columns(Vec<u8>);

impl Columns {
    /// Numbers up to 2^53.
    fn f64(&mut self, numbers: impl Iterator<Item = u64>) {
        self.put(numbers.map(|number| (number as f64).to_le_bytes()));
    }

    fn u32(&mut self, numbers: impl Iterator<Item = u32>) {
        self.put(numbers.map(u32::to_le_bytes));
    }

    fn u8(&mut self, numbers: impl Iterator<Item = u8>) {
        self.put(numbers.map(|number| [number]));
    }

    fn put<const N: usize>(&mut self, all: impl Iterator<Item = [u8; N]>) {
        for bytes in all {
            self.0.extend_from_slice(&bytes);
        }
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }
}
