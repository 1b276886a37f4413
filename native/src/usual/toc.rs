//! The table of contents of eStargz and zstd:chunked (`src/format/toc`).

use std::borrow::Cow;
use std::ops::Range;

use libc::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG};

use super::json::{Reader, Value};
use super::time;
use super::{Algorithm, Blob, CHUNK_MAX_BYTES, CHUNK_STORED_MAX_BYTES, ENTRIES_MAX, Layer, NAME_MAX, Sha, Source, Text};
use super::{Check, Chunk, Digest, Entry, Extent};
use crate::bytes::u64_at;

const GZIP: u8 = 1;
const ZSTD: u8 = 2;
const LANDMARK: &str = ".prefetch.landmark";
const NO_LANDMARK: &str = ".no.prefetch.landmark";
const TOC_NAME: &str = "stargz.index.json";
/// Where a table lies in what its member decodes to: behind its tar header.
const JSON_AT: u64 = 512;
const XATTR_MAX: usize = 65_536;
/// Of an entry; a few are usual.
pub const XATTRS_MAX: usize = 64;

pub fn estargz<'a>(index: &'a [u8], layer: &Layer) -> Option<Source<'a>> {
    let (start, end) = (u64_at(index, 0)?, u64_at(index, 8)?);
    let (blob, size) = layer.blob()?;
    if start > end || end > size {
        return None;
    }
    let json = &index[16..];
    let mut source = parse(json, start, GZIP, false, blob)?;
    let length = json.len() as u64;
    // the table itself is a file of the layer, where it is not behind the tar's end
    if start < end && JSON_AT + length <= CHUNK_MAX_BYTES {
        let chunk = u32::try_from(source.chunks.len()).ok()?;
        let check = source.checks.len();
        let extent = source.extents.len();
        source.checks.push(Check { start: JSON_AT, end: JSON_AT + length, digest: sha256(layer.index) });
        source.chunks.push(Chunk { blob: 0, start, end, size: JSON_AT + length, codec: GZIP, checks: check..check + 1 });
        source.extents.push(Extent { at: 0, chunk: Some(chunk), offset: JSON_AT, length });
        let entry = Entry::new(Cow::Borrowed(TOC_NAME), S_IFREG, 0, 0, time::Time::default());
        source.entries.push(Entry { size: length, extents: extent..extent + 1, ..entry });
    }
    Some(source)
}

pub fn zstd_chunked<'a>(index: &'a [u8], layer: &Layer) -> Option<Source<'a>> {
    let end = u64_at(index, 0)?;
    let (blob, size) = layer.blob()?;
    if end > size {
        return None;
    }
    parse(&index[8..], end, ZSTD, true, blob)
}

/// Fields of an entry; null is as absent, but for the name.
#[derive(Default)]
struct Raw<'a> {
    name: Option<Text<'a>>,
    kind: Option<Text<'a>>,
    link_name: Option<Text<'a>>,
    modtime: Option<Text<'a>>,
    digest: Option<Text<'a>>,
    chunk_digest: Option<Text<'a>>,
    chunk_type: Option<Text<'a>>,
    size: u64,
    mode: u64,
    uid: u64,
    gid: u64,
    dev_major: u64,
    dev_minor: u64,
    offset: u64,
    chunk_offset: u64,
    chunk_size: u64,
    inner_offset: u64,
    end_offset: u64,
    xattrs: Vec<(Text<'a>, Vec<u8>)>,
}

/// `length` bytes of a file, `inner` bytes into what the member or frame at `offset` decodes to.
struct Piece {
    offset: u64,
    inner: u64,
    length: u64,
    digest: Digest,
    end: Option<u64>,
    extent: usize,
}

/// A file whose chunks are being collected.
struct File<'a> {
    path: Text<'a>,
    size: u64,
    at: u64,
    last: Option<usize>,
    end: u64,
    entry: usize,
}

