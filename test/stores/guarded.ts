// A guard whose proofs are whatever a test says that whole blobs are.
import type { Digest } from '../../src/image/digest.ts'
import type { Verdict } from '../../src/layer/layer.ts'
import type { ContestedName } from '../../src/store/contested.ts'
import type { Believed } from '../../src/stores/believed-proofs.ts'
import { Guard } from '../../src/stores/guard.ts'
import { isSame } from '../../src/stores/name-claim.ts'
import { NameClaims } from '../../src/stores/name-claims.ts'

export interface Guarded {
  guard: Guard
  claims: NameClaims
  /** Layers that are to be proven when the link is idle. */
  waiting: Believed[]
  /** Blobs that were read whole at once. */
  hurried: Digest[]
  /** What lost, as it is kept for the next process. */
  contested: ContestedName[]
  /** Reads what waits, as if the link were idle. */
  idle(): void
}

/** @param read what reading a blob whole says of it, and of the tree that is served for it; undefined: it cannot be read */
export function guarded(
  read: (blob: Digest, tree: Digest) => Verdict | undefined,
  keepsApart = false,
  log: (message: string) => void = () => {},
  contested: ContestedName[] = [],
): Guarded {
  const claims = new NameClaims()
  const waiting: Believed[] = []
  const hurried: Digest[] = []
  const prove = ({ claim: { blob, tree } }: Believed) => {
    const verdict = tree && read(blob, tree)
    if (verdict === undefined || tree === undefined) return false
    claims.judged({ blob, tree }, verdict)
    return true
  }
  const guard = new Guard(
    {
      keepsApart,
      claims,
      proofs: {
        later: (of) => void waiting.push(of),
        of: (claim) => waiting.find((each) => isSame(each.claim, claim)),
        now: async (of) => {
          hurried.push(of.claim.blob)
          return prove(of)
        },
      },
      contested: {
        keep: async (name) => void contested.push(name),
        forget: async ({ tree }) =>
          void contested.splice(0, contested.length, ...contested.filter((each) => each.tree !== tree)),
      },
      progress: () => 0,
      log,
    },
    [...contested],
  )
  const idle = () => {
    for (const each of waiting.splice(0)) if (!prove(each)) waiting.push(each)
  }
  return { guard, claims, waiting, hurried, contested, idle }
}
