// What became of layers that were read whole: records proofs/<blob>/<tree>.json in the cache, and their twins. A record is about a blob and a tree that
// claims to be its tar's: whoever names both may rely on it, wherever they come from.
import { join } from 'node:path'
import { describe } from '../errors.ts'
import { type Digest, hex, isDigest } from '../image/digest.ts'
import { isRefusal, makeFolderIfTaken } from './durable.ts'
import { type Is, keepTwins, namesOfTwins, peekTwins, readTwins } from './twins.ts'

/** A layer: the digest of its stored bytes, and of the tree that is served for it. */
export interface Claim {
  blob: Digest
  tree: Digest
}

/** The whole blob was hashed, and the tar in it; `split` names what engines keep to put the tar together again. */
interface Examined {
  diffId: Digest
  /** Bytes. */
  tarSize: number
  split: Digest
}

/** And the tree is that tar's. */
export interface Proof extends Examined {
  verdict: 'proven'
}

/** The tree shows something else than the tar: a sentence says what. */
export interface Refutation extends Examined {
  verdict: 'refuted'
  why: string
}

const FOLDER = 'proofs'
const NAME = /^[0-9a-f]{64}\.json$/

export class Proofs {
  readonly #cache: string
  readonly #warn: (message: string) => void
  /** By name: those that were looked for and found; each is small, and there is one a layer. */
  readonly #found = new Map<string, Proof | Refutation>()

  private constructor(cache: string, warn: (message: string) => void) {
    this.#cache = cache
    this.#warn = warn
  }

  /** @param cache directory of an open Store. @throws Failure system */
  static async open(cache: string, warn: (message: string) => void): Promise<Proofs> {
    await makeFolderIfTaken(join(cache, FOLDER))
    return new Proofs(cache, warn)
  }

  /** Undefined: it was never examined, or nothing is left of the record (then a warning says so). @throws Failure system */
  async of(claim: Claim): Promise<Proof | Refutation | undefined> {
    const name = nameOf(claim)
    const known = this.#found.get(name)
    if (known !== undefined) return known
    const record = await readTwins(this.#cache, name, verdictOn(claim), this.#warn)
    if (record === undefined) return undefined
    const verdict = withoutClaim(record)
    this.#found.set(name, verdict)
    return verdict
  }

  /** Resolves when it is durable; where the disk takes nothing, it counts as long as this process lives. @throws Failure system */
  async keep(claim: Claim, verdict: Proof | Refutation): Promise<void> {
    const { blob, tree } = claim
    const name = nameOf(claim)
    await keepTwins(this.#cache, name, { blob, tree, ...verdict }).catch((error) => {
      if (!isRefusal(error)) throw error
      this.#warn(`what reading layer ${blob} whole said is lost with the next start: ${describe(error)}`)
    })
    this.#found.set(name, verdict)
  }

  /** What is known of a blob, whichever tree is served for it. @throws Failure system */
  async about(blob: Digest): Promise<(Proof | Refutation)[]> {
    const trees = await treesJudged(this.#cache, blob)
    const found = await Promise.all(trees.map((tree) => this.of({ blob, tree })))
    return found.filter((each) => each !== undefined)
  }
}

function nameOf({ blob, tree }: Claim): string {
  return join(FOLDER, hex(blob), `${hex(tree)}.json`)
}

/** What the cache has of a claim; undefined: nothing that can be read. Changes nothing. @throws Failure system */
export async function readVerdict(cache: string, claim: Claim): Promise<Proof | Refutation | undefined> {
  const record = await peekTwins(cache, nameOf(claim), verdictOn(claim))
  return record && withoutClaim(record)
}

/** The trees of a blob of which the cache has records. Changes nothing. @throws Failure system */
export async function treesJudged(cache: string, blob: Digest): Promise<Digest[]> {
  const names = await namesOfTwins(cache, join(FOLDER, hex(blob)))
  return names.flatMap((name) => (NAME.test(name) ? [`sha256:${name.slice(0, -'.json'.length)}` as const] : []))
}

function withoutClaim({ blob: _, tree: __, ...verdict }: Claim & (Proof | Refutation)): Proof | Refutation {
  return verdict
}

function verdictOn(claim: Claim): Is<Claim & (Proof | Refutation)> {
  return (record): record is Claim & (Proof | Refutation) => isVerdict(record, claim)
}

function isVerdict(record: unknown, claim: Claim): record is Claim & (Proof | Refutation) {
  if (typeof record !== 'object' || record === null) return false
  if (!('blob' in record && 'tree' in record && 'verdict' in record)) return false
  if (record.blob !== claim.blob || record.tree !== claim.tree) return false
  if (!('diffId' in record && 'tarSize' in record && 'split' in record)) return false
  if (!isDigest(record.diffId) || !Number.isSafeInteger(record.tarSize) || !isDigest(record.split)) return false
  if (record.verdict === 'proven') return true
  return record.verdict === 'refuted' && 'why' in record && typeof record.why === 'string'
}
