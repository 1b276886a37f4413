// What became of layers that were read whole: records proofs/<blob>/<tree>.json in the cache. A record is about a blob and a tree that
// claims to be its tar's: whoever names both may rely on it, wherever they come from.
import fs from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Digest, hex, isDigest } from '../image/digest.ts'
import { diskFailure, makeFolder, readWhole, replaceFile, systemCode } from './durable.ts'
import { decodeRecord, encodeRecord } from './record.ts'
import { TEMPORARY } from './version.ts'

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
/** A refutation names a path, which has at most 4096 bytes. */
const PROOF_MAX_BYTES = 64 << 10

export class Proofs {
  readonly #cache: string
  readonly #warn: (message: string) => void
  /** By path: those that were looked for and found; each is small, and there is one a layer. */
  readonly #found = new Map<string, Proof | Refutation>()

  private constructor(cache: string, warn: (message: string) => void) {
    this.#cache = cache
    this.#warn = warn
  }

  /** @param cache directory of an open Store. @throws Failure system */
  static async open(cache: string, warn: (message: string) => void): Promise<Proofs> {
    await makeFolder(join(cache, FOLDER))
    return new Proofs(cache, warn)
  }

  /** Undefined: it was never examined, or the record is damaged (then a warning says so). @throws Failure system */
  async of(claim: Claim): Promise<Proof | Refutation | undefined> {
    const path = pathOf(this.#cache, claim)
    const known = this.#found.get(path)
    if (known !== undefined) return known
    const found = await readVerdict(this.#cache, claim)
    if (found !== 'damaged') {
      if (found !== undefined) this.#found.set(path, found)
      return found
    }
    this.#warn(`${path} is dropped: it is damaged, or of another version`)
    await fs.unlink(path).catch((cause) => {
      if (systemCode(cause) !== 'ENOENT') throw diskFailure(path, cause)
    })
    return undefined
  }

  /** Resolves when it is durable. @throws Failure system */
  async keep(claim: Claim, verdict: Proof | Refutation): Promise<void> {
    const { blob, tree } = claim
    const path = pathOf(this.#cache, claim)
    await makeFolder(dirname(path))
    await replaceFile(join(this.#cache, TEMPORARY), path, encodeRecord({ blob, tree, ...verdict }))
    this.#found.set(path, verdict)
  }

  /** What is known of a blob, whichever tree is served for it. @throws Failure system */
  async about(blob: Digest): Promise<(Proof | Refutation)[]> {
    const trees = await treesJudged(this.#cache, blob)
    const found = await Promise.all(trees.map((tree) => this.of({ blob, tree })))
    return found.filter((each) => each !== undefined)
  }
}

function pathOf(cache: string, { blob, tree }: Claim): string {
  return join(cache, FOLDER, hex(blob), `${hex(tree)}.json`)
}

/** What the cache has of a claim; undefined: no record. Changes nothing. @throws Failure system */
export async function readVerdict(cache: string, claim: Claim): Promise<Proof | Refutation | 'damaged' | undefined> {
  const bytes = await readWhole(pathOf(cache, claim), PROOF_MAX_BYTES)
  if (bytes === undefined || bytes === 'damaged') return bytes
  const record = decodeRecord(bytes)
  if (!isVerdict(record, claim)) return 'damaged'
  const { blob: _, tree: __, ...verdict } = record
  return verdict
}

/** The trees of a blob of which the cache has records. Changes nothing. @throws Failure system */
export async function treesJudged(cache: string, blob: Digest): Promise<Digest[]> {
  const folder = join(cache, FOLDER, hex(blob))
  const names = await fs.readdir(folder).catch((cause) => {
    if (systemCode(cause) === 'ENOENT') return []
    throw diskFailure(folder, cause)
  })
  return names.flatMap((name) => (NAME.test(name) ? [`sha256:${name.slice(0, -'.json'.length)}` as const] : []))
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
