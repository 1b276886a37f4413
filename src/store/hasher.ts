// Hashes large files in a thread of its own: as they are written, and as they were left. The thread leaves when there is nothing to do.
import { Worker } from 'node:worker_threads'
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { diskFailure } from './durable.ts'
import type { Ask, Told } from './hash-worker.ts'

/** A message's part: 5 ms of hashing, so that several files share the thread. */
const PART_BYTES = 8 << 20
/** A file is written no further ahead: what is hashed soon after is read from memory. */
const BEHIND_MAX_BYTES = 32 << 20
const IDLE_MS = 10_000
/** A buffer of 1 MiB and a few hashes. */
const HEAP_MAX_MB = 32

/** The same folder holds hash-worker.ts in a checkout and hash-worker.js in the package. */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './hash-worker.ts' : './hash-worker.js', import.meta.url)

/** The digest of one file. */
export interface Hashing {
  /** All of the file up to `end` may be read now. Waits where hashing falls far behind. @throws Failure system */
  written(end: number): Promise<void>
  /** The digest of all that was written; nothing comes after. @throws Failure system */
  digest(): Promise<Digest>
  /** Resolves when the thread has let go of the file's descriptor, which may be closed then. Never rejects. */
  close(): Promise<void>
}

export class Hasher {
  #worker: Worker | undefined
  #next = 0
  /** Those who wait for an answer, in order. */
  #asked: PromiseWithResolvers<Told>[] = []
  /** Files that are half hashed, by their numbers. */
  readonly #open = new Set<number>()
  #idle: NodeJS.Timeout | undefined

  /** @param fd stays open until `close` of what this returns has resolved */
  begin(fd: number): Hashing {
    const id = this.#next++
    this.#open.add(id)
    const worker = this.#started()
    let [end, hashed] = [0, 0]
    let running: Promise<void> | undefined
    const follow = async () => {
      while (hashed < end) {
        const to = Math.min(end, hashed + PART_BYTES)
        const told = await this.#ask(worker, { id, fd, from: hashed, to })
        if (typeof told === 'object' && 'errno' in told) {
          throw diskFailure('a file of the cache', Object.assign(new Error(told.errno), { code: told.errno }))
        }
        hashed = to
      }
      running = undefined
    }
    const followed = () => {
      if (running === undefined) {
        running = follow()
        running.catch(() => {}) // whoever writes next, or wants the digest, is told
      }
      return running
    }
    return {
      async written(to) {
        end = to
        const following = followed()
        if (end - hashed > BEHIND_MAX_BYTES) await following
      },
      digest: async () => {
        while (hashed < end) await followed()
        this.#open.delete(id)
        const told = await this.#ask(worker, { id, over: 'digest' })
        if (typeof told === 'object' && 'digest' in told) return told.digest
        throw Failure.system('a file of the cache cannot be hashed')
      },
      close: async () => {
        end = hashed
        await running?.catch(() => {}) // it was told to whoever wrote
        if (this.#open.delete(id)) await this.#ask(worker, { id, over: 'forget' }).catch(() => {}) // the thread is gone
      },
    }
  }

  /** The digest of a file of that size. @throws Failure system (its cause has a `code`) */
  async digestOf(fd: number, size: number): Promise<Digest> {
    const hashing = this.begin(fd)
    try {
      await hashing.written(size)
      return await hashing.digest()
    } finally {
      await hashing.close()
    }
  }

  /** Ends the thread. Whatever is being hashed fails. */
  async close(): Promise<void> {
    clearTimeout(this.#idle)
    const worker = this.#worker
    this.#gone(Failure.aborted('the cache was closed'))
    await worker?.terminate()
  }

  /** @param worker which has hashed what came before; another one would begin anew */
  async #ask(worker: Worker, ask: Ask): Promise<Told> {
    if (this.#worker !== worker) throw Failure.system('the thread that hashes has ended')
    const asked = Promise.withResolvers<Told>()
    this.#asked.push(asked)
    worker.ref() // while it is asked, the process lives
    worker.postMessage(ask)
    return await asked.promise
  }

  #started(): Worker {
    clearTimeout(this.#idle)
    if (this.#worker !== undefined) return this.#worker
    const worker = new Worker(WORKER, { resourceLimits: { maxOldGenerationSizeMb: HEAP_MAX_MB } })
    this.#worker = worker
    worker.unref()
    worker.on('message', (told: Told) => {
      this.#asked.shift()?.resolve(told)
      if (this.#asked.length > 0) return
      worker.unref()
      if (this.#open.size === 0) this.#idle = setTimeout(() => void this.close(), IDLE_MS).unref()
    })
    const gone = (failure: Failure) => {
      if (this.#worker === worker) this.#gone(failure)
    }
    worker.on('error', (cause) => gone(Failure.system('the thread that hashes failed', { cause })))
    worker.on('exit', () => gone(Failure.system('the thread that hashes has ended')))
    return worker
  }

  #gone(failure: Failure): void {
    this.#worker = undefined
    for (const { reject } of this.#asked.splice(0)) reject(failure)
  }
}
