// Layers that are shown because they are believed, and that nobody has read whole: each is, one after the other, when the link is idle. No
// setting turns that off. Where it fails it is tried again later; what lies is cut off by whoever is told of the verdict.
import { describe, Failure } from '../errors.ts'
import type { Descriptor } from '../image/manifest.ts'
import { referenceText } from '../image/reference.ts'
import { claimOf } from '../layer/claim.ts'
import { type LayerOpener, openLayer, type ResolvedImage } from '../layer/image.ts'
import type { Verdict } from '../layer/layer.ts'
import type { Layers } from '../layer/layers.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Claim } from '../store/proofs.ts'
import type { NameClaim } from './name-claim.ts'

/** A layer of an image, and what it claims. */
export interface Believed {
  readonly image: ResolvedImage
  readonly descriptor: Descriptor
  readonly claim: NameClaim
}

export interface BelievedProofsParts {
  layers: LayerOpener & Pick<Layers, 'prove'>
  /** Does some work when nobody has used the link for a while. @throws when `signal` aborts, what `work` throws */
  whenIdle(work: () => Promise<unknown>, signal: AbortSignal): Promise<void>
  /** A blob to be read whole beside whoever uses the link, until `hurries`. */
  beside(blob: StoredBlob, hurries: () => boolean): StoredBlob
  /** Is told what a whole blob said. */
  judged(of: Claim, verdict: Verdict): void
  /** Is told that a layer's registry has another blob than its image says. */
  corrupt(claim: NameClaim): void
  /** Waits. @throws when `signal` aborts */
  pause(ms: number, signal: AbortSignal): Promise<unknown>
  /** Milliseconds of a clock that only goes forward. */
  now(): number
  /** Ends what is under way. */
  signal: AbortSignal
  log(message: string): void
}

/** What failed is tried again after that long, and then after twice as long each time. */
const AGAIN_MIN_MS = 300_000
const AGAIN_MAX_MS = 6 * 3_600_000
/** Nobody waits longer for a registry that is slow on purpose: what it brings is read on beside the next. */
const TURN_MS = 300_000
/** So many of those; each has a file on disk, and room promised there. */
const SLOW_MAX = 16

interface Waiting {
  of: Believed
  dueAt: number
  againMs: number
}

export class BelievedProofs {
  readonly #parts: BelievedProofsParts
  /** By claim, in the order in which they came. */
  readonly #waiting = new Map<string, Waiting>()
  readonly #running = new Map<string, { done: Promise<boolean>; hurries: boolean }>()
  #loop: Promise<void> | undefined
  #wake = () => {}

  constructor(parts: BelievedProofsParts) {
    this.#parts = parts
  }

  /** How many are only believed. */
  get size(): number {
    return this.#waiting.size
  }

  /** Has a layer read whole when the link is idle. */
  later(of: Believed): void {
    const key = keyOf(of.claim)
    if (this.#waiting.has(key)) return
    this.#waiting.set(key, { of, dueAt: this.#parts.now(), againMs: AGAIN_MIN_MS })
    this.#wake()
    this.#loop ??= this.#work().finally(() => {
      this.#loop = undefined
    })
  }

  /** The layer of a claim that waits for its proof. */
  of(claim: NameClaim): Believed | undefined {
    return this.#waiting.get(keyOf(claim))?.of
  }

  /** Has a layer read whole at once. Never rejects. @returns whether its blob was read */
  now(of: Believed): Promise<boolean> {
    return this.#prove(of, true)
  }

  /** When all that `signal` ends has ended. */
  async close(): Promise<void> {
    await this.#loop
    await Promise.all([...this.#running.values()].map(({ done }) => done))
  }

  async #work(): Promise<void> {
    const { signal, whenIdle } = this.#parts
    while (this.#waiting.size > 0 && !signal.aborted) {
      const next = [...this.#waiting].reduce((first, each) => (each[1].dueAt < first[1].dueAt ? each : first))
      try {
        if (next[1].dueAt > this.#parts.now()) await this.#until(next[1].dueAt)
        else await whenIdle(() => this.#inTurn(next[1]), signal)
      } catch (error) {
        if (!signal.aborted) throw error
      }
    }
  }

  /** Reads one whole, or goes on after a while with the next. */
  async #inTurn(waiting: Waiting): Promise<void> {
    const { pause, now, signal } = this.#parts
    const over = new AbortController()
    const late = pause(TURN_MS, AbortSignal.any([signal, over.signal])).then(
      () => {
        waiting.dueAt = now() + waiting.againMs
      },
      () => {}, // it was read in time
    )
    const read = this.#prove(waiting.of, false)
    await Promise.race([read, late])
    over.abort()
    while (this.#running.size > SLOW_MAX && !signal.aborted) {
      await Promise.race([...this.#running.values()].map(({ done }) => done))
    }
  }

  /** Or until another one waits. */
  async #until(dueAt: number): Promise<void> {
    const woken = new AbortController()
    this.#wake = () => woken.abort()
    const signal = AbortSignal.any([this.#parts.signal, woken.signal])
    await this.#parts.pause(dueAt - this.#parts.now(), signal).catch(() => {}) // then it is looked at again
    this.#wake = () => {}
  }

  #prove(of: Believed, hurries: boolean): Promise<boolean> {
    const key = keyOf(of.claim)
    const found = this.#running.get(key)
    if (found !== undefined) {
      found.hurries ||= hurries
      return found.done
    }
    const running = { hurries, done: Promise.resolve(false) }
    this.#running.set(key, running)
    running.done = this.#read(of, () => running.hurries).finally(() => this.#running.delete(key))
    return running.done
  }

  async #read(of: Believed, hurries: () => boolean): Promise<boolean> {
    const { layers, beside, judged, corrupt, now, signal, log } = this.#parts
    const { image, descriptor, claim } = of
    const key = keyOf(claim)
    try {
      const layer = await openLayer(image, descriptor, layers)
      if ('why' in layer) throw Failure.unsupported(layer.why)
      try {
        const verdict = await layers.prove(layer, beside(image.blob(descriptor), hurries))
        this.#waiting.delete(key)
        judged(claimOf(layer), verdict)
      } finally {
        await layer.close()
      }
      return true
    } catch (error) {
      if (signal.aborted) return false
      log(`${referenceText(image.reference)}: layer ${descriptor.digest} is still only believed: ${describe(error)}`)
      const code = error instanceof Failure ? error.code : undefined
      if (code === 'corrupt') corrupt(claim)
      if (code === 'unsupported') this.#waiting.delete(key) // every further try would meet that again
      const waiting = this.#waiting.get(key)
      if (waiting !== undefined) {
        waiting.dueAt = now() + waiting.againMs
        waiting.againMs = Math.min(waiting.againMs * 2, AGAIN_MAX_MS)
      }
      return false
    }
  }
}

function keyOf({ diffId, blob, tree, together }: NameClaim): string {
  return `${diffId} ${blob} ${tree} ${together}`
}
