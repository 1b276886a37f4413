// Fills a tree's device from whichever layer can. Layers that build the same tree have the same chunks by the same numbers (the image's
// digest covers that), but each has blobs of its own, in a registry of its own: one that fails is passed over for the next, and nobody
// who waits does so for one registry alone.
//
//   asked first   a file that holds a layer's blob, while there is one
//                 a blob that is kept on disk, for another reason
//                 the layer that brought something last, until it fails
//                 the newest layer: its credentials are the freshest
//   asked last    the oldest
import { Failure } from '../errors.ts'
import { fillAll } from '../fetch/fill-all.ts'
import type { Filler } from '../fetch/filler.ts'
import type { Settled } from '../fetch/flight.ts'
import type { Priority } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'

/** What does the filling for one layer. */
export type LayerFiller = Pick<Filler, 'fillEach' | 'close'>

/** Layers of one tree that are asked; more are registries with the same image. One that had to leave comes back when it is opened again. */
const FILLERS_MAX = 4
/** Demand asks the next after that time as well: a request of 4 MiB takes 3 s at 10 Mbit/s, and a read waits 120 s. */
const PATIENCE_MS = 15_000
/** What another registry does no better. */
const OURS = new Set(['aborted', 'system'])

const NOBODY = Failure.aborted('no layer of this tree is open')
const OVER = Failure.aborted('another registry was faster')

/** Who is asked, and whose credentials and silence it depends on. */
interface Member {
  readonly filler: LayerFiller
  readonly origin: string
}

/** A blob that may be on disk. */
export interface Kept {
  isThere(): boolean
  /** Called when it is there for the first time: most never are. */
  filler(): LayerFiller
}

/** A chunk that somebody waits for. */
interface Wish {
  readonly asked: Set<LayerFiller>
  /** Of those who were asked, how many have not answered. */
  open: number
}

export class TreeFiller {
  /** The newest first. */
  #members: readonly Member[] = []
  /** Those whose last word was a failure. */
  readonly #failed = new WeakSet<LayerFiller>()
  /** The one that brought something last, until it fails. */
  #preferred: LayerFiller | undefined
  readonly #files = new Set<LayerFiller>()
  /** By blob; the one that was added first is the first to make room. */
  readonly #kept = new Map<Digest, { kept: Kept; filler?: LayerFiller }>()
  /** Those that made room for others, until they have ended. */
  readonly #leaving = new Set<Promise<void>>()

  /** Whether it is asked: it was added, and made no room for others since. */
  has(filler: LayerFiller): boolean {
    return this.#members.some((each) => each.filler === filler)
  }

  /** Of those that are asked. */
  get origins(): readonly string[] {
    return this.#members.map(({ origin }) => origin)
  }

  /**
   * When there are too many, another one leaves, and is closed; never the preferred. It is one of the origin that has most, and of those
   * one that failed, else the newest: many layers that one registry makes up push out each other, and not whoever was there first.
   */
  add(filler: LayerFiller, origin: string): void {
    this.#members = [{ filler, origin }, ...this.#members]
    if (this.#members.length <= FILLERS_MAX) return
    const ofOrigin = (wanted: string) => this.#members.filter((each) => each.origin === wanted).length
    const failed = (member: Member) => Number(this.#failed.has(member.filler))
    const [leaving] = this.#members
      .filter((each) => each.filler !== filler && each.filler !== this.#preferred)
      .sort((a, b) => ofOrigin(b.origin) - ofOrigin(a.origin) || failed(b) - failed(a))
    if (leaving === undefined) return
    this.#members = this.#members.filter((each) => each !== leaving)
    this.#leave(leaving.filler)
  }

  /** What it was asked for fails now, and is asked of the others. */
  #leave(filler: LayerFiller): void {
    const left: Promise<void> = filler.close().finally(() => this.#leaving.delete(left))
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

  /** Asks a blob on disk first, whenever it is there; what it fails at is asked of the others. */
  addKept(blob: Digest, kept: Kept): void {
    this.#kept.set(blob, { kept })
    if (this.#kept.size <= FILLERS_MAX) return
    const [oldest = blob] = this.#kept.keys()
    const filler = this.#kept.get(oldest)?.filler
    this.#kept.delete(oldest)
    if (filler !== undefined) this.#leave(filler)
  }

  hasKept(blob: Digest): boolean {
    return this.#kept.has(blob)
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
        const told: Settled = (chunk, error, brought) => {
          if (!asking) this.#heard(filler, error, brought) // else the disk told
          const wish = wishes.get(chunk)
          if (wish === undefined) return
          wish.open--
          if (error === undefined || (isOurs(error) && this.has(filler))) end(chunk, error)
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
    if (!ask([...wishes.keys()])) for (const chunk of wishes.keys()) end(chunk, NOBODY)
    else if (priority === 'demand') wait()
  }

  async close(): Promise<void> {
    const open = [...this.#members, ...this.#kept.values()].flatMap(({ filler }) => filler ?? [])
    const closed = [...open, ...this.#files].map((each) => each.close())
    await Promise.all([...closed, ...this.#leaving])
  }

  /** Who is asked next for which of these chunks; those that nobody is left for are not among them. */
  #next(chunks: Iterable<number>, wishes: ReadonlyMap<number, Wish>): Map<LayerFiller, number[]> {
    const preferred = this.#preferred ? [this.#preferred] : []
    const kept = [...this.#kept.values()].flatMap((each) => {
      if (!each.kept.isThere()) return []
      each.filler ??= each.kept.filler()
      return each.filler
    })
    const order = new Set([...this.#files, ...kept, ...preferred, ...this.#members.map(({ filler }) => filler)])
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

  #heard(filler: LayerFiller, error: unknown, brought = false): void {
    if (!this.has(filler)) return
    if (brought) {
      this.#preferred = filler
      this.#failed.delete(filler)
    } else if (error !== undefined && !isOurs(error)) {
      if (this.#preferred === filler) this.#preferred = undefined
      this.#failed.add(filler)
    }
  }
}

function isOurs(error: unknown): boolean {
  return error instanceof Failure && OURS.has(error.code)
}
