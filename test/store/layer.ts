// A small layer for the store's tests.
import { digestOf } from '../../src/image/digest.ts'
import { type Chunk, GZIP } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import type { Tree } from '../../src/tree/tree.ts'

const text = (of: string) => new TextEncoder().encode(of)

export function table(chunks: number, content = 'x'): ChunkTable {
  const list = Array.from(
    { length: chunks },
    (_, i): Chunk => ({
      blob: 0,
      stored: { start: i * 100, end: i * 100 + 90 },
      size: 4096,
      codec: GZIP,
      checks: [{ of: 'decoded', range: { start: 0, end: 4096 }, digest: digestOf(text(`${content} ${i}`)) }],
      places: [{ from: 0, length: 4096, at: i * 4096 }],
    }),
  )
  return new ChunkTable(encodeChunks([{ digest: digestOf(text('blob')), size: chunks * 100 }], list, 1, chunks * 4096))
}

export function tree(chunks = 5, content = 'x'): Tree {
  const image = text(`an image of ${chunks} chunks of ${content}`)
  return { image, digest: digestOf(image), chunks: table(chunks, content) }
}

export const LAYER = digestOf(text('layer'))
export const RECORD = { format: 'estargz', indexDigest: digestOf(text('index')), tarSize: 12345 }
