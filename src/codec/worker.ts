// A codec worker: decode, verify, write, mark ready, in one hop, for a few chunks a task.
import { workerData } from 'node:worker_threads'
import { Failure } from '../errors.ts'
import { CHUNK_MAX_BYTES, CHUNK_STORED_MAX_BYTES, type Chunk } from '../tree/chunk.ts'
import { READY_VERIFIED } from '../tree/ready.ts'
import type { Decoder } from './decoder.ts'
import { readPieces, readPlaces, setReady, writePlaces, writeSums } from './device.ts'
import { type Job, type Outcome, type Piece, pack, type Slot, type WorkerSetup } from './job.ts'
import { chunkName, type Verified, verify } from './verify.ts'
import { WasmDecoder } from './wasm.ts'

let decoder: Promise<Decoder> | undefined

/** What piscina calls. Outcomes are in the order of the jobs; one that fails is nothing to the others. */
export async function run(jobs: readonly Job[]): Promise<Outcome[]> {
  decoder ??= loadDecoder()
  const codecs = await decoder
  const outcomes: Outcome[] = []
  for (const job of jobs) {
    try {
      outcomes.push({ bytes: await done(codecs, job) })
    } catch (error) {
      outcomes.push({ failed: pack(error) })
    }
  }
  codecs.release()
  // all lie on one buffer that is nobody else's
  const stored = jobs.map(({ from }) => from).find((from) => from instanceof Uint8Array)
  const buffer = stored?.buffer
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
  return outcomes
}

/** What `--expose-gc` makes (V8 from 12 on). */
type Collect = (how: { type: 'major'; execution: 'sync'; flavor: 'last-resort' }) => void

/** Nothing is to be done for a while: gives memory back that is kept to be quick, and garbage, where V8 was started with `--expose-gc`. */
export function rest(): void {
  decoder = undefined
  const { gc } = globalThis as { gc?: Collect }
  gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' })
}

async function loadDecoder(): Promise<Decoder> {
  const { module } = workerData as WorkerSetup // from pool.ts
  if (module) return new WasmDecoder(module)
  return (await import('./fallback.ts')).fallbackDecoder()
}

function done(codecs: Decoder, { chunk, from, slot }: Job): number | Promise<number> {
  requireBounds(chunk)
  if (from === 'kept') return reverify(codecs, chunk, slot)
  return from instanceof Uint8Array ? fill(codecs, chunk, from, slot) : copy(codecs, chunk, from, slot)
}

async function fill(codecs: Decoder, chunk: Chunk, stored: Uint8Array, slot: Slot): Promise<number> {
  const want = chunk.stored.end - chunk.stored.start
  if (stored.length !== want)
    throw Failure.corrupt(`${chunkName(chunk)}: want ${want} stored bytes, got ${stored.length}`)
  const made = await decode(codecs, chunk, stored)
  const verified = verify(chunk, made.decoded, made.stored, (pieces) => codecs.digests(pieces))
  const bytes = writePlaces(chunk, verified, slot)
  writeSums(chunk, verified, slot)
  setReady(slot, READY_VERIFIED)
  return bytes
}

async function decode(codecs: Decoder, chunk: Chunk, stored: Uint8Array) {
  try {
    return await codecs.decode(chunk.codec, stored, chunk.size)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    // the decoder does not know which chunk it is
    throw new Failure(error.code, `${chunkName(chunk)}: ${error.message}`, {
      ...(error.why && { why: error.why }),
      cause: error,
    })
  }
}

/** What is found wrong is told and not written down: another process may have put it right since it was read. */
function reverify(codecs: Decoder, chunk: Chunk, slot: Slot): number {
  const bytes = readPlaces(chunk, slot)
  if (!bytes) throw Failure.corrupt(`${chunkName(chunk)}: the cache holds less than its places`)
  writeSums(
    chunk,
    verify(chunk, bytes, 'gone', (pieces) => codecs.digests(pieces)),
    slot,
  )
  setReady(slot, READY_VERIFIED)
  return chunk.places.reduce((sum, { length }) => sum + length, 0)
}

/**
 * Pieces are verified as whatever comes is, when they were read: a device may lose them at any moment, and then they are missing, and not
 * corrupt.
 */
function copy(codecs: Decoder, chunk: Chunk, pieces: readonly Piece[], slot: Slot): number {
  const bytes = readPieces(chunk, pieces)
  if (bytes === null) throw gone(chunk)
  let verified: Verified
  try {
    verified = verify(chunk, bytes, 'gone', (all) => codecs.digests(all))
  } catch (error) {
    throw error instanceof Failure && error.code === 'corrupt' ? gone(chunk, error) : error
  }
  const written = writePlaces(chunk, verified, slot)
  writeSums(chunk, verified, slot)
  setReady(slot, READY_VERIFIED)
  return written
}

function gone(chunk: Chunk, cause?: Failure): Failure {
  return Failure.missing(`${chunkName(chunk)}: pieces of it are not where they were`, { cause })
}

/** Limits first: nothing is allocated for a chunk that breaks them. */
function requireBounds(chunk: Chunk): void {
  const stored = chunk.stored.end - chunk.stored.start
  if (!(chunk.size > 0 && Number.isSafeInteger(chunk.size)))
    throw Failure.corrupt(`${chunkName(chunk)}: its size is ${chunk.size}`)
  if (chunk.size > CHUNK_MAX_BYTES) {
    throw Failure.limit(`${chunkName(chunk)}: ${chunk.size} decoded bytes`, {
      why: `at most ${CHUNK_MAX_BYTES} are allowed`,
    })
  }
  if (!(stored > 0 && stored <= CHUNK_STORED_MAX_BYTES)) {
    throw Failure.limit(`${chunkName(chunk)}: ${stored} stored bytes`, {
      why: `1 to ${CHUNK_STORED_MAX_BYTES} are allowed`,
    })
  }
}
