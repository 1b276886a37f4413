// Threads that turn stored bytes into verified chunks on a device. The main thread hands over memory, which they give back.
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { describe, Failure } from '../errors.ts'
import type { Chunk, Codec } from '../tree/chunk.ts'
import { type Job, type Outcome, type Piece, type Slot, unpack, type WorkerSetup } from './job.ts'
import { type Batch, Queue, type Turn } from './queue.ts'
import { CODECS_WASM, loadCodecs } from './wasm.ts'

// More threads than that outrun any link.
const THREADS_MAX = 4
// To hand memory over costs as much as to copy so many bytes.
const TRANSFERRED_MIN_BYTES = 64 * 1024
// An idle thread costs some 10 MB; more than these leave after a while.
const STANDING_BY = 2
const IDLE_MS = 30_000
// A burst is over when nothing came for so long; who reads on after that pays 20 ms of a processor for it.
const REST_MS = 2_000
// A thread takes twice as long to start.
const BORROW_MS = 50
// What a thread does that decodes takes some MB; and what one builds that is lent is bounded by whoever borrows it. The more a heap may
// have in the end, the later V8 collects its garbage for the first time: with 1024 a tree of 20,000 files takes a sixth longer.
const HEAP_MAX_MB = 3072
// Who reads back what is decoded needs none.
const noState = () => new Uint8Array(0)

export interface CodecCounters {
  /** Chunks decoded, verified and written. */
  decoded: number
  /** Bytes of places that were proven, by `decode` and by `verify`. */
  verified: number
  /** Bytes of places that `copy` filled. */
  copied: number
  /** Chunks whose bytes were wrong, fetched or found in the cache. */
  corrupt: number
  /** Chunks of an earlier life that were found right. */
  reverified: number
}

export interface CodecPoolOptions {
  /** Default: one a core, at most 4. */
  threads?: number
  /** Is told once when the decoders had to be replaced by slower ones. Default: a process warning. */
  warn?: (message: string) => void
  /** The WebAssembly module. Default: `wasm/codecs.wasm`. */
  module?: URL
  /** What threads run, if it is not worker.ts: a module that has all that does, and what they are lent for. */
  worker?: URL
}

/** What a thread is lent for. */
export interface Lent {
  /** Of the function. */
  name: string
  /** The URL of its module. Default: the one that threads run. */
  filename?: string
  /** Ends the thread. */
  signal?: AbortSignal
  transferList?: ArrayBuffer[]
  /** Only if another thread is left for chunks. */
  isLong?: boolean
}

/** 'unknown': its check is about bytes that are gone. */
export type Verdict = 'right' | 'damaged' | 'unknown'

export class CodecPool {
  readonly #threads: number
  readonly #warn: (message: string) => void
  readonly #module: URL
  readonly #worker: URL
  readonly #counters: CodecCounters = { decoded: 0, verified: 0, copied: 0, corrupt: 0, reverified: 0 }
  readonly #running = new Set<Promise<void>>()
  readonly #queue = new Queue()
  /** Threads that have started. */
  readonly #ready = new Set<unknown>()
  /** Threads that do something else, and those who wait for one. */
  #lent = 0
  readonly #borrowers = new Set<{ readonly leaves: number; grant(): void }>()
  /** Another was asked for. */
  #starting = false
  #scheduled = false
  #closed = false
  #resting: NodeJS.Timeout | undefined
  #workers: Promise<Piscina<Job[], Outcome[]>> | undefined

  constructor(options: CodecPoolOptions = {}) {
    this.#threads = options.threads ?? Math.min(availableParallelism(), THREADS_MAX)
    this.#warn = options.warn ?? ((message) => process.emitWarning(message))
    this.#module = options.module ?? CODECS_WASM
    // the checkout runs .ts, the package ships .js
    this.#worker =
      options.worker ?? new URL(import.meta.url.endsWith('.ts') ? 'worker.ts' : 'worker.js', import.meta.url)
  }

  /** Has threads start, if they have not, so that the first chunk does not wait for that. */
  standBy(): void {
    this.#started().catch(() => {}) // whoever wants a chunk is told
  }

  /**
   * Decodes and checks a chunk, writes its places and marks it READY_VERIFIED. `stored` (all of the chunk's stored bytes) stays
   * as it is until this settles.
   * @throws Failure corrupt (the bytes, or the chunk itself), limit, system (its cause has a `code`: ENOSPC …), aborted; the
   * ready byte is then as before
   */
  async decode(chunk: Chunk, stored: Uint8Array, into: Slot, turn: Turn): Promise<void> {
    const bytes = await this.#run({ chunk, slot: into, from: stored }, turn)
    this.#counters.decoded++
    this.#counters.verified += bytes
  }

