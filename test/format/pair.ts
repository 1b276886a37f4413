// A format of the tests' own, that makes one tree of several layers: `part` layers are contents of files, and the `whole` layer above
// them has an index over the blobs of all, and contents of its own. No image has it, and nothing in src/ knows it.
//
//   part:  contents …            whole:  index (JSON) | contents …
//
// A whole that is sealed is a tar of its index, whose digest is that of the layer; engines may be shown the layers of such a pair.

import { gunzipSync, gzipSync } from 'node:zlib'
import { Failure } from '../../src/errors.ts'
import type { Contents, Format, Planned, Source, Unit } from '../../src/format/format.ts'
import { unitText } from '../../src/format/format.ts'
import { BLOCK_BYTES } from '../../src/format/tar/header.ts'
import { type Digest, digestOf, isDigest } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { NONE } from '../../src/tree/chunk.ts'
import { type Entry, S_IFREG } from '../../src/tree/entry.ts'
import { MemoryBlob } from './memory-blob.ts'
import { member } from './tar/tar-craft.ts'

const PART = 'application/x.test.part'
const WHOLE = 'application/x.test.whole'
const INDEX_DIGEST = 'test.index.digest'
const INDEX_BYTES = 'test.index.bytes'
/** Longer than any index here. */
const INDEX_LENGTH = 4096

/** Threads that know it. */
export const PAIR_WORKER = new URL('./pair-worker.ts', import.meta.url).href

export const pair: Format = { name: 'pair', plan, readIndex, firstBytes: () => undefined, parseIndex }

function plan({ layers }: Planned): readonly (Unit | string)[] {
  const top = layers.findIndex(({ mediaType }) => mediaType === WHOLE)
  const found = layers.slice(0, top + 1)
  const shown = found.at(-1)
  const index = shown?.annotations[INDEX_DIGEST]
  if (shown === undefined || !isDigest(index)) return layers.map(() => 'the image has no whole')
  const blobs = found.map(({ digest, size }) => ({ digest, size }))
  const unit = { format: pair.name, layers: found, shown, index, identity: undefined, blobs, tarSize: undefined }
  return layers.map((_, i) => (i <= top ? unit : 'it is above the whole'))
}

async function readIndex(unit: Unit, source: Source): Promise<Uint8Array> {
  if (isSealed(unit)) {
    const blob = new Uint8Array(await source.blob(unit.shown).read({ start: 0, end: unit.shown.size }))
    if (digestOf(blob) !== unit.index) throw Failure.corrupt(`${unitText(unit)}: it differs from the manifest`)
    return gunzipSync(blob).subarray(BLOCK_BYTES, BLOCK_BYTES + INDEX_LENGTH)
  }
  const end = Number(unit.shown.annotations[INDEX_BYTES])
  const index = new Uint8Array(await source.blob(unit.shown).read({ start: 0, end }))
  if (digestOf(index) === unit.index) return index
  throw Failure.corrupt(`${unitText(unit)}: its index differs from the manifest`)
}

function isSealed({ shown }: Unit): boolean {
  return shown.annotations[INDEX_BYTES] === undefined
}

interface Index {
  /** The last blob is the whole itself, whose digest nothing in it can know. */
  parts: { digest: Digest; size: number; ends?: string }[]
  files: { path: string; blob: number; start: number; end: number; digest: Digest }[]
}

function parseIndex(bytes: Uint8Array, unit: Unit): Contents {
  const { shown } = unit
  const { parts, files }: Index = JSON.parse(new TextDecoder().decode(bytes))
  const entries = files.map(({ path, start, end }, chunk): Entry => {
    const size = end - start
    const extents = [{ at: 0, chunk, offset: 0, length: size }]
    return { path, mode: S_IFREG | 0o644, uid: 0, gid: 0, mtime: 0n, size, extents }
  })
  const chunks = files.map(({ blob, start, end, digest }) => {
    const size = end - start
    const check = { of: 'decoded' as const, range: { start: 0, end: size }, digest }
    return { blob, stored: { start, end }, size, codec: NONE, checks: [check] }
  })
  if (isSealed(unit)) return { blobs: parts, chunks, entries, first: [], parts }
  return { blobs: [...parts, { digest: shown.digest, size: shown.size }], chunks, entries, first: [] }
}

export interface Pair {
  part: Made
  whole: Made
}

export interface Made {
  descriptor: Descriptor
  blob: MemoryBlob
}

/** An image's two layers, with these files. @param change what the index says otherwise */
export function makePair(
  below: Record<string, string>,
  above: Record<string, string>,
  change: (index: Index) => void = () => {},
): Pair {
  const part = new MemoryBlob(Buffer.from(Object.values(below).join('')))
  const index: Index = { parts: [{ digest: part.digest, size: part.size }], files: [] }
  for (const [blob, files] of [below, above].entries()) {
    let start = blob === 0 ? 0 : INDEX_LENGTH
    for (const [path, text] of Object.entries(files)) {
      const content = Buffer.from(text)
      index.files.push({ path, blob, start, end: start + content.length, digest: digestOf(content) })
      start += content.length
    }
  }
  change(index)
  const json = Buffer.from(JSON.stringify(index).padEnd(INDEX_LENGTH))
  const bytes = Buffer.concat([json, Buffer.from(Object.values(above).join(''))])
  const blob = new MemoryBlob(bytes)
  const annotations = { [INDEX_DIGEST]: digestOf(json), [INDEX_BYTES]: `${INDEX_LENGTH}` }
  return {
    part: { descriptor: { mediaType: PART, digest: part.digest, size: part.size, annotations: {} }, blob: part },
    whole: { descriptor: { mediaType: WHOLE, digest: blob.digest, size: blob.size, annotations }, blob },
  }
}

export interface SealedPair extends Pair {
  /** Of the whole's tar. */
  diffId: Digest
  tar: Uint8Array
}

/**
 * The same, sealed. @param part its bytes: files are cut out of it, 4 bytes each @param change as `makePair`
 */
export function makeSealedPair(
  part: Uint8Array,
  files: readonly string[],
  change: (index: Index) => void = () => {},
): SealedPair {
  const below = new MemoryBlob(part)
  const index: Index = {
    parts: [{ digest: below.digest, size: below.size }],
    files: files.map((path, i) => {
      const [start, end] = [4 * i, 4 * i + 4]
      return { path, blob: 0, start, end, digest: digestOf(part.subarray(start, end)) }
    }),
  }
  change(index)
  const tar = Buffer.concat([
    member({ name: 'index' }, JSON.stringify(index).padEnd(INDEX_LENGTH)),
    new Uint8Array(2 * BLOCK_BYTES),
  ])
  const blob = new MemoryBlob(gzipSync(tar))
  const annotations = { [INDEX_DIGEST]: blob.digest }
  return {
    part: { descriptor: { mediaType: PART, digest: below.digest, size: below.size, annotations: {} }, blob: below },
    whole: { descriptor: { mediaType: WHOLE, digest: blob.digest, size: blob.size, annotations }, blob },
    diffId: digestOf(tar),
    tar,
  }
}
