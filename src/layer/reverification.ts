// What an earlier life stored is verified again in the background, of all layers in turn and a part at a time: what waits costs
// nothing, and a layer that was opened last does not wait for all of the largest.
import type { Priority } from '../image/blob.ts'
import { Limit } from '../limit.ts'
import { READY_STORED } from '../tree/ready.ts'

/** Chunks of a turn. Most layers have fewer: they are done one after the other, so that some are complete soon and not all of them late. */
const CHUNKS_AT_ONCE = 4096

export interface Reverifiable {
  /** Of all its chunks. */
  slots: { states(): Promise<Uint8Array> }
  filler: { fill(wanted: Iterable<number>, priority: Priority, signal: AbortSignal): Promise<void> }
}

export class Reverification {
  readonly #turns = new Limit(1)

  /** Verifies all that is there and is not verified, until `signal`. Never rejects: whoever reads what failed is told. */
  async of({ slots, filler }: Reverifiable, signal: AbortSignal): Promise<void> {
    const states = await slots.states().catch(() => new Uint8Array()) // a disk that does not give it back fails whoever reads
    const stored = [...states.keys()].filter((chunk) => states[chunk] === READY_STORED)
    for (let at = 0; at < stored.length && !signal.aborted; at += CHUNKS_AT_ONCE) {
      const some = stored.slice(at, at + CHUNKS_AT_ONCE)
      await this.#turns.take(() => filler.fill(some, 'prefetch', signal), signal).catch(() => {}) // as above
    }
  }
}
