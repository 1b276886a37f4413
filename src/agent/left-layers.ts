// Layers that are left to engines: each said once, and counted by why.
import { type Code, Failure } from '../errors.ts'

/**
 * unsupported  it is not lazy, or bears no name that the engine asks by
 * denied       the registry refuses us
 * unavailable  the registry did not bring it in time
 * corrupt      what it brought is not what the image says
 * other        what the log says; what the image store leaves is counted here
 */
export const LEFT = ['unsupported', 'denied', 'unavailable', 'corrupt', 'other'] as const
export type LeftWhy = (typeof LEFT)[number]

const WHY: Partial<Record<Code, LeftWhy>> = {
  unsupported: 'unsupported',
  denied: 'denied',
  unavailable: 'unavailable',
  timeout: 'unavailable',
  corrupt: 'corrupt',
}
/** Local users choose what they are about, so they are forgotten from time to time. */
const SAID_MAX = 10_000

export class LeftLayers {
  readonly #log: (message: string) => void
  readonly #said = new Set<string>()
  readonly #counts = new Map<LeftWhy, number>()

  constructor(log: (message: string) => void) {
    this.#log = log
  }

  /** @param message that names them */
  leave(message: string, layers: number, why: unknown): void {
    if (this.#said.has(message)) return
    if (this.#said.size >= SAID_MAX) this.#said.clear()
    this.#said.add(message)
    this.#log(message)
    const reason = (why instanceof Failure ? WHY[why.code] : undefined) ?? 'other'
    this.#counts.set(reason, (this.#counts.get(reason) ?? 0) + layers)
  }

  /** How many since the agent began. */
  count(why: LeftWhy): number {
    return this.#counts.get(why) ?? 0
  }
}