/// @param end where the last chunk ends in the blob
fn parse<'a>(json: &'a [u8], end: u64, codec: u8, is_zstd: bool, blob: &Blob) -> Option<Source<'a>> {
    let mut table = Table { is_zstd, entries: Vec::new(), extents: Vec::new(), pieces: Vec::new(), file: None };
    let mut reader = Reader::new(std::str::from_utf8(json).ok()?);
    reader.take(b'{')?;
    let mut seen = false;
    let mut first = true;
    while reader.more(b'}', first)? {
        first = false;
        match (reader.key()?, reader.value()?) {
            ("entries", Value::Open(b'[')) if !seen => {
                seen = true;
                table.read(&mut reader)?;
            }
            ("version", Value::Whole(1)) => {}
            (key, Value::Text(_) | Value::Null) if key != "entries" && key != "version" => {}
            _ => return None,
        }
    }
    if !seen || !reader.is_over() {
        return None;
    }
    table.end_file()?;
    table.finish(end, codec, blob)
}

struct Table<'a> {
    is_zstd: bool,
    entries: Vec<Entry<'a>>,
    extents: Vec<Extent>,
    pieces: Vec<Piece>,
    file: Option<File<'a>>,
}

impl<'a> Table<'a> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Option<()> {
        let mut count = 0;
        while reader.more(b']', count == 0)? {
            count += 1;
            if count > ENTRIES_MAX {
                return None;
            }
            reader.take(b'{')?;
            self.add(raw(reader)?)?;
        }
        Some(())
    }

    fn add(&mut self, raw: Raw<'a>) -> Option<()> {
        if raw.kind.as_deref() == Some("chunk") {
            if let Some(name) = &raw.name {
                let path = clean(name.clone())?;
                if self.file.as_ref()?.path != path {
                    return None;
                }
            }
            return self.add_chunk(&raw);
        }
        self.end_file()?;
        let path = clean(raw.name.clone()?)?;
        let kind = raw.kind.as_deref()?;
        let format = match kind {
            "dir" => S_IFDIR,
            "reg" | "hardlink" => S_IFREG,
            "symlink" => S_IFLNK,
            "char" => S_IFCHR,
            "block" => S_IFBLK,
            "fifo" => S_IFIFO,
            _ => return None,
        };
        if path.is_empty() && kind != "dir" {
            return None;
        }
        let mode = format | (raw.mode & 0o7777) as u32; // masked
        let (uid, gid) = (u32::try_from(raw.uid).ok()?, u32::try_from(raw.gid).ok()?);
        let mut entry = Entry::new(path, mode, uid, gid, time::parse(raw.modtime.as_deref().unwrap_or(""))?);
        if kind == "reg" {
            entry.size = raw.size;
        }
        entry.extents = self.extents.len()..self.extents.len();
        if kind == "hardlink" {
            entry.link = Some(clean(raw.link_name?)?).filter(|link| !link.is_empty());
            entry.link.as_ref()?;
            self.entries.push(entry);
            return Some(());
        }
        if kind == "symlink" {
            entry.target = raw.link_name.clone();
            entry.target.as_ref()?;
        }
        if format == S_IFCHR || format == S_IFBLK {
            entry.rdev = (u32::try_from(raw.dev_major).ok()?, u32::try_from(raw.dev_minor).ok()?);
        }
        let size = entry.size;
        if kind == "reg" {
            let end = if self.is_zstd { raw.end_offset } else { 0 };
            let path = entry.path.clone();
            self.file = Some(File { path, size, at: 0, last: None, end, entry: self.entries.len() });
        }
        if size > 0 {
            self.add_chunk(&raw)?;
        }
        entry.extents.end = self.extents.len();
        entry.xattrs = raw.xattrs;
        self.entries.push(entry);
        Some(())
    }

    fn add_chunk(&mut self, raw: &Raw<'a>) -> Option<()> {
        let file = self.file.as_mut()?;
        let at = raw.chunk_offset;
        if at != file.at {
            return None;
        }
        let length = if raw.chunk_size == 0 { file.size.checked_sub(at)? } else { raw.chunk_size };
        if length == 0 || at + length > file.size {
            return None;
        }
        file.at = at + length;
        if let Some(last) = file.last.and_then(|last| self.pieces.get_mut(last))
            && self.is_zstd
            && raw.offset > last.offset
        {
            last.end = Some(raw.offset);
        }
        let is_whole = self.is_zstd && length == file.size && raw.chunk_digest.as_deref().unwrap_or("").is_empty();
        let mut chunk = Some(0);
        if self.is_zstd {
            match raw.chunk_type.as_deref().unwrap_or("") {
                "" => {}
                "zeros" => chunk = None,
                _ => return None,
            }
            // they may be zeros
            if is_whole && length > CHUNK_MAX_BYTES {
                return None;
            }
        }
        let extent = self.extents.len();
        if chunk.is_none() {
            self.extents.push(Extent { at, chunk, offset: 0, length });
            file.last = None;
        } else {
            if raw.offset == 0 && raw.inner_offset == 0 {
                return None;
            }
            self.extents.push(Extent { at, chunk, offset: raw.inner_offset, length });
            let digest = digest(if is_whole { raw.digest.as_deref()? } else { raw.chunk_digest.as_deref()? })?;
            file.last = Some(self.pieces.len());
            let (offset, inner) = (raw.offset, raw.inner_offset);
            self.pieces.push(Piece { offset, inner, length, digest, end: None, extent });
        }
        if let Some(entry) = self.entries.get_mut(file.entry) {
            entry.extents.end = self.extents.len(); // of its first chunk nobody knows yet
        }
        Some(())
    }

    fn end_file(&mut self) -> Option<()> {
        let Some(file) = self.file.take() else { return Some(()) };
        if file.at != file.size {
            return None;
        }
        if let Some(last) = file.last.and_then(|last| self.pieces.get_mut(last))
            && file.end != 0
        {
            if file.end <= last.offset {
                return None;
            }
            last.end = Some(file.end);
        }
        Some(())
    }

    fn finish(self, end: u64, codec: u8, blob: &Blob) -> Option<Source<'a>> {
        let Self { entries, mut extents, mut pieces, .. } = self;
        pieces.sort_by_key(|piece| (piece.offset, piece.inner, piece.length));
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut checks = Vec::with_capacity(pieces.len());
        let mut from = 0;
        while let Some(first) = pieces.get(from) {
            let to = from + pieces[from..].iter().take_while(|each| each.offset == first.offset).count();
            let next = pieces.get(to).map_or(end, |each| each.offset);
            let number = u32::try_from(chunks.len()).ok()?;
            let group = &pieces[from..to];
            let needed = group.iter().map(|each| each.end.unwrap_or(next)).max()?;
            let chunk = chunk_of(group, needed.min(next), codec, number, &mut checks, &mut extents)?;
            chunks.push(chunk);
            from = to;
        }
        let first = wanted_first(&entries, &extents);
        Some(Source { blobs: vec![blob.clone()], chunks, checks, entries, extents, first, parts: None })
    }
}

