// Fills a tree's device from whichever layer can. Layers that build the same tree have the same chunks by the same numbers (the image's
// digest covers that), but each has blobs of its own, in a registry of its own: one that fails is passed over for the next, and nobody
// who waits does so for one registry alone.
//
//   asked first   a file that holds the layer's blob, while there is one
//                 the layer that brought something last, until it fails
//                 the newest layer: its credentials are the freshest
//   asked last    the oldest
import { Failure } from '../errors.ts'
import { fillAll } from '../fetch/fill-all.ts'
import type { Filler } from '../fetch/filler.ts'
import type { Priority } from '../image/blob.ts'

/** What does the filling for one layer. */
export type LayerFiller = Pick<Filler, 'fillEach' | 'close'>

/** Layers of one tree that are asked; more are registries with the same image. */
const FILLERS_MAX = 4
/** Demand asks the next after that time as well: a request of 4 MiB takes 3 s at 10 Mbit/s, and a read waits 120 s. */
const PATIENCE_MS = 15_000
/** What another registry does no better. */
const OURS = new Set(['aborted', 'system'])

const OVER = Failure.aborted('another registry was faster')

type Settled = (chunk: number, error?: unknown) => void

/** A chunk that somebody waits for. */
interface Wish {
  readonly asked: Set<LayerFiller>
  /** Of those who were asked, how many have not answered. */
  open: number
}

export class TreeFiller {
  /** The newest first. */
  #fillers: readonly LayerFiller[]
  /** Those whose last word was a failure. */
  readonly #failed = new WeakSet<LayerFiller>()
  /** The one that brought something last, until it fails. */
  #preferred: LayerFiller | undefined
  readonly #files = new Set<LayerFiller>()
  /** Those that made room for others, until they have ended. */
  readonly #leaving = new Set<Promise<void>>()

  constructor(first: LayerFiller) {
    this.#fillers = [first]
  }

  /** One that failed makes room for it, else the oldest that is not preferred. */
  add(filler: LayerFiller): void {
    const oldest = this.#fillers.toReversed()
    this.#fillers = [filler, ...this.#fillers]
    if (this.#fillers.length <= FILLERS_MAX) return
    const leaving = oldest.find((each) => this.#failed.has(each)) ?? oldest.find((each) => each !== this.#preferred)
    this.#fillers = this.#fillers.filter((each) => each !== leaving)
    if (leaving === undefined) return
    // what it was asked for fails now, and is asked of the others
    const left: Promise<void> = leaving.close().finally(() => this.#leaving.delete(left))
    this.#leaving.add(left)
  }

  /** Asks `filler`, which needs no registry, before all others while `work` runs, and closes it then. */
  async withFile(filler: LayerFiller, work: () => Promise<void>): Promise<void> {
    this.#files.add(filler)
    try {
      await work()
    } finally {
      this.#files.delete(filler)
      await filler.close()
    }
  }

  /** Resolves when all of them are verified; otherwise throws the first error when the others are settled. */
  fill(wanted: Iterable<number>, priority: Priority, signal?: AbortSignal): Promise<void> {
    return fillAll(this, wanted, priority, signal)
  }

  /** As Filler.fillEach; a chunk that fails is told of with the error of the layer that failed last. */
  fillEach(wanted: Iterable<number>, priority: Priority, settled: Settled, signal?: AbortSignal): void {
    const wishes = new Map<number, Wish>()
    for (const chunk of wanted) wishes.set(chunk, { asked: new Set(), open: 0 })
    if (wishes.size === 0) return
    const over = new AbortController()
    const stop = () => over.abort(signal?.reason)
    let patience: NodeJS.Timeout | undefined

    const end = (chunk: number, error?: unknown) => {
      wishes.delete(chunk)
      if (wishes.size === 0) {
        clearTimeout(patience)
        signal?.removeEventListener('abort', stop)
        over.abort(OVER) // whoever was too slow need not go on
      }
      settled(chunk, error)
    }
    /** Whether there was anybody left to ask. */
    const ask = (chunks: Iterable<number>): boolean => {
      const next = this.#next(chunks, wishes)
      for (const [filler, some] of next) {
        let asking = true
        const told = (chunk: number, error?: unknown) => {
          if (!asking) this.#heard(filler, error) // else it was here, and it did nothing for it
          const wish = wishes.get(chunk)
          if (wish === undefined) return
          wish.open--
          if (error === undefined || (isOurs(error) && this.#fillers.includes(filler))) end(chunk, error)
          else if (!ask([chunk]) && wish.open === 0) end(chunk, error)
        }
        filler.fillEach(some, priority, told, over.signal)
        asking = false
      }
      return next.size > 0
    }
    const wait = () => {
      if (wishes.size === 0) return
      patience = setTimeout(() => {
        ask([...wishes.keys()])
        wait()
      }, PATIENCE_MS)
    }

    if (signal?.aborted) stop()
    else signal?.addEventListener('abort', stop, { once: true })
    ask([...wishes.keys()])
    if (priority === 'demand') wait()
  }

  async close(): Promise<void> {
    const open = [...this.#fillers, ...this.#files].map((each) => each.close())
    await Promise.all([...open, ...this.#leaving])
  }

  /** Who is asked next for which of these chunks; those that nobody is left for are not among them. */
  #next(chunks: Iterable<number>, wishes: ReadonlyMap<number, Wish>): Map<LayerFiller, number[]> {
    const order = new Set([...this.#files, ...(this.#preferred ? [this.#preferred] : []), ...this.#fillers])
    const next = new Map<LayerFiller, number[]>()
    for (const chunk of chunks) {
      const wish = wishes.get(chunk)
      const filler = wish && order.values().find((each) => !wish.asked.has(each))
      if (wish === undefined || filler === undefined) continue
      wish.asked.add(filler)
      wish.open++
      const some = next.get(filler)
      if (some) some.push(chunk)
      else next.set(filler, [chunk])
    }
    return next
  }

  #heard(filler: LayerFiller, error: unknown): void {
    if (!this.#fillers.includes(filler)) return
    if (error === undefined) {
      this.#preferred = filler
      this.#failed.delete(filler)
    } else if (!isOurs(error)) {
      if (this.#preferred === filler) this.#preferred = undefined
      this.#failed.add(filler)
    }
  }
}

function isOurs(error: unknown): boolean {
  return error instanceof Failure && OURS.has(error.code)
}
