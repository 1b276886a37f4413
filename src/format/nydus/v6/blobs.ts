// The blob table of a RAFS v6 bootstrap, 256 bytes a blob:
//     0 id 64   64 number u32   72 chunks u32   76 compressor u32   80 digest algorithm u32   84 features u32   88 stored size u64
//   104 TOC's size u32   108 compressor of the tables u32   112 their offset u64   120 stored u64   128 decoded size u64
//   136 SHA-256 of the TOC 32   168 SHA-256 of the blob that has the tables, where another has them 32   216 cipher u32
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import type { RafsBytes } from '../bytes.ts'
import { DIGEST_BYTES } from '../chunk-record.ts'
import { checkFeatures, compressorNumbered, digesterNumbered, encrypted, FEATURE } from '../codes.ts'
import { RAFS_CHUNK_NUMBERS, type RafsBlob } from '../rafs.ts'
import { BLOB_ENTRY_BYTES } from './superblock.ts'

const AT = {
  number: 64,
  chunks: 72,
  compressor: 76,
  digester: 80,
  features: 84,
  storedSize: 88,
  tocSize: 104,
  tablesCompressor: 108,
  tablesAt: 112,
  tablesStored: 120,
  tablesDecoded: 128,
  tocDigest: 136,
  holder: 168,
  cipher: 216,
} as const
const ID_BYTES = 64

/** @throws Failure corrupt, unsupported: encrypted, tarfs, references to other formats, external, unknown features */
export function parseBlobs6(from: RafsBytes, table: Range): RafsBlob[] {
  const blobs: RafsBlob[] = []
  for (let at = table.start; at < table.end; at += BLOB_ENTRY_BYTES) {
    blobs.push(blobAt(from.within(`blob ${blobs.length}`), at, blobs.length))
  }
  return blobs
}

function blobAt(from: RafsBytes, at: number, number: number): RafsBlob {
  const { what } = from
  if (from.u32(at + AT.number) !== number) {
    throw Failure.corrupt(`${what}: its entry at ${at} is that of number ${from.u32(at + AT.number)}`)
  }
  const features = from.u32(at + AT.features)
  checkFeatures(features, what)
  if (from.u32(at + AT.cipher) !== 0) throw encrypted(what)
  const chunkCount = from.u32(at + AT.chunks)
  if (chunkCount > RAFS_CHUNK_NUMBERS)
    throw Failure.limit(`${what}: ${chunkCount} chunks, at most ${RAFS_CHUNK_NUMBERS} have a number`)
  const id = idOf(from, at)
  const digest = (field: number) => from.slice({ start: at + field, end: at + field + DIGEST_BYTES })
  const isElsewhere = (features & FEATURE.separate) !== 0
  return {
    id,
    features,
    compressor: compressorNumbered(from.u32(at + AT.compressor), what),
    digester: digesterNumbered(from.u32(at + AT.digester), what),
    chunkCount,
    compressedSize: from.u64(at + AT.storedSize, 'its size'),
    tables: {
      holder: isElsewhere ? Buffer.from(digest(AT.holder)).toString('hex') : id,
      compressor: compressorNumbered(from.u32(at + AT.tablesCompressor), `${what}: its tables`),
      offset: from.u64(at + AT.tablesAt, 'the offset of its tables'),
      storedSize: from.u64(at + AT.tablesStored, 'the size of its tables'),
      decodedSize: from.u64(at + AT.tablesDecoded, 'the decoded size of its tables'),
      tocSize: from.u32(at + AT.tocSize),
      tocDigest: digest(AT.tocDigest),
    },
  }
}

/** Shorter ones end with NULs. */
function idOf(from: RafsBytes, at: number): string {
  const bytes = from.slice({ start: at, end: at + ID_BYTES })
  const end = bytes.indexOf(0)
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1')
}