/// @param pieces those of one offset
fn chunk_of(
    pieces: &[Piece],
    end: u64,
    codec: u8,
    number: u32,
    checks: &mut Vec<Check>,
    extents: &mut [Extent],
) -> Option<Chunk> {
    let start = pieces.first()?.offset;
    if start >= end || end - start > CHUNK_STORED_MAX_BYTES {
        return None;
    }
    let from = checks.len();
    let mut size = 0;
    let mut previous: Option<&Piece> = None;
    for piece in pieces {
        extents.get_mut(piece.extent)?.chunk = Some(number);
        let piece_end = piece.inner + piece.length;
        if piece_end > CHUNK_MAX_BYTES {
            return None;
        }
        if let Some(previous) = previous
            && piece.inner < size
        {
            let same = piece.inner == previous.inner && piece.length == previous.length;
            if same && piece.digest == previous.digest {
                continue;
            }
            return None;
        }
        size = piece_end;
        checks.push(Check { start: piece.inner, end: size, digest: piece.digest.clone() });
        previous = Some(piece);
    }
    Some(Chunk { blob: 0, start, end, size, codec, checks: from..checks.len() })
}

/// The chunks before the landmark.
fn wanted_first(entries: &[Entry], extents: &[Extent]) -> Vec<u32> {
    if entries.iter().any(|entry| entry.path == NO_LANDMARK) {
        return Vec::new();
    }
    let landmark = entries.iter().rfind(|entry| entry.path == LANDMARK);
    let pieces: Range<usize> = landmark.map_or(0..0, |entry| entry.extents.clone());
    let chunk = extents.get(pieces).and_then(|pieces| pieces.iter().find_map(|extent| extent.chunk));
    (0..chunk.unwrap_or(0)).collect()
}

