// The layers that this process found to lie, and whoever shows layers: told of one at once, and asked before each is shown.
import { type Claimant, claimOf } from '../layer/claim.ts'
import type { Claim, Refutation } from '../store/proofs.ts'

/** Called within the turn in which the verdict falls; must not throw. */
export type Door = (claim: Claim) => void

export class Quarantine {
  readonly #layers = new Map<string, Refutation>()
  readonly #doors: Door[] = []

  get size(): number {
    return this.#layers.size
  }

  /**
   * Why a layer must not be shown; undefined: this process knows nothing against it. To be asked in the turn that shows it: then none
   * is shown behind a door's back.
   */
  of(claimant: Claimant): Refutation | undefined {
    return this.#layers.get(keyOf(claimOf(claimant)))
  }

  /** Has `door` told of each layer from now on. */
  watch(door: Door): void {
    this.#doors.push(door)
  }

  add(claim: Claim, refutation: Refutation): void {
    this.#layers.set(keyOf(claim), refutation)
    for (const door of this.#doors) door(claim)
  }
}

/** Whether a layer is the one that is claimed to be what it shows: another's blob with the same tree is not. */
export function isOf(claim: Claim, claimant: Claimant): boolean {
  return keyOf(claim) === keyOf(claimOf(claimant))
}

function keyOf({ blob, tree, together }: Claim): string {
  return `${blob} ${tree} ${together === true}`
}
