// What a bootstrap and the tables of its blobs say, put together: chunks as they are fetched and verified, and the entries over them.
import { Failure } from '../../errors.ts'
import type { Entry, Extent } from '../../tree/entry.ts'
import { type Contents, type Unit, unitText } from '../format.ts'
import { quote } from '../path.ts'
import type { BlobTables } from './nydus-index.ts'
import type { Rafs } from './rafs.ts'
import { StoredChunks } from './stored-chunks.ts'
import { digestNamed, sizeInManifest } from './wanted-tables.ts'

/** Names that stand for the absence of others (OCI image specification, layer.md). */
const WHITEOUT = /(?:^|\/)\.wh\./

/** @throws Failure corrupt, limit, unsupported */
export function contentsOf(rafs: Rafs, tables: readonly BlobTables[], unit: Unit): Contents {
  const what = unitText(unit)
  const used = [...new Set(rafs.chunks.map(({ blob }) => blob))].sort((a, b) => a - b)
  const blobs = used.map((number) => {
    const { id, compressedSize } = rafs.blobs[number] as Rafs['blobs'][number] // parsers have looked
    const digest = digestNamed(id, `${what}: bootstrap: blob ${number}`)
    return { digest, size: sizeInManifest(digest, unit) ?? sizeIn(tables, number) ?? compressedSize }
  })
  const stored = new StoredChunks(
    rafs,
    tables,
    new Map(used.map((number, i) => [number, { number: i, size: blobs[i]?.size ?? 0 }])),
    what,
  )
  const places = rafs.chunks.map((chunk) => stored.add(chunk))
  const whiteout = rafs.entries.find(({ path }) => path.includes('.wh.') && WHITEOUT.test(path))
  if (whiteout !== undefined) {
    throw Failure.unsupported(`${what}: bootstrap: ${quote(whiteout.path)} is a whiteout`, {
      why: 'the tree of a whole image has none left: this is the bootstrap of a single layer',
    })
  }
  // mostly each chunk is fetched by itself, and has its number
  const isSame = places.every(({ chunk, offset }, i) => chunk === i && offset === 0)
  const entries = isSame ? rafs.entries : rafs.entries.map((entry) => placedEntry(entry, places))
  return { blobs, chunks: stored.finish(), entries, first: firstOf(entries, rafs.prefetch) }
}

/** What a registry said of a blob. */
function sizeIn(tables: readonly BlobTables[], number: number): number | undefined {
  const size = tables.find(({ blob }) => blob === number)?.size
  return size && Number(new DataView(size.buffer, size.byteOffset, size.length).getBigUint64(0, true))
}

function placedEntry(entry: Entry, places: readonly { chunk: number; offset: number }[]): Entry {
  return entry.extents === undefined ? entry : { ...entry, extents: entry.extents.map((each) => placed(each, places)) }
}

/** The same piece, of what is fetched. */
function placed(extent: Extent, places: readonly { chunk: number; offset: number }[]): Extent {
  const place = places[extent.chunk]
  if (place === undefined) return extent // zeros
  return { ...extent, chunk: place.chunk, offset: place.offset + extent.offset }
}

/**
 * The chunks of what is wanted first, in its order. A list that begins with everything, as tools write it by default, orders nothing.
 * @param entries depth first
 */
function firstOf(entries: readonly Entry[], prefetch: readonly string[]): number[] {
  const paths = prefetch.slice(0, prefetch.includes('') ? prefetch.indexOf('') : undefined)
  if (paths.length === 0) return []
  const at = new Map(entries.map(({ path }, i) => [path, i]))
  const first = new Set<number>()
  // each entry is taken once, whatever the list says
  const taken = new Uint8Array(entries.length)
  /** Of entries that the list named: where what is below them ends. */
  const ends = new Map<number, number>()
  for (const path of paths) {
    const start = at.get(path)
    if (start === undefined || taken[start]) continue
    const below = `${path}/`
    let i = start
    for (let entry = entries[i]; entry !== undefined; entry = entries[i]) {
      if (i > start && !entry.path.startsWith(below)) break
      for (const { chunk } of entry.extents ?? []) if (chunk >= 0) first.add(chunk)
      taken[i] = 1
      i = ends.get(i) ?? i + 1
    }
    ends.set(start, i)
  }
  return [...first]
}
