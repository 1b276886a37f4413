// What a layer claims to be by what it shows: verdicts are about that.
import type { Digest } from '../image/digest.ts'
import type { Claim } from '../store/proofs.ts'

/** What of a layer says what it claims. */
export interface Claimant {
  readonly descriptor: { readonly digest: Digest }
  readonly tree: Digest
  /** Undefined: it has a tree of its own. */
  readonly together?: unknown
}

export function claimOf({ descriptor, tree, together }: Claimant): Claim {
  return { blob: descriptor.digest, tree, ...(together === undefined ? {} : { together: true }) }
}
