// The two sides of a comparison for tests: layers as a lazy index describes them, and as the tar that holds them does.
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { writeEstargz } from '../../src/build/estargz.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { estargz, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { scanTar } from '../../src/format/tar/scan.ts'
import { parseTarIndex } from '../../src/format/tar/tar-index.ts'
import type { Range } from '../../src/image/blob.ts'
import { digestOf } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { buildTree, type Source } from '../../src/tree/build.ts'
import { NONE } from '../../src/tree/chunk.ts'
import { type CompareOptions, firstDifference, type Side } from '../../src/tree/compare.ts'
import { MemoryBlob, sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { layer, type Spec } from './layer.ts'

/** A side whose bytes can be read, and that counts what is. */
export interface TarSide extends Side {
  bytes: Uint8Array
  ranges: Range[]
}

export function served(of: readonly Spec[], chunkBytes?: number): Side {
  return buildTree(layer(of, [], chunkBytes))
}

/** The same layer as pieces of one run of bytes; what stands between the pieces is no matter here. */
export function plain(of: readonly Spec[], chunkBytes?: number): TarSide {
  const { decoded, ...source } = layer(of, [], chunkBytes)
  const parts: Uint8Array[] = []
  let at = 0
  const chunks = source.chunks.map((chunk) => {
    const bytes = decoded.get(chunk.checks[0]?.digest ?? '') as Uint8Array // `layer` has each
    const stored = { start: at + 7, end: at + 7 + bytes.length }
    parts.push(new Uint8Array(7).fill(0xff), bytes)
    at = stored.end
    return { ...chunk, codec: NONE, stored }
  })
  const bytes = new Uint8Array(Buffer.concat(parts))
  return tarSide({ ...source, chunks, blobs: [{ digest: digestOf(bytes), size: bytes.length }] }, bytes)
}

/** A tar, read as the agent reads it. */
export async function scanned(bytes: Uint8Array): Promise<TarSide> {
  const { index } = await scanTar(
    (async function* () {
      yield bytes
    })(),
    { split: () => {} },
  )
  return tarSide(parseTarIndex(index, `layer ${descriptorOf(bytes).digest}`), bytes)
}

function tarSide(source: Source, bytes: Uint8Array): TarSide {
  return { ...buildTree(source), bytes, ranges: [] }
}

export async function difference(lazy: Side, tar: TarSide, options?: CompareOptions): Promise<string | undefined> {
  const read = (range: Range) => {
    tar.ranges.push(range)
    return tar.bytes.subarray(range.start, range.end)
  }
  return (await firstDifference(lazy, tar, read, options))?.what
}

/** A layer with a table of contents, as the registry has it; and both sides of it. */
export async function bothSides(blob: Uint8Array, descriptor: Descriptor): Promise<{ lazy: Side; tar: TarSide }> {
  const index = await estargz.readIndex(unitOf(descriptor), sourceOf(new MemoryBlob(blob)))
  const lazy = buildTree(estargz.parseIndex(index, unitOf(descriptor)))
  return { lazy, tar: await scanned(new Uint8Array(gunzipSync(blob))) }
}

/** Both sides of a layer that our own writer made. */
export async function written(
  entries: readonly SourceEntry[],
  options: { chunkSize?: number; minChunkSize?: number } = {},
): Promise<{ lazy: Side; tar: TarSide }> {
  const folder = await mkdtemp(join(tmpdir(), 'lazylayer-compare-'))
  try {
    const path = join(folder, 'layer')
    const { tocDigest } = await writeEstargz(entries, path, options)
    const blob = new Uint8Array(await readFile(path))
    return await bothSides(blob, { ...descriptorOf(blob), annotations: { [TOC_DIGEST]: tocDigest } })
  } finally {
    await rm(folder, { recursive: true })
  }
}

function descriptorOf(bytes: Uint8Array): Descriptor {
  return {
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: digestOf(bytes),
    size: bytes.length,
    annotations: {},
  }
}
