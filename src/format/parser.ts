// Parses indexes and builds trees off the main thread.
import { ftruncateSync } from 'node:fs'
import type { Worker } from 'node:worker_threads'
import { Piscina } from 'piscina'
import { Failure } from '../errors.ts'
import type { Part } from '../image/part.ts'
import type { ProfileFile } from '../image/profile.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import type { DeviceRead, ReadFile } from '../tree/read-files.ts'
import type { Tree } from '../tree/tree.ts'
import type { Examination, Examined } from './examine.ts'
import { type Unit, unitText } from './format.ts'
import { giveBack, taken } from './memory.ts'
import type { RawExamination, RawExamined } from './raw-split.ts'
import type { Built, Failed, Merged, Reads, Seen, Task, Wish } from './worker.ts'

type Work = {
  build: [Task, Built]
  merge: [Uint8Array[], Merged]
  filesOf: [Reads, { files: readonly ReadFile[] }]
  chunksOf: [Wish, { wanted: Uint32Array }]
  examine: [Examination, Seen]
  examineRaw: [RawExamination, RawExamined]
}
type Tasks = Work[keyof Work][0]
type Results = Work[keyof Work][1]

/** Layers of one image parse side by side; more threads would only compete with the codecs' for cores. */
const THREADS = 2
/** Where a process may have no more memory, one thread has to do: 20,000 entries take up to 40 MB of it. */
const CRAMPED_MAX_BYTES = 512 << 20
/** A manifest has at most 1024 layers; a second image may come meanwhile. */
const QUEUE_MAX = 4096
/** 2,000,000 entries and the tree over them. */
const HEAP_MAX_MB = 3072
/** The largest index that the limits let through, on a slow machine, queued behind others. */
const DEADLINE_MS = 120_000
/** Stored bytes; decompressing, hashing and writing them takes a tenth of that on a busy machine. */
const EXAMINED_MIN_BYTES_PER_MS = 1000
/** Of a profile. */
const UNTOLD = 'the files that a start reads cannot be told'
/** Workers leave when a burst of lookups is over. */
const IDLE_MS = 2_000
/**
 * What goes to threads of others: indexes of some 80,000 entries. Beside larger ones the tenth of a second that a thread takes to start is
 * little.
 */
const LENT_MAX_BYTES = 16 << 20
/** Some 8,000 entries take a tenth of a second, which anybody may wait for. */
const SHORT_MAX_BYTES = 2 << 20

/** Of an index that somebody else makes a tree of, where it is usual: some 160,000 entries. It is copied on the main thread, and no memory is bounded. */
const USUAL_MAX_BYTES = 32 << 20

/**
 * Of a layer that is read for its tar alone, in a thread of others: stored, and its tar. A tenth of a second; what is larger than it seems is
 * read anew in a thread that can be stopped.
 */
const RAW_LENT_MAX_BYTES = 4 << 20
const RAW_LENT_TAR_MAX_BYTES = 32 << 20

/** The same folder holds worker.ts in a checkout and worker.js in the package. */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url).href

export interface BuildOptions {
  signal?: AbortSignal
  /** The index's memory goes with it, and back to the system when it was parsed: nobody uses it any more. */
  gives?: boolean
}

interface BuilderOptions {
  heapMaxMb?: number
  deadlineMs?: number
  worker?: string
  lender?: Lender
  usual?: UsualTrees | null
  memoryBytes?: number
}

/**
 * Makes a tree natively, in a tenth of a worker's time, the same to the byte (native/src/usual.rs). Undefined: there is something unusual
 * about the index, or wrong with it, and it is to be parsed.
 */
export type UsualTrees = (index: Uint8Array, unit: Unit) => Promise<BuiltTree | undefined>

/** Threads that stand by for something else, and run the same module. */
export interface Lender {
  /** @param otherwise does it where none is free */
  lend(task: object, how: How, otherwise: () => Promise<unknown>): Promise<unknown>
}