  /**
   * Whether a chunk that an earlier process wrote is right: then it is marked READY_VERIFIED, else its ready byte is as before.
   * Nothing but bytes that differ from their digest is damage; whatever else keeps it from being told is thrown.
   * @throws Failure system, limit, aborted
   */
  async verify(chunk: Chunk, slot: Slot, turn: Turn): Promise<Verdict> {
    let bytes: number
    try {
      bytes = await this.#run({ chunk, slot, from: 'kept' }, turn)
    } catch (error) {
      if (error instanceof Failure && error.code === 'corrupt') return 'damaged'
      if (error instanceof Failure && error.code === 'unsupported') return 'unknown'
      throw error
    }
    this.#counters.verified += bytes
    this.#counters.reverified++
    return 'right'
  }

  /**
   * As `decode`, but of what lies elsewhere decoded.
   * @param pieces each check's own; their descriptors are open until this settles
   * @throws Failure missing: they are not (any more) what the chunk's checks say; as `decode`
   */
  async copy(chunk: Chunk, pieces: readonly Piece[], into: Slot, turn: Turn): Promise<void> {
    const bytes = await this.#run({ chunk, slot: into, from: pieces }, turn)
    this.#counters.copied += bytes
    this.#counters.verified += bytes
  }

  /**
   * Has a thread that has nothing to do run something else, which takes no longer than who wants a chunk may wait.
   * @param otherwise does the same where none is free in less time than another takes to start
   * @returns what either returns @throws what either throws; AbortError
   */
  async lend(task: object, { isLong = false, ...how }: Lent, otherwise: () => Promise<unknown>): Promise<unknown> {
    this.standBy()
    const workers = (await this.#borrows(isLong)) ? await this.#started().catch(() => undefined) : undefined
    if (workers === undefined || this.#closed) return await otherwise()
    this.#stir()
    try {
      return await workers.run(task as Job[], how) // the function knows its own
    } finally {
      this.#lent--
      this.#schedule()
    }
  }

  counters(): CodecCounters {
    return { ...this.#counters }
  }

  /** Threads that decode or verify now. */
  get busy(): number {
    return this.#running.size
  }

  /** Fails what waits, lets what runs end, stops the threads. Idle threads do not keep a process alive, running ones do. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#resting)
    this.#queue.fail(Failure.aborted('the codec pool was closed'))
    await Promise.allSettled(this.#running)
    // a start that failed has nothing to stop, and was told to those who waited for it
    const workers = await this.#workers?.catch(() => undefined)
    await workers?.destroy()
  }

  #run(job: Job, turn: Turn): Promise<number> {
    if (this.#closed) return Promise.reject(Failure.aborted('the codec pool is closed'))
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    this.#queue.add({ job, resolve, reject }, turn)
    this.#schedule()
    return promise
  }

  /** Chunks that come in the same tick go together. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      for (const each of this.#borrowers) {
        if (this.#queue.hasUrgent || this.#ready.size - this.#lent - this.#running.size <= each.leaves) break
        this.#borrowers.delete(each)
        this.#lent++
        each.grant()
      }
      // what is given to a thread that is starting would wait for it, while others come free that could do it
      const threads = Math.max(1, this.#ready.size) - this.#lent
      while (this.#running.size < threads) {
        const batch = this.#queue.take(threads - this.#running.size)
        if (batch === undefined) return
        this.#stir()
        const begun = performance.now()
        const running: Promise<void> = this.#send(batch).finally(() => {
          this.#running.delete(running)
          const restMs = this.#queue.restMs(batch, performance.now() - begun)
          if (restMs > 0) setTimeout(() => this.#end(batch), restMs)
          else this.#queue.ended(batch)
          this.#schedule()
        })
        this.#running.add(running)
      }
      if (threads < this.#threads && this.#queue.hasNext) this.#startThread()
    })
  }

  /** Something is done. When nothing is any more, threads give back what they keep to be quick: they collect no garbage while they wait. */
  #stir(): void {
    clearTimeout(this.#resting)
    this.#resting = setTimeout(() => void this.#rest(), REST_MS).unref()
  }

  /** Never rejects: a thread that ends meanwhile keeps nothing. */
  async #rest(): Promise<void> {
    if (this.#lent + this.#running.size > 0) return this.#stir()
    const rests = Array.from(this.#ready, () => this.lend([], { name: 'rest' }, async () => {})) // of another thread each
    await Promise.allSettled(rests)
    clearTimeout(this.#resting)
  }

  /** Counts one more thread as lent; false: none came free. */
  #borrows(isLong: boolean): Promise<boolean> {
    return new Promise((resolve) => {
      const grant = () => {
        clearTimeout(late)
        resolve(true)
      }
      const borrower = { leaves: Number(isLong), grant }
      const late = setTimeout(() => {
        this.#borrowers.delete(borrower)
        resolve(false)
      }, BORROW_MS)
      this.#borrowers.add(borrower)
      this.#schedule()
    })
  }

  #end(batch: Batch): void {
    this.#queue.ended(batch)
    this.#schedule()
  }

  /** All that are there have something to do: whoever is given nothing now makes the pool start another. */
  #startThread(): void {
    if (this.#starting) return
    this.#starting = true
    const started = this.#started().then((workers) => workers.run([]))
    const over = () => {
      this.#starting = false
    }
    started.then(over, over) // what is wrong with workers is told to whoever wants a chunk
  }

  /** Never rejects: each of the batch is settled. */
  async #send({ all }: Batch): Promise<void> {
    let outcomes: Outcome[]
    try {
      const workers = await this.#started()
      const { jobs, buffer } = parcel(all.map(({ job }) => job))
      outcomes = await workers.run(jobs, buffer.byteLength < TRANSFERRED_MIN_BYTES ? {} : { transferList: [buffer] })
    } catch (cause) {
      for (const { reject } of all) reject(Failure.system('the codec workers failed', { cause }))
      return
    }
    for (const [i, { resolve, reject }] of all.entries()) {
      const outcome = outcomes[i] as Outcome // one each
      if (!('failed' in outcome)) {
        resolve(outcome.bytes)
        continue
      }
      if (outcome.failed.code === 'corrupt') this.#counters.corrupt++
      reject(unpack(outcome.failed))
    }
  }

  #started(): Promise<Piscina<Job[], Outcome[]>> {
    this.#workers ??= this.#start()
    return this.#workers
  }

  async #start(): Promise<Piscina<Job[], Outcome[]>> {
    const module = await loadCodecs(this.#module).catch((error) => {
      this.#warn(
        `decoding with zstd-codec and zlib, which are slower: ${fileURLToPath(this.#module)}: ${describe(error)}`,
      )
      return null
    })
    const workerData: WorkerSetup = { module }
    const workers = new Piscina<Job[], Outcome[]>({
      filename: fileURLToPath(this.#worker),
      name: 'run',
      minThreads: Math.min(STANDING_BY, this.#threads),
      maxThreads: this.#threads,
      idleTimeout: IDLE_MS,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MAX_MB },
      recordTiming: false,
      workerData,
    })
    workers.on('workerCreate', (thread) => {
      this.#ready.add(thread)
      this.#schedule()
    })
    workers.on('workerDestroy', (thread) => {
      this.#ready.delete(thread)
    })
    return workers
  }
}

