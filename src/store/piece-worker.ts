// Runs in a worker: which pieces of a tree lie on devices of trees whose bytes its image may have.
import { lstatSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { move, transferableSymbol, valueSymbol } from 'piscina'
import { Failure } from '../errors.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import { type FoundPieces, HOLDERS_MAX, PieceSearch } from '../tree/pieces.ts'
import { READY_HEADER_BYTES, readyLength } from '../tree/ready.ts'
import { decodeProvenance, mayHave, PROVENANCE_FILE, type ProvenanceRecord } from './provenance.ts'

export interface PieceTask {
  /** The cache's folder. */
  cache: string
  /** Of the tree that pieces are looked for, the names of its folder and of a layer's. */
  tree: string
  layer: string
  /** Whose image it is. */
  repository: string
}

export interface Pieces extends FoundPieces {
  /** The folders of the trees that have them, by their numbers from 1. */
  readonly holders: readonly string[]
  /** Whether all that they have came without credentials. */
  readonly anonymous: boolean
}

/** Trees that are looked at, those filled last first: a repository's images of some weeks. */
const TREES_MAX = 1024
/** Chunk tables that are read for one tree. A table has some 120 bytes a chunk: a million chunks, in a second. */
const TABLES_MAX_BYTES = 128 << 20

/** What trees with a device are to a repository's images. */
export interface Look {
  /** Some are an image's of this repository. */
  readonly older: boolean
  /** There are some that its images may have bytes of. */
  readonly any: boolean
}

export function look({ cache, repository }: Pick<PieceTask, 'cache' | 'repository'>): Look {
  const records = treesByUse(cache).flatMap((name) => recordOf(cache, name) ?? [])
  return {
    older: records.some((record) => record.repository === repository),
    any: records.some((record) => mayHave(record, repository)),
  }
}

/** Undefined: nothing was found. What cannot be read has nothing. */
export function find({ cache, tree, layer, repository }: PieceTask): Pieces | undefined {
  const own = tableOf(cache, layer)
  if (own === undefined) return undefined
  const search = new PieceSearch(own)
  const holders: string[] = []
  let anonymous = true
  let left = TABLES_MAX_BYTES
  for (const name of treesByUse(cache, tree)) {
    if (search.isOver || left < 0 || holders.length === HOLDERS_MAX) break
    const folder = join(cache, 'trees', name)
    // the states first: a byte that is there by then came from who is in the record by then
    const ready = attempt(() => new Uint8Array(readFileSync(join(folder, 'ready'))))
    const record = recordOf(cache, name)
    if (ready === undefined || record === undefined || !mayHave(record, repository)) continue
    const table = tableOf(cache, record.layer)
    const states = table && statesIn(ready, table)
    if (table === undefined || states === undefined) continue
    left -= table.bytes.length
    holders.push(name)
    anonymous &&= record.private?.length === 0
    search.look(holders.length, table, states)
  }
  const found = search.found()
  return found && moved({ ...found, holders, anonymous })
}

function recordOf(cache: string, tree: string): ProvenanceRecord | undefined {
  return attempt(() => decodeProvenance(readFileSync(join(cache, 'trees', tree, PROVENANCE_FILE)), tree))
}

/** The states that a ready file has; undefined: it is none of such a device. */
function statesIn(ready: Uint8Array, { length, deviceSize }: ChunkTable): Uint8Array | undefined {
  const end = READY_HEADER_BYTES + length
  return [end, readyLength(length, deviceSize)].includes(ready.length)
    ? ready.subarray(READY_HEADER_BYTES, end)
    : undefined
}

/** The names of trees with a device, but for one, the one that was written to last first. */
function treesByUse(cache: string, except?: string): string[] {
  const trees = join(cache, 'trees')
  return readdirSync(trees)
    .filter((name) => name !== except)
    .flatMap((name) => {
      const at = attempt(() => statSync(join(trees, name, 'ready')).mtimeMs)
      return at === undefined ? [] : [{ name, at }]
    })
    .sort((a, b) => b.at - a.at)
    .slice(0, TREES_MAX)
    .map(({ name }) => name)
}

function tableOf(cache: string, layer: string): ChunkTable | undefined {
  const path = join(cache, 'layers', layer, 'chunks')
  return attempt(() => (lstatSync(path).size > TABLES_MAX_BYTES ? undefined : new ChunkTable(readFileSync(path))))
}

/** Undefined: it is not there, not readable, or not what was written. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof Failure || (error instanceof Error && 'code' in error)) return undefined
    throw error
  }
}

function moved(pieces: Pieces): Pieces {
  const transfer = [pieces.holder.buffer, pieces.at.buffer]
  return move({ [transferableSymbol]: transfer, [valueSymbol]: pieces } as unknown as Parameters<
    typeof move
  >[0]) as unknown as Pieces // piscina types only single buffers
}
