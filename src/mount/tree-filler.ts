// Fills a tree's device from whichever layer can. Layers that build the same tree have the same chunks by the same numbers (the image's
// digest covers that), but each has blobs of its own, in a registry of its own: one that fails is passed over for the next.

import { Failure } from '../errors.ts'
import { fillAll } from '../fetch/fill-all.ts'
import type { Filler } from '../fetch/filler.ts'
import type { Priority } from '../image/blob.ts'

/** What does the filling for one layer. */
export type LayerFiller = Pick<Filler, 'fillEach' | 'close'>

/** Layers of one tree that are asked; more are registries with the same image. */
const FILLERS_MAX = 4
/** What another registry does no better. */
const OURS = new Set(['aborted', 'system'])

export class TreeFiller {
  readonly #fillers: LayerFiller[]

  constructor(first: LayerFiller) {
    this.#fillers = [first]
  }

  add(filler: LayerFiller): void {
    if (this.#fillers.length < FILLERS_MAX) this.#fillers.push(filler)
  }

  /** Resolves when all of them are verified; otherwise throws the first error when the others are settled. */
  fill(wanted: Iterable<number>, priority: Priority, signal?: AbortSignal): Promise<void> {
    return fillAll(this, wanted, priority, signal)
  }

  /** As Filler.fillEach; a chunk that fails is told of with the error of the last layer that was asked. */
  fillEach(
    wanted: Iterable<number>,
    priority: Priority,
    settled: (chunk: number, error?: unknown) => void,
    signal?: AbortSignal,
  ): void {
    this.#ask(0, wanted, priority, settled, signal)
  }

  async close(): Promise<void> {
    await Promise.all(this.#fillers.map((each) => each.close()))
  }

  #ask(
    index: number,
    wanted: Iterable<number>,
    priority: Priority,
    settled: (chunk: number, error?: unknown) => void,
    signal: AbortSignal | undefined,
  ): void {
    const told = (chunk: number, error?: unknown) => {
      const hopeless = error === undefined || (error instanceof Failure && OURS.has(error.code))
      if (hopeless || index + 1 >= this.#fillers.length) settled(chunk, error)
      else this.#ask(index + 1, [chunk], priority, settled, signal)
    }
    this.#fillers[index]?.fillEach(wanted, priority, told, signal)
  }
}
