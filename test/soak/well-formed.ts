// What every parser promises of what it makes of an index (tree/entry.ts, tree/chunk.ts, format/format.ts), and what the tree over it does.
import { strict as assert } from 'node:assert'
import { Failure } from '../../src/errors.ts'
import type { Contents } from '../../src/format/format.ts'
import { buildTree } from '../../src/tree/build.ts'
import { CHUNK_MAX_BYTES, CHUNK_STORED_MAX_BYTES, type StoredChunk } from '../../src/tree/chunk.ts'
import { type Entry, S_IFMT, S_IFREG, ZEROS } from '../../src/tree/entry.ts'
import type { Outcome } from './target.ts'

/** What comes of an index: contents as promised, over which there is a tree or a Failure; or a Failure at once. */
export function outcomeOf(parse: () => Contents): Outcome {
  return attempt(() => use(parse()))
}

/** The same of an index that takes its time. */
export function outcomeLater(parse: () => Promise<Contents>): Promise<Outcome> {
  return attemptLater(async () => use(await parse()))
}

function use(parsed: Contents): void {
  const contents = { ...parsed, entries: [...parsed.entries] }
  expectWellFormed(contents)
  buildTree(contents)
}

/** @throws what `work` throws, but for a Failure */
export function attempt(work: () => unknown): Outcome {
  try {
    work()
    return 'read'
  } catch (error) {
    return refused(error)
  }
}

/** The same of what takes its time. */
export function attemptLater(work: () => Promise<unknown>): Promise<Outcome> {
  return work().then(() => 'read', refused)
}

function refused(error: unknown): Outcome {
  if (error instanceof Failure) return 'refused'
  throw error
}

/** @throws AssertionError */
export function expectWellFormed({ blobs, chunks, entries, first }: Contents): void {
  for (const chunk of chunks) expectChunk(chunk, blobs[chunk.blob]?.size)
  for (const entry of entries) expectEntry(entry, chunks)
  for (const number of first) assert(chunks[number], `chunk ${number} is wanted first, and is not there`)
}

function expectChunk({ stored, size, checks }: StoredChunk, blobSize: number | undefined): void {
  assert(blobSize !== undefined, 'a chunk of a blob that is not there')
  const { start, end } = stored
  assert(
    Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start < end,
    `stored at ${start} to ${end}`,
  )
  assert(end <= blobSize, `stored up to ${end}, the blob has ${blobSize} bytes`)
  assert(end - start <= CHUNK_STORED_MAX_BYTES, `${end - start} stored bytes`)
  assert(Number.isSafeInteger(size) && size > 0 && size <= CHUNK_MAX_BYTES, `${size} decoded bytes`)
  for (const { of, range } of checks) {
    assert(range.start >= 0 && range.start < range.end, `a check of ${range.start} to ${range.end}`)
    assert(range.end <= (of === 'stored' ? end - start : size), `a check up to ${range.end} of ${of} bytes`)
  }
}

function expectEntry(entry: Entry, chunks: readonly StoredChunk[]): void {
  const { path, mode, size, link, extents = [] } = entry
  assert(
    path === '' || path.split('/').every((part) => !['', '.', '..'].includes(part)),
    `path ${JSON.stringify(path)}`,
  )
  assert(!path.includes('\0') && path.isWellFormed(), `path ${JSON.stringify(path)}`)
  if ((mode & S_IFMT) !== S_IFREG || link !== undefined) assert.equal(extents.length, 0, `${path} has contents`)
  let at = 0
  for (const extent of extents) {
    assert.equal(extent.at, at, `${path}: a gap at ${at}`)
    assert(Number.isSafeInteger(extent.length) && extent.length > 0, `${path}: ${extent.length} bytes at ${at}`)
    at += extent.length
    if (extent.chunk !== ZEROS) expectCovered(extent, chunks[extent.chunk], path)
  }
  if (link === undefined) assert.equal(at, size, `${path}: ${at} bytes of ${size}`)
}

/** Every byte of an extent is under a check. */
function expectCovered(
  { chunk: number, offset, length }: { chunk: number; offset: number; length: number },
  chunk: StoredChunk | undefined,
  path: string,
): void {
  assert(chunk, `${path}: chunk ${number} is not there`)
  assert(offset >= 0 && offset + length <= chunk.size, `${path}: ${length} bytes at ${offset} of chunk ${number}`)
  let at = offset
  for (const { of, range } of chunk.checks.toSorted((a, b) => a.range.start - b.range.start)) {
    if (of === 'decoded' && range.start <= at) at = Math.max(at, range.end)
  }
  assert(at >= offset + length, `${path}: no digest covers byte ${at} of chunk ${number}`)
}
