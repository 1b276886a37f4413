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
    const path = this.#path(claim)
    const known = this.#found.get(path)
    if (known !== undefined) return known
    const bytes = await readWhole(path, PROOF_MAX_BYTES)
    if (bytes === undefined) return undefined
    const record = bytes === 'damaged' ? undefined : decodeRecord(bytes)
    if (isVerdict(record, claim)) {
      const { blob: _, tree: __, ...verdict } = record
      this.#found.set(path, verdict)
      return verdict
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
    const path = this.#path(claim)
    await makeFolder(dirname(path))
    await replaceFile(join(this.#cache, TEMPORARY), path, encodeRecord({ blob, tree, ...verdict }))
    this.#found.set(path, verdict)
  }

  /** What is known of a blob, whichever tree is served for it. @throws Failure system */
  async about(blob: Digest): Promise<(Proof | Refutation)[]> {
    const folder = join(this.#cache, FOLDER, hex(blob))
    const names = await fs.readdir(folder).catch((cause) => {
      if (systemCode(cause) === 'ENOENT') return []
      throw diskFailure(folder, cause)
    })
    const trees = names.flatMap((name) =>
      NAME.test(name) ? [`sha256:${name.slice(0, -'.json'.length)}` as const] : [],
    )
    const found = await Promise.all(trees.map((tree) => this.of({ blob, tree })))
    return found.filter((each) => each !== undefined)
  }

  #path({ blob, tree }: Claim): string {
    return join(this.#cache, FOLDER, hex(blob), `${hex(tree)}.json`)
  }
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
