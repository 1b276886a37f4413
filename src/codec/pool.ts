// Threads that turn stored bytes into verified chunks on a device. The main thread only hands over shared memory.
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { describe, Failure } from '../errors.ts'
import type { Chunk } from '../tree/chunk.ts'
import { type Job, type Outcome, type Slot, unpack, type WorkerSetup } from './job.ts'
import { CODECS_WASM, loadCodecs } from './wasm.ts'

// A hop to a worker costs as much as decoding 64 KiB, so small chunks travel together; but not so many that the last one waits long.
const BATCH_MAX_CHUNKS = 8
const BATCH_MAX_BYTES = 2 ** 20
// While other threads are idle, chunks of this size go to them one by one.
const BATCH_MIN_BYTES = 128 * 1024
// As many 64 KiB chunks as a 4 GiB layer has; the callers' own bounds on memory are met long before.
const WAITING_MAX_CHUNKS = 65_536
// More threads than that outrun any link.
const THREADS_MAX = 4
// An idle thread costs some 10 MB.
const IDLE_MS = 30_000

export interface CodecCounters {
  /** Chunks decoded, verified and written. */
  decoded: number
  /** Bytes of places that were proven, by `decode` and by `verify`. */
  verified: number
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
}

interface Waiting {
  job: Job
  settle: { resolve: (bytes: number) => void; reject: (failure: Failure) => void }
}

export class CodecPool {
  readonly #threads: number
  readonly #warn: (message: string) => void
  readonly #module: URL
  readonly #counters: CodecCounters = { decoded: 0, verified: 0, corrupt: 0, reverified: 0 }
  readonly #running = new Set<Promise<void>>()
  #waiting: Waiting[] = []
  #scheduled = false
  #closed = false
  readonly #workers: Promise<Piscina<Job[], Outcome[]>>

  constructor(options: CodecPoolOptions = {}) {
    this.#threads = options.threads ?? Math.min(availableParallelism(), THREADS_MAX)
    this.#warn = options.warn ?? ((message) => process.emitWarning(message))
    this.#module = options.module ?? CODECS_WASM
    // now, so that the first chunk does not wait for a thread's start
    this.#workers = this.#start()
    // whoever wants a chunk is told
    this.#workers.catch(() => {})
  }

  /**
   * Decodes and checks a chunk, writes its places and marks it READY_VERIFIED. `stored` (all of the chunk's stored bytes) is
   * best on shared memory, else it is copied once.
   * @throws Failure corrupt (the bytes, or the chunk itself), limit, system (its cause has a `code`: ENOSPC …), aborted; the
   * ready byte is then as before
   */
  async decode(chunk: Chunk, stored: Uint8Array, into: Slot): Promise<void> {
    const bytes = await this.#run({ chunk, slot: into, stored: onSharedMemory(stored) })
    this.#counters.decoded++
    this.#counters.verified += bytes
  }

  /**
   * Whether a chunk that an earlier process wrote is right. It is marked READY_VERIFIED if so and READY_MISSING if not, also when
   * that cannot be told: checks of stored bytes cannot be repeated, nor those of decoded bytes that no place keeps.
   * @throws Failure system, limit, aborted
   */
  async verify(chunk: Chunk, slot: Slot): Promise<boolean> {
    let bytes: number
    try {
      bytes = await this.#run({ chunk, slot, stored: null })
    } catch (error) {
      if (error instanceof Failure && (error.code === 'corrupt' || error.code === 'unsupported')) return false
      throw error
    }
    this.#counters.verified += bytes
    this.#counters.reverified++
    return true
  }

  counters(): CodecCounters {
    return { ...this.#counters }
  }

  /** Fails what waits, lets what runs end, stops the threads. Idle threads do not keep a process alive, running ones do. */
  async close(): Promise<void> {
    this.#closed = true
    for (const { settle } of this.#waiting.splice(0)) settle.reject(Failure.aborted('the codec pool was closed'))
    await Promise.allSettled(this.#running)
    // a start that failed has nothing to stop, and was told to those who waited for it
    const workers = await this.#workers.catch(() => undefined)
    await workers?.destroy()
  }

  #run(job: Job): Promise<number> {
    if (this.#closed) return Promise.reject(Failure.aborted('the codec pool is closed'))
    if (this.#waiting.length === WAITING_MAX_CHUNKS) {
      return Promise.reject(Failure.limit(`${WAITING_MAX_CHUNKS} chunks wait to be decoded already`))
    }
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    this.#waiting.push({ job, settle: { resolve, reject } })
    this.#schedule()
    return promise
  }

  /** Chunks that come in the same tick go together. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      while (this.#waiting.length > 0 && this.#running.size < this.#threads) {
        const running: Promise<void> = this.#send(this.#takeBatch()).finally(() => {
          this.#running.delete(running)
          this.#schedule()
        })
        this.#running.add(running)
      }
    })
  }

  #takeBatch(): Waiting[] {
    const idle = this.#threads - this.#running.size
    const candidates = this.#waiting.slice(0, BATCH_MAX_CHUNKS * idle)
    const share = candidates.reduce((sum, { job }) => sum + weight(job), 0) / idle
    const most = Math.min(BATCH_MAX_BYTES, Math.max(BATCH_MIN_BYTES, share))
    let count = 1
    let bytes = weight((candidates[0] as Waiting).job) // only called while something waits
    for (const { job } of candidates.slice(1, BATCH_MAX_CHUNKS)) {
      bytes += weight(job)
      if (bytes > most) break
      count++
    }
    return this.#waiting.splice(0, count)
  }

  /** Never rejects: each of the batch is settled. */
  async #send(batch: Waiting[]): Promise<void> {
    let outcomes: Outcome[]
    try {
      const workers = await this.#workers
      outcomes = await workers.run(batch.map(({ job }) => job))
    } catch (cause) {
      for (const { settle } of batch) settle.reject(Failure.system('the codec workers failed', { cause }))
      return
    }
    for (const [i, { settle }] of batch.entries()) {
      const outcome = outcomes[i] as Outcome // one each
      if (!('failed' in outcome)) {
        settle.resolve(outcome.bytes)
        continue
      }
      if (outcome.failed.code === 'corrupt') this.#counters.corrupt++
      settle.reject(unpack(outcome.failed))
    }
  }

  async #start(): Promise<Piscina<Job[], Outcome[]>> {
    const module = await loadCodecs(this.#module).catch((error) => {
      this.#warn(
        `decoding with zstd-codec and zlib, which are slower: ${fileURLToPath(this.#module)}: ${describe(error)}`,
      )
      return null
    })
    const workerData: WorkerSetup = { module }
    return new Piscina({
      // the checkout runs .ts, the package ships .js
      filename: fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? 'worker.ts' : 'worker.js', import.meta.url)),
      name: 'run',
      minThreads: 1,
      maxThreads: this.#threads,
      idleTimeout: IDLE_MS,
      workerData,
    })
  }
}

/** Bytes a worker has to go through, roughly; decoded ones for a chunk that is read back. */
function weight(job: Job): number {
  return job.stored?.length ?? job.chunk.size
}

function onSharedMemory(bytes: Uint8Array): Uint8Array {
  if (bytes.buffer instanceof SharedArrayBuffer) return bytes
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length))
  shared.set(bytes)
  return shared
}