fn raw<'a>(reader: &mut Reader<'a>) -> Option<Raw<'a>> {
    let mut raw = Raw::default();
    let mut seen = 0_u32;
    reader.members(|key, value, reader| {
        let place = place_of(key)?;
        if seen & (1 << place) != 0 {
            return None;
        }
        seen |= 1 << place;
        match place {
            0 => raw.name = Some(text(value)??),
            1 => raw.kind = text(value)?,
            2 => raw.link_name = text(value)?,
            3 => raw.modtime = text(value)?,
            4 => raw.digest = text(value)?,
            5 => raw.chunk_digest = text(value)?,
            6 => raw.chunk_type = text(value)?,
            7 => raw.size = whole(&value)?,
            8 => raw.mode = whole(&value)?,
            9 => raw.uid = whole(&value)?,
            10 => raw.gid = whole(&value)?,
            11 => raw.dev_major = whole(&value)?,
            12 => raw.dev_minor = whole(&value)?,
            13 => raw.offset = whole(&value)?,
            14 => raw.chunk_offset = whole(&value)?,
            15 => raw.chunk_size = whole(&value)?,
            16 => raw.inner_offset = whole(&value)?,
            17 => raw.end_offset = whole(&value)?,
            18 => raw.xattrs = xattrs(&value, reader)?,
            // of no use here
            _ if matches!(value, Value::Open(_)) => return None,
            _ => {}
        }
        Some(())
    })?;
    Some(raw)
}

fn place_of(key: &str) -> Option<u32> {
    Some(match key {
        "name" => 0,
        "type" => 1,
        "linkName" => 2,
        "modtime" => 3,
        "digest" => 4,
        "chunkDigest" => 5,
        "chunkType" => 6,
        "size" => 7,
        "mode" => 8,
        "uid" => 9,
        "gid" => 10,
        "devMajor" => 11,
        "devMinor" => 12,
        "offset" => 13,
        "chunkOffset" => 14,
        "chunkSize" => 15,
        "innerOffset" => 16,
        "endOffset" => 17,
        "xattrs" => 18,
        "userName" => 19,
        "accesstime" => 22,
        "changetime" => 23,
        "groupName" => 20,
        "NumLink" => 21,
        _ => return None,
    })
}

fn text(value: Value<'_>) -> Option<Option<Text<'_>>> {
    match value {
        Value::Text(text) => Some(Some(text)),
        Value::Null => Some(None),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Whole(number) => Some(*number),
        Value::Null => Some(0),
        _ => None,
    }
}

fn xattrs<'a>(value: &Value<'a>, reader: &mut Reader<'a>) -> Option<Vec<(Text<'a>, Vec<u8>)>> {
    let mut all: Vec<(Text<'a>, Vec<u8>)> = Vec::new();
    match value {
        Value::Null => return Some(all),
        Value::Open(b'{') => {}
        _ => return None,
    }
    reader.members(|name, value, _| {
        if name.is_empty()
            || name.contains('\0')
            || name.len() > NAME_MAX
            || all.len() == XATTRS_MAX
            || all.iter().any(|(other, _)| other == name)
        {
            return None;
        }
        all.push((Cow::Borrowed(name), base64(text(value)?.as_deref().unwrap_or(""))?));
        Some(())
    })?;
    Some(all)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let digits = bytes.len() - bytes.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in &bytes[..digits] {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held) as u8); // its lowest
        }
    }
    (decoded.len() <= XATTR_MAX).then_some(decoded)
}

fn digest(text: &str) -> Option<Digest> {
    let digits = text.strip_prefix("sha256:")?.as_bytes();
    let mut digest = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    let value = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(sha256(digest))
}

fn sha256(bytes: Sha) -> Digest {
    Digest { algorithm: Algorithm::Sha256, bytes }
}

/// A name as archives write it (`./usr/bin/`) as a path of the tree (`usr/bin`), which says itself what is too long or too deep (grow.rs).
fn clean(name: Text<'_>) -> Option<Text<'_>> {
    if name.is_empty() || name.contains('\0') {
        return None;
    }
    if name.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        return Some(name);
    }
    let parts = || name.split('/').filter(|part| !matches!(*part, "" | "."));
    if parts().any(|part| part == "..") {
        return None;
    }
    Some(Cow::Owned(parts().collect::<Vec<_>>().join("/")))
}
