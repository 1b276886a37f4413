// Fills a tree's device from whichever layer can. Layers that build the same tree have the same chunks by the same numbers (the image's
// digest covers that), but each has blobs of its own, in a registry of its own: one that fails is passed over for the next, and nobody
// who waits does so for one registry alone.
//
//   asked first   a file that holds a layer's blob, while there is one
//                 a blob that is kept on disk, for another reason
//   asked last    the layers, in the order of candidates.ts
import { Failure } from '../errors.ts'
import { fillAll } from '../fetch/fill-all.ts'
import type { Filler } from '../fetch/filler.ts'
import type { Settled } from '../fetch/flights.ts'
import type { Priority } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import { type Candidate, Candidates, Inquiry, LOOK_MS, Progress } from './candidates.ts'

/** What does the filling for one layer. */
export type LayerFiller = Pick<Filler, 'fillEach' | 'close'>

/** Layers of one tree that are asked; more are registries with the same image. One that had to leave comes back when it is opened again. */
const FILLERS_MAX = 4
/** What another registry does no better. */
const OURS = new Set(['aborted', 'system'])

const NOBODY = Failure.aborted('no layer of this tree is open')
const OVER = Failure.aborted('another registry was faster')

/** Who is asked, and whose credentials and silence it depends on. */
interface Member extends Candidate {
  readonly filler: LayerFiller
}

/** What needs no registry. */
function onDisk(filler: LayerFiller): Member {
  return { filler, origin: undefined, progress: new Progress() }
}

/** A blob that may be on disk. */
export interface Kept {
  isThere(): boolean
  /** Called when it is there for the first time: most never are. */
  filler(): LayerFiller
}

export class TreeFiller {
  readonly #members = new Candidates<Member>(FILLERS_MAX)
  readonly #files = new Set<Member>()
  /** By blob; the one that was added first is the first to make room. */
  readonly #kept = new Map<Digest, { kept: Kept; member?: Member }>()
  /** Those that made room for others, until they have ended. */
  readonly #leaving = new Set<Promise<void>>()
  readonly #watching = new Set<(chunk: number) => void>()

  /** Whether it is asked: it was added, and made no room for others since. */
  has(filler: LayerFiller): boolean {
    return this.#members.all.some((each) => each.filler === filler)
  }

  /** Of those that are asked. */
  get origins(): readonly string[] {
    return this.#members.all.map(({ origin }) => origin as string) // those on disk are no members
  }

  /**
   * When there are too many, another one leaves, and is closed.
   * @param progress of what `filler` reads
   */
  add(filler: LayerFiller, origin: string, progress = new Progress()): void {
    const leaving = this.#members.add({ filler, origin, progress })
    if (leaving !== undefined) this.#leave(leaving.filler)
  }

  /** For a layer that is closed: it is asked no more, and what it was asked for is asked of the others. Resolves when it has ended. */
  async remove(filler: LayerFiller): Promise<void> {
    const member = this.#members.all.find((each) => each.filler === filler)
    if (member === undefined) return
    this.#members.remove(member)
    await filler.close()
  }

  /** What it was asked for fails now, and is asked of the others. */
  #leave(filler: LayerFiller): void {
    const left: Promise<void> = filler.close().finally(() => this.#leaving.delete(left))
    this.#leaving.add(left)
  }

  /** Has `missed` told of the first of the chunks that a program waits for, each time. @returns what ends that */
  watch(missed: (chunk: number) => void): () => void {
    this.#watching.add(missed)
    return () => this.#watching.delete(missed)
  }

  /** Asks `filler`, which needs no registry, before all others while `work` runs, and closes it then. */
  async withFile(filler: LayerFiller, work: () => Promise<void>): Promise<void> {
    const member = onDisk(filler)
    this.#files.add(member)
    try {
      await work()
    } finally {
      this.#files.delete(member)
      await filler.close()
    }
  }

  /** Asks a blob on disk first, whenever it is there; what it fails at is asked of the others. */
  addKept(blob: Digest, kept: Kept): void {
    this.#kept.set(blob, { kept })
    if (this.#kept.size <= FILLERS_MAX) return
    const [oldest = blob] = this.#kept.keys()
    const member = this.#kept.get(oldest)?.member
    this.#kept.delete(oldest)
    if (member !== undefined) this.#leave(member.filler)
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
    const wishes = new Map<number, Inquiry<Member>>()
    for (const chunk of wanted) wishes.set(chunk, new Inquiry())
    if (wishes.size === 0) return
    const over = new AbortController()
    const stop = () => over.abort(signal?.reason)
    let looking: NodeJS.Timeout | undefined

    const end = (chunk: number, error?: unknown) => {
      wishes.delete(chunk)
      if (wishes.size === 0) {
        clearInterval(looking)
        signal?.removeEventListener('abort', stop)
        over.abort(OVER) // whoever was too slow need not go on
      }
      settled(chunk, error)
    }
    /** Whether there was anybody left to ask. */
    const ask = (chunks: Iterable<number>): boolean => {
      const next = this.#next(chunks, wishes)
      for (const [member, some] of next) {
        let asking = true
        const told: Settled = (chunk, error, brought) => {
          if (!asking) this.#heard(member, error, brought) // else the disk told
          const wish = wishes.get(chunk)
          if (wish === undefined) return
          wish.answered(member)
          if (error === undefined || (isOurs(error) && this.has(member.filler))) end(chunk, error)
          else if (!ask([chunk]) && !wish.isOpen) end(chunk, error)
        }
        member.filler.fillEach(some, priority, told, over.signal)
        asking = false
      }
      return next.size > 0
    }
    const look = () => void ask([...wishes].flatMap(([chunk, wish]) => (wish.standsStill ? chunk : [])))

    if (signal?.aborted) stop()
    else signal?.addEventListener('abort', stop, { once: true })
    if (!ask([...wishes.keys()])) for (const chunk of wishes.keys()) end(chunk, NOBODY)
    else if (priority === 'demand' && wishes.size > 0) looking = setInterval(look, LOOK_MS)
    const [missed] = wishes.keys()
    if (priority === 'demand' && missed !== undefined) for (const each of this.#watching) each(missed)
  }

  async close(): Promise<void> {
    const kept = [...this.#kept.values()].flatMap(({ member }) => member ?? [])
    const closed = [...this.#members.all, ...kept, ...this.#files].map(({ filler }) => filler.close())
    await Promise.all([...closed, ...this.#leaving])
  }

  /** Who is asked next for which of these chunks; those that nobody is left for are not among them. */
  #next(chunks: Iterable<number>, wishes: ReadonlyMap<number, Inquiry<Member>>): Map<Member, number[]> {
    const kept = [...this.#kept.values()].flatMap((each) => {
      if (!each.kept.isThere()) return []
      each.member ??= onDisk(each.kept.filler())
      return each.member
    })
    const order = this.#members.order([...this.#files, ...kept])
    const now = performance.now()
    const next = new Map<Member, number[]>()
    for (const chunk of chunks) {
      const wish = wishes.get(chunk)
      const member = wish && this.#members.next(wish, order)
      if (wish === undefined || member === undefined) continue
      wish.ask(member, now)
      const some = next.get(member)
      if (some) some.push(chunk)
      else next.set(member, [chunk])
    }
    return next
  }

  #heard(member: Member, error: unknown, brought = false): void {
    if (brought) this.#members.brought(member)
    else if (error !== undefined && !isOurs(error)) this.#members.failed(member)
  }
}

function isOurs(error: unknown): boolean {
  return error instanceof Failure && OURS.has(error.code)
}
