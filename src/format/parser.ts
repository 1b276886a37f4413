// Parses indexes and builds trees off the main thread.
import { Piscina } from 'piscina'
import { Failure } from '../errors.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import type { Tree } from '../tree/tree.ts'
import type { Format, Layer } from './format.ts'
import type { Built, Failed, Merged, Task } from './worker.ts'

/** Layers of one image parse side by side; more threads would only compete with the codecs' for cores. */
const THREADS = 2
/** A manifest has at most 1024 layers; a second image may come meanwhile. */
const QUEUE_MAX = 4096
/** 2,000,000 entries and the tree over them. */
const HEAP_MAX_MB = 3072
/** The largest index that the limits let through, on a slow machine, queued behind others. */
const DEADLINE_MS = 120_000
/** Workers leave when a burst of lookups is over. */
const IDLE_MS = 10_000

/** The same folder holds worker.ts in a checkout and worker.js in the package. */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url).href

export interface BuildOptions {
  signal?: AbortSignal
}

export class IndexBuilder {
  readonly #pool: Piscina<Task | Uint8Array[], Built | Merged | Failed>
  readonly #deadlineMs: number
  #running = 0

  constructor({ heapMaxMb = HEAP_MAX_MB, deadlineMs = DEADLINE_MS } = {}) {
    this.#deadlineMs = deadlineMs
    this.#pool = new Piscina<Task | Uint8Array[], Built | Merged | Failed>({
      filename: WORKER,
      name: 'build',
      minThreads: 0,
      maxThreads: THREADS,
      maxQueue: QUEUE_MAX,
      idleTimeout: IDLE_MS,
      resourceLimits: { maxOldGenerationSizeMb: heapMaxMb },
    })
  }

  /** Whether something is being parsed, built or merged: work that goes on even when no byte arrives. */
  get busy(): boolean {
    return this.#running > 0
  }

  /**
   * The tree of a layer whose index `format.readIndex` returned. An index on shared memory is not copied.
   * @throws Failure what parseIndex and buildTree throw; limit (out of memory), timeout, aborted
   */
  async build(format: Format, index: Uint8Array, layer: Layer, { signal }: BuildOptions = {}): Promise<Tree> {
    const what = `layer ${layer.descriptor.digest}: its index cannot be parsed`
    const task = { format: format.name, index, layer }
    const built = (await this.#run('build', task, what, signal)) as Built // as the worker's `build` answers
    return { image: built.image, digest: built.digest, chunks: new ChunkTable(built.chunks) }
  }

  /**
   * The images of an image's layers, lowest first, as one image.
   * @throws Failure corrupt, limit, timeout
   */
  async merge(images: Uint8Array[]): Promise<Uint8Array> {
    const merged = (await this.#run('merge', images, 'the layers cannot be merged', undefined)) as Merged // as `merge` answers
    return merged.image
  }

  async #run(
    name: 'build' | 'merge',
    task: Task | Uint8Array[],
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<Built | Merged> {
    const deadline = AbortSignal.timeout(this.#deadlineMs)
    let outcome: Built | Merged | Failed
    this.#running++
    try {
      outcome = await this.#pool.run(task, { name, signal: signal ? AbortSignal.any([signal, deadline]) : deadline })
    } catch (cause) {
      if (signal?.aborted) throw Failure.aborted(what, { cause: signal.reason })
      if (deadline.aborted) throw Failure.timeout(what, { why: `it took longer than ${this.#deadlineMs / 1000} s` })
      if ((cause as { code?: unknown }).code === 'ERR_WORKER_OUT_OF_MEMORY') {
        throw Failure.limit(what, { why: 'it needs more memory than a layer may', cause })
      }
      throw cause
    } finally {
      this.#running--
    }
    if ('failure' in outcome) {
      const { code, what, why, fix } = outcome.failure
      throw new Failure(code, what, { ...(why === undefined ? {} : { why }), ...(fix === undefined ? {} : { fix }) })
    }
    return outcome
  }

  /** Ends the workers; builds under way fail. */
  async close(): Promise<void> {
    await this.#pool.destroy()
  }
}
