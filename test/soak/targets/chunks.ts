// Chunks as codec workers decode them. Digests find what is wrong with the bytes; this is about what comes before.
import { strict as assert } from 'node:assert'
import { deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { loadCodecs, WasmDecoder } from '../../../src/codec/wasm.ts'
import type { Codec } from '../../../src/tree/chunk.ts'
import { lz4Block } from '../../fixtures/lz4.ts'
import type { Target } from '../target.ts'
import { attemptLater } from '../well-formed.ts'

const decoder = new WasmDecoder(await loadCodecs())

/** 5,000 bytes that compress, with what repeats near and far. */
const BYTES = Uint8Array.from({ length: 5000 }, (_, i) => (i % 37) * (i % 5) + (i >> 9))

function target(name: string, codec: Codec, seeds: readonly Uint8Array[]): Target {
  const run = (bytes: Uint8Array) =>
    attemptLater(async () => {
      const { decoded } = await decoder.decode(codec, bytes, BYTES.length)
      assert.equal(decoded.length, BYTES.length)
    })
  return { name, seeds, run }
}

/** What a stream made before the place where a chunk begins, no bit of it being left over. */
const dictionary = BYTES.subarray(0, 2000)
const seed = Uint8Array.of(0, 0, ...dictionary)

const member = new Uint8Array(gzipSync(BYTES))
const half = BYTES.length / 2

export const chunks: readonly Target[] = [
  target('chunks-gzip', { name: 'gzip' }, [
    member,
    new Uint8Array(gzipSync(BYTES, { level: 0 })),
    new Uint8Array(Buffer.concat([gzipSync(BYTES.subarray(0, half)), gzipSync(BYTES.subarray(half))])),
  ]),
  target('chunks-zstd', { name: 'zstd' }, [
    new Uint8Array(zstdCompressSync(BYTES)),
    new Uint8Array(Buffer.concat([zstdCompressSync(BYTES.subarray(0, half)), zstdCompressSync(BYTES.subarray(half))])),
  ]),
  target('chunks-lz4', { name: 'lz4' }, [lz4Block(BYTES)]),
  target('chunks-seeded', { name: 'gzip', seed }, [
    new Uint8Array(deflateRawSync(BYTES, { dictionary })),
    // a member that ends, and another one behind it
    new Uint8Array(
      Buffer.concat([
        deflateRawSync(BYTES.subarray(0, half), { dictionary }),
        Buffer.alloc(8),
        gzipSync(BYTES.subarray(half)),
      ]),
    ),
  ]),
]
