// What became of layers that were read whole: records proofs/<blob>/<tree>.json in the cache, and their twins. A record is about a blob
// and a tree that claims to be its tar's: whoever names both may rely on it, wherever they come from. <tree>-together.json are about
// layers that show one tree together, where none is its tar's.
import { join } from 'node:path'
import { type Digest, hex, isDigest } from '../image/digest.ts'
import { makeFolderIfTaken } from './durable.ts'
import { type Is, keepTwins, namesOfTwins, peekTwins, readTwins } from './twins.ts'

/** A layer: the digest of its stored bytes, and of the tree that is served for it. */
export interface Claim {
  blob: Digest
  tree: Digest
  /** Whether the layer is one of several that show one tree together; what is said of it so is nothing of the layer alone. */
  together?: boolean
}

/** The whole blob was hashed, and the tar in it; `split` names what engines keep to put the tar together again. */
interface Examined {
  diffId: Digest
  /** Bytes. */
  tarSize: number
  split: Digest
}

/** And the tree is that tar's; or, of layers together, it is what the layer shows, and engines may know it by that DiffID. */
export interface Proof extends Examined {
  verdict: 'proven'
}

/** It is not: a sentence says why. */
export interface Refutation extends Examined {
  verdict: 'refuted'
  why: string
}

const FOLDER = 'proofs'
const NAME = /^([0-9a-f]{64})(-together)?\.json$/

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

  /** Resolves when it is durable. @throws Failure system */
  async keep(claim: Claim, verdict: Proof | Refutation): Promise<void> {
    const name = nameOf(claim)
    await keepTwins(this.#cache, name, { ...claim, ...verdict })
    this.#found.set(name, verdict)
  }

  /**
   * What is known of a blob, whichever tree is served for it.
   * @param together as one of several layers, or alone
   * @throws Failure system
   */
  async about(blob: Digest, together = false): Promise<(Proof | Refutation)[]> {
    const claims = await claimsJudged(this.#cache, blob)
    const found = await Promise.all(claims.filter((each) => isTogether(each) === together).map((each) => this.of(each)))
    return found.filter((each) => each !== undefined)
  }
}

function nameOf(claim: Claim): string {
  return join(FOLDER, hex(claim.blob), `${hex(claim.tree)}${isTogether(claim) ? '-together' : ''}.json`)
}

function isTogether({ together }: Claim): boolean {
  return together === true
}

/** What the cache has of a claim; undefined: nothing that can be read. Changes nothing. @throws Failure system */
export async function readVerdict(cache: string, claim: Claim): Promise<Proof | Refutation | undefined> {
  const record = await peekTwins(cache, nameOf(claim), verdictOn(claim))
  return record && withoutClaim(record)
}

/** The claims about a blob of which the cache has records. Changes nothing. @throws Failure system */
export async function claimsJudged(cache: string, blob: Digest): Promise<Claim[]> {
  const names = await namesOfTwins(cache, join(FOLDER, hex(blob)))
  return names.flatMap((name) => {
    const [, tree, together] = NAME.exec(name) ?? []
    return tree === undefined ? [] : [{ blob, tree: `sha256:${tree}` as const, together: together !== undefined }]
  })
}

function withoutClaim(record: Claim & (Proof | Refutation)): Proof | Refutation {
  const { blob: _, tree: __, together: ___, ...verdict } = record
  return verdict
}

function verdictOn(claim: Claim): Is<Claim & (Proof | Refutation)> {
  return (record): record is Claim & (Proof | Refutation) => isVerdict(record, claim)
}

function isVerdict(record: unknown, claim: Claim): record is Claim & (Proof | Refutation) {
  if (typeof record !== 'object' || record === null) return false
  if (!('blob' in record && 'tree' in record && 'verdict' in record)) return false
  if (record.blob !== claim.blob || record.tree !== claim.tree) return false
  if (('together' in record && record.together === true) !== isTogether(claim)) return false
  if (!('diffId' in record && 'tarSize' in record && 'split' in record)) return false
  if (!isDigest(record.diffId) || !Number.isSafeInteger(record.tarSize) || !isDigest(record.split)) return false
  if (record.verdict === 'proven') return true
  return record.verdict === 'refuted' && 'why' in record && typeof record.why === 'string'
}
