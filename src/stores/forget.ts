// Forgets what was listed and nobody uses any more: not now, but for the next start. What is listed stays listed while a process lives,
// because engines keep nothing of a layer but its name, and one that has just been pulled is in no root yet.
import { describe } from '../errors.ts'
import type { ListedImage } from './image-chain.ts'

export interface ForgetParts {
  /** Those of these layers that engines refer to, with all below them; undefined when that cannot be known. */
  inUse(listed: readonly { id: string; parent: string | undefined }[]): Promise<Set<string> | undefined>
  /** Resolves when it is durable. */
  forget(image: ListedImage): Promise<void>
  log(message: string): void
}

/** An image that was listed, its layers from the base up. */
interface Listed {
  image: ListedImage
  ids: readonly string[]
  at: number
}

/** A pull, a pod that waits for its volumes: what was asked for within a day is somebody's. */
const RECENT_MS = 24 * 3_600_000
/** Roots of engines are read as a whole. */
const AGAIN_MS = 3_600_000

export class Forgetter {
  readonly #parts: ForgetParts
  readonly #listed = new Map<string, Listed>()
  #next = 0
  #running: Promise<void> | undefined

  constructor(parts: ForgetParts) {
    this.#parts = parts
  }

  /** An image was listed, or listed again. @param at milliseconds since 1970; 0: in an earlier life */
  note(image: ListedImage, ids: readonly string[], at: number): void {
    this.#listed.set(JSON.stringify(image), { image, ids, at })
  }

  /** Forgets what nobody uses; not more than once in a while, whoever asks. Never rejects. */
  async run(now: number): Promise<void> {
    if (now < this.#next) return await this.#running
    this.#next = now + AGAIN_MS
    this.#running = this.#run(now).catch((error) => {
      this.#parts.log(`what is listed and not used any more cannot be forgotten: ${describe(error)}`)
    })
    await this.#running
  }

  async #run(now: number): Promise<void> {
    const layers = new Map<string, string | undefined>()
    for (const { ids } of this.#listed.values()) for (const [i, id] of ids.entries()) layers.set(id, ids[i - 1])
    const used = await this.#parts.inUse([...layers].map(([id, parent]) => ({ id, parent })))
    if (used === undefined) return
    let forgotten = 0
    for (const [key, { image, ids, at }] of this.#listed) {
      if (now - at < RECENT_MS || ids.some((id) => used.has(id))) continue
      await this.#parts.forget(image)
      this.#listed.delete(key)
      forgotten++
    }
    if (forgotten > 0)
      this.#parts.log(`${forgotten} images that no engine uses are listed until this agent stops, and then no more`)
  }
}
