// What a cache knows, for commands that change nothing: no folder is made, nothing damaged is dropped, a cache of another version is not
// moved aside, and nobody is kept from any of that. What is damaged, or of another version, says nothing.
import fs from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { mapLimited } from '../limit.ts'
import { type Accepted, acceptedName, isAccepted } from './accepted.ts'
import { peekContested } from './contested.ts'
import { diskFailure, readWhole, systemCode } from './durable.ts'
import { claimsJudged, type Proof, type Refutation, readVerdict } from './proofs.ts'
import { decodeRecord, RECORD_MAX_BYTES } from './record.ts'
import { peekTwins } from './twins.ts'
import { VERSION_MAX_BYTES, versionOf } from './version.ts'

/** What was found out of a blob with one of the trees that are served for it. */
export interface Judged {
  tree: Digest
  verdict: Proof | Refutation
}

/** Each is some hundred bytes; a node has some thousands of layers. */
const RECORDS_AT_ONCE = 64

export class CacheReader {
  readonly #dir: string
  #trees: Promise<Map<Digest, Set<Digest>>> | undefined

  private constructor(dir: string) {
    this.#dir = dir
  }

  /** Undefined where there is no cache of this version. @throws Failure system */
  static async open(dir: string): Promise<CacheReader | undefined> {
    const at = resolve(dir)
    const found = await fs.stat(at).catch((cause) => {
      if (systemCode(cause) === 'ENOENT') return undefined
      throw diskFailure(at, cause)
    })
    if (found?.isDirectory() === false) {
      throw Failure.system(`${at} cannot be used by the cache`, {
        why: 'it is no folder',
        fix: 'Name another with --cache DIR.',
      })
    }
    const version = await readWhole(join(at, 'version'), VERSION_MAX_BYTES)
    return version === undefined || versionOf(version) === 'other' ? undefined : new CacheReader(at)
  }

  /** As Store.accepted. @throws Failure system */
  async accepted(reference: string, manifest: Digest, policy: Digest): Promise<boolean> {
    const accepted: Accepted = { reference, manifest, policy }
    return (await peekTwins(this.#dir, acceptedName(accepted), isAccepted(accepted))) !== undefined
  }

  /** As Proofs.about, with the trees. @throws Failure system */
  async judged(blob: Digest, together = false): Promise<Judged[]> {
    const claims = await claimsJudged(this.#dir, blob)
    const wanted = claims.filter((each) => (each.together === true) === together)
    const found = wanted.map(async (claim): Promise<Judged[]> => {
      const verdict = await readVerdict(this.#dir, claim)
      return verdict === undefined ? [] : [{ tree: claim.tree, verdict }]
    })
    return (await Promise.all(found)).flat()
  }

  /** The DiffIDs that a blob lost to others until it is proven. @throws Failure system */
  async contested(blob: Digest): Promise<Digest[]> {
    return (await peekContested(this.#dir, blob)).map(({ diffId }) => diffId)
  }

  /** The trees that were built from an index, of whatever layer. @throws Failure system */
  async treesOf(index: Digest): Promise<ReadonlySet<Digest>> {
    this.#trees ??= readTrees(join(this.#dir, 'layers'))
    return (await this.#trees).get(index) ?? new Set()
  }
}

/** By the index. */
async function readTrees(folder: string): Promise<Map<Digest, Set<Digest>>> {
  const names = await fs.readdir(folder).catch((cause) => {
    if (systemCode(cause) === 'ENOENT') return []
    throw diskFailure(folder, cause)
  })
  const trees = new Map<Digest, Set<Digest>>()
  await mapLimited(names, RECORDS_AT_ONCE, async (name) => {
    const record = await readRecord(join(folder, name, 'record.json'))
    if (record === undefined) return
    const { indexDigest, tree } = record as { indexDigest?: Digest; tree: Digest } // as keepLayer wrote it
    if (indexDigest !== undefined) trees.set(indexDigest, (trees.get(indexDigest) ?? new Set()).add(tree))
  })
  return trees
}

async function readRecord(path: string): Promise<unknown> {
  const bytes = await readWhole(path, RECORD_MAX_BYTES)
  return bytes === undefined || bytes === 'damaged' ? undefined : decodeRecord(bytes)
}