/**
 * What a worker takes along, on memory that goes with it and back to the system when it is done: what both threads held would stay until
 * both of them collect garbage, which one that is idle never does.
 */
function parcel(jobs: readonly Job[]): { jobs: Job[]; buffer: ArrayBuffer } {
  const packed = (pack: (bytes: Uint8Array) => Uint8Array): Job[] =>
    jobs.map(({ chunk, slot, from }) => {
      if (!(from instanceof Uint8Array))
        return { chunk: { ...chunk, codec: withState(chunk.codec, noState) }, slot, from }
      return { chunk: { ...chunk, codec: withState(chunk.codec, pack) }, slot, from: pack(from) }
    })
  let length = 0
  packed((bytes) => {
    length += bytes.length
    return bytes
  })
  const all = Buffer.allocUnsafeSlow(length)
  let at = 0
  const copied = packed((bytes) => {
    const copy = new Uint8Array(all.buffer, at, bytes.length)
    copy.set(bytes)
    at += bytes.length
    return copy
  })
  return { jobs: copied, buffer: all.buffer }
}

/** A state that stayed where it is would take along all the memory that it is a part of: a whole chunk table. */
function withState(codec: Codec, pack: (state: Uint8Array) => Uint8Array): Codec {
  if (codec.name === 'gzip' && codec.seed) return { name: 'gzip', seed: pack(codec.seed) }
  if (codec.name === 'zstd' && codec.dictionary) return { name: 'zstd', dictionary: pack(codec.dictionary) }
  return codec
}