interface How {
  name: string
  /** Default: the threads' own module. */
  filename?: string
  signal?: AbortSignal
  transferList?: ArrayBuffer[]
  /** Whether a thread is to be left for others meanwhile. */
  isLong?: boolean
}

/** A unit's tree, and what its index says of its unit's other layers. */
export interface BuiltTree extends Tree {
  readonly parts?: readonly Part[]
}

export class IndexBuilder {
  readonly #pool: Piscina<Tasks, Results | Failed>
  readonly #lender: Lender | undefined
  readonly #usual: UsualTrees | undefined
  readonly #lentMaxBytes: number
  /** Of its own, because whole layers take minutes, and engines wait seconds for an index. */
  readonly #examiners: Piscina<Tasks, Results | Failed>
  /** Threads of `#examiners`, until they have ended: one that the pool has stopped still runs for a moment. */
  readonly #examining = new Set<Worker>()
  readonly #deadlineMs: number
  #running = 0

  /**
   * @param worker the module that runs in threads, if it is not worker.ts itself: one that knows other formats
   * @param lender who spares small indexes the tenth of a second that a thread takes to start
   * @param usual who makes trees of usual indexes
   * @param memoryBytes that the process may have; 0: nobody says so
   */
  constructor(options: BuilderOptions = {}) {
    const { heapMaxMb = HEAP_MAX_MB, deadlineMs = DEADLINE_MS, worker = WORKER, lender } = options
    const { memoryBytes = process.constrainedMemory() } = options
    const isCramped = memoryBytes > 0 && memoryBytes <= CRAMPED_MAX_BYTES
    this.#lentMaxBytes = isCramped ? SHORT_MAX_BYTES : LENT_MAX_BYTES
    this.#deadlineMs = deadlineMs
    this.#lender = lender
    this.#usual = options.usual ?? undefined
    const workers = {
      filename: worker,
      minThreads: 0,
      maxThreads: isCramped ? 1 : THREADS,
      maxQueue: QUEUE_MAX,
      idleTimeout: IDLE_MS,
      resourceLimits: { maxOldGenerationSizeMb: heapMaxMb },
      recordTiming: false,
    }
    this.#pool = new Piscina<Tasks, Results | Failed>({ ...workers, name: 'build' })
    this.#examiners = new Piscina<Tasks, Results | Failed>({ ...workers, name: 'examine' })
  }

  /** Whether something is being parsed, built or merged: work that goes on even when no byte arrives. */
  get busy(): boolean {
    return this.#running > 0
  }

  /**
   * The tree of a unit whose index its format's `readIndex` returned.
   * @throws Failure what parseIndex and buildTree throw; corrupt (a blob that is not the unit's), limit (out of memory), timeout, aborted
   */
  async build(index: Uint8Array, unit: Unit, { signal, gives }: BuildOptions = {}): Promise<BuiltTree> {
    const what = `${unitText(unit)}: its index cannot be parsed`
    const usual = await this.#usualTree(index, unit)
    if (signal?.aborted) throw Failure.aborted(what, { cause: signal.reason })
    if (usual !== undefined) {
      if (gives === true) giveBack(index)
      return usual
    }
    const task = { index, unit }
    const transferList = gives === true ? taken(index) : []
    try {
      const built = await this.#run('build', task, what, this.#deadlineMs, signal, transferList)
      const { image, digest, chunks, content, parts } = built
      return { image, digest, chunks: new ChunkTable(chunks, content), ...(parts === undefined ? {} : { parts }) }
    } finally {
      if (gives === true) giveBack(index) // it never went
    }
  }

  async #usualTree(index: Uint8Array, unit: Unit): Promise<BuiltTree | undefined> {
    if (index.length > USUAL_MAX_BYTES) return undefined
    this.#running++
    try {
      return await this.#usual?.(index, unit)
    } finally {
      this.#running--
    }
  }

  /**
   * The images of an image's layers, lowest first, as one image.
   * @throws Failure corrupt, limit, timeout
   */
  async merge(images: Uint8Array[]): Promise<Uint8Array> {
    const what = 'the layers cannot be merged'
    const merged = await this.#run('merge', images, what, this.#deadlineMs, undefined)
    return merged.image
  }

  /** As readFiles has it; the image's memory goes with it. @throws Failure corrupt, limit, timeout */
  async filesOf(image: Uint8Array, reads: readonly DeviceRead[]): Promise<readonly ReadFile[]> {
    const task = { image, reads }
    const found = await this.#run('filesOf', task, UNTOLD, this.#deadlineMs, undefined, taken(image))
    return found.files
  }

  /** As wantedChunks has it; the image's memory goes with it. @throws Failure corrupt, limit, timeout, aborted */
  async chunksOf(
    image: Uint8Array,
    chunks: ChunkTable,
    files: readonly ProfileFile[],
    signal?: AbortSignal,
  ): Promise<Uint32Array> {
    const task = { image, chunks: chunks.bytes, files }
    const found = await this.#run('chunksOf', task, UNTOLD, this.#deadlineMs, signal, taken(image))
    return found.wanted
  }

  /**
   * Reads a whole layer (examine.ts). When this settles, however it does, no thread uses the descriptors any more.
   * @throws Failure as examine; limit (out of memory), timeout, aborted
   */
  async examine(examination: Examination, options: BuildOptions = {}): Promise<Examined> {
    const { image, digest: tree, chunks, content, ...seen } = await this.#examined('examine', examination, options)
    return { ...seen, tree: { image, digest: tree, chunks: new ChunkTable(chunks, content) } }
  }

  /** Reads a whole layer for its tar alone (raw-split.ts); as `examine`. */
  async examineRaw(examination: RawExamination, options: BuildOptions = {}): Promise<RawExamined> {
    const lent = this.#isRawLent(examination.layer.size) ? await this.#examinedRawByOthers(examination) : undefined
    const { signal } = options
    if (signal?.aborted) throw Failure.aborted(examinedWhat(examination), { cause: signal.reason })
    return lent ?? (await this.#examined('examineRaw', examination, options))
  }

  /** A layer of so many bytes comes that will be examined: a thread starts meanwhile. It leaves when none has come for a while. */
  expectExamination(bytes: number): void {
    if (this.#examiners.threads.length > 0 || this.#isRawLent(bytes)) return
    this.#examiners.run([], { name: 'readyToExamine' }).catch(() => {}) // whoever examines one is told
  }

  #isRawLent(bytes: number): boolean {
    return this.#lender !== undefined && bytes <= RAW_LENT_MAX_BYTES
  }

  /** To its end, whoever waits: such threads are not stopped. Undefined: the tar is larger than they read. */
  async #examinedRawByOthers(examination: RawExamination): Promise<RawExamined | undefined> {
    const tarMaxBytes = Math.min(examination.tarMaxBytes, RAW_LENT_TAR_MAX_BYTES)
    this.#running++
    try {
      const outcome = await this.#lent({ ...examination, tarMaxBytes }, { name: 'examineRaw', isLong: true })
      if (!('failure' in outcome)) return outcome as RawExamined // the worker's function of that name answers so
      if (outcome.failure.code !== 'limit' || tarMaxBytes === examination.tarMaxBytes) throw failureOf(outcome)
      ftruncateSync(examination.splitFd)
      return undefined
    } finally {
      this.#running--
    }
  }

  async #examined<Name extends 'examine' | 'examineRaw'>(
    name: Name,
    examination: Work[Name][0],
    { signal }: BuildOptions,
  ): Promise<Work[Name][1]> {
    const what = examinedWhat(examination)
    const deadlineMs = this.#deadlineMs + Math.ceil(examination.layer.size / EXAMINED_MIN_BYTES_PER_MS)
    try {
      return await this.#run(name, examination, what, deadlineMs, signal)
    } catch (error) {
      await this.#stoppedExaminers()
      throw error
    }
  }

  /** Before the pool stops any: it forgets them then, and it gives tasks also to threads that are not ready, of which it tells nobody. */
  readonly #watchExaminers = (): void => {
    for (const thread of this.#examiners.threads) {
      if (this.#examining.has(thread)) continue
      this.#examining.add(thread)
      thread.once('exit', () => this.#examining.delete(thread))
    }
  }

  /** The end of the threads that the pool has stopped: it does not wait for them itself. A call to the system is all that keeps one. */
  async #stoppedExaminers(): Promise<void> {
    const { threads } = this.#examiners
    const stopped = [...this.#examining].filter((each) => !threads.includes(each))
    await Promise.all(stopped.map((each) => new Promise((ended) => each.once('exit', ended))))
  }

  async #run<Name extends keyof Work>(
    name: Name,
    task: Work[Name][0],
    what: string,
    deadlineMs: number,
    signal: AbortSignal | undefined,
    transferList: ArrayBuffer[] = [],
  ): Promise<Work[Name][1]> {
    const deadline = AbortSignal.timeout(deadlineMs)
    const stop = signal ? AbortSignal.any([signal, deadline]) : deadline
    let outcome: Results | Failed
    this.#running++
    try {
      const isExamination = name === 'examine' || name === 'examineRaw'
      stop.addEventListener('abort', this.#watchExaminers) // before the pool listens
      const how = { name, signal: stop, transferList }
      const bytes = sizeOf(task)
      const isLent = !isExamination && bytes <= this.#lentMaxBytes
      outcome = isLent
        ? await this.#lent(task, { ...how, isLong: bytes > SHORT_MAX_BYTES })
        : await (isExamination ? this.#examiners : this.#pool).run(task, how)
    } catch (cause) {
      if (signal?.aborted) throw Failure.aborted(what, { cause: signal.reason })
      if (deadline.aborted) throw Failure.timeout(what, { why: `it took longer than ${deadlineMs / 1000} s` })
      if ((cause as { code?: unknown }).code === 'ERR_WORKER_OUT_OF_MEMORY') {
        throw Failure.limit(what, { why: 'it needs more memory than a layer may', cause })
      }
      throw cause
    } finally {
      this.#running--
      stop.removeEventListener('abort', this.#watchExaminers)
    }
    if ('failure' in outcome) throw failureOf(outcome)
    return outcome as Work[Name][1] // the worker's function of that name answers so
  }

  /** Runs the function `name` of another module in a thread that builds trees. @param module its URL @throws what it throws */
  async runHere(module: string, name: string, task: object): Promise<unknown> {
    return await this.#lent(task as Tasks, { filename: module, name }) // the module knows its own
  }

  async #lent(task: Tasks, how: How): Promise<Results | Failed> {
    const here = () => this.#pool.run(task, how)
    return this.#lender === undefined ? await here() : ((await this.#lender.lend(task, how, here)) as Results | Failed) // the same module's
  }

  /** Ends the workers; builds under way fail. */
  async close(): Promise<void> {
    this.#watchExaminers()
    await Promise.all([this.#pool.destroy(), this.#examiners.destroy()])
  }
}

function examinedWhat({ layer }: Pick<Examination, 'layer'>): string {
  return `layer ${layer.digest}: it cannot be examined`
}

function failureOf({ failure: { code, what, why, fix } }: Failed): Failure {
  return new Failure(code, what, { ...(why === undefined ? {} : { why }), ...(fix === undefined ? {} : { fix }) })
}

/** Bytes that are gone through. */
function sizeOf(task: Tasks): number {
  const parts = Array.isArray(task) ? task : 'index' in task ? [task.index] : 'image' in task ? [task.image] : []
  return parts.reduce((sum, { length }) => sum + length, 0)
}
