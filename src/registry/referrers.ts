// Documents that refer to an image, in its own repository. Nobody waits for them: they are asked for behind what programs want.
//
//   GET referrers/DIGEST?artifactType=…, and beside it GET manifests/sha256-HEX ──▶ index: the first that names any
//   the newest ──▶ its manifest stands in the index, or GET manifests/DIGEST ──▶ the document stands in that, or GET blobs/DIGEST
import { Failure } from '../errors.ts'
import { ARTIFACT_MAX_BYTES, parseArtifact, parseReferrers, type Referrer, referrersTag } from '../image/artifact.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import { MANIFEST_MAX_BYTES, OCI_INDEX, OCI_MANIFEST } from '../image/manifest.ts'
import type { Absences } from './absences.ts'

/** Asks a repository for a document. */
export interface DocumentSource {
  /** The repository, with its host. */
  readonly name: string
  /** Undefined where there is none. @throws Failure denied, limit, unavailable, timeout, aborted … */
  document(path: string, accept: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined>
}

/** What is wanted. */
export interface WantedReferrer<T> {
  subject: Digest
  type: string
  maxBytes: number
  /** @throws Failure: it is of no use */
  parse(bytes: Uint8Array): T
}

/** Who has pushed none today may do so tomorrow. */
const NONE_MS = 10 * 60_000
/** A registry learns it with its next version. */
const NO_LIST_MS = 60 * 60_000
/** Its bytes do not change. */
const USELESS_MS = 24 * 60 * 60_000
/** Referrers that are of no use, before it is given up: whoever may push may push any number. */
const TRIED_MAX = 4
/** That a registry does not answer says nothing of what it has. */
const NO_ANSWER = new Set(['unavailable', 'timeout', 'aborted'])

export class Referrers {
  readonly #source: DocumentSource
  readonly #absences: Absences

  /** @param absences shared by all of a process */
  constructor(source: DocumentSource, absences: Absences) {
    this.#source = source
    this.#absences = absences
  }

  /** The newest that is of use. @throws Failure unavailable, timeout, aborted, denied */
  async newest<T>(wanted: WantedReferrer<T>, signal: AbortSignal): Promise<T | undefined> {
    const key = `${this.#source.name} ${wanted.subject} ${wanted.type}`
    if (this.#absences.has(key)) return undefined
    const listed = (await this.#list(wanted.subject, wanted.type, signal)) ?? []
    for (const each of listed.slice(0, TRIED_MAX)) {
      const useless = `${key} ${each.digest}`
      if (this.#absences.has(useless)) continue
      const found = await this.#read(each, wanted, signal).catch((error) => {
        if (!(error instanceof Failure) || NO_ANSWER.has(error.code)) throw error
        this.#absences.note(useless, USELESS_MS)
        return undefined
      })
      if (found !== undefined) return found
    }
    this.#absences.note(key, NONE_MS)
    return undefined
  }

  async #list(subject: Digest, type: string, signal: AbortSignal): Promise<Referrer[] | undefined> {
    const { name } = this.#source
    const noTags = `${name} keeps no list under a tag`
    const read = (bytes: Uint8Array | undefined) =>
      bytes && usable(() => parseReferrers(bytes, type, `${name}: referrers of ${subject}`))
    const tagged = async () =>
      read(await this.#ask(`manifests/${referrersTag(subject)}`, OCI_INDEX, MANIFEST_MAX_BYTES, signal))
    const listed = async () => {
      const noList = `${name} lists none`
      if (this.#absences.has(noList)) return undefined
      const path = `referrers/${subject}?artifactType=${encodeURIComponent(type)}`
      const bytes = await this.#ask(path, OCI_INDEX, MANIFEST_MAX_BYTES, signal)
      if (bytes === undefined) this.#absences.note(noList, NO_LIST_MS)
      else this.#absences.note(noTags, NO_LIST_MS)
      return read(bytes)
    }
    if (this.#absences.has(noTags)) return await listed()
    // of a registry of which it is not known, both at once: one after the other is a round trip more, and who does not know the question may
    // first be asked whether he would answer it to somebody whom he knows
    const [byTag, own] = [tagged(), listed()]
    byTag.catch(() => {}) // whoever waits for it hears of it
    const other = own.then((found) => found ?? byTag)
    return await Promise.race([
      other,
      byTag.then(
        (found) => (found?.length ? found : other),
        () => other,
      ),
    ])
  }

  async #read<T>(
    { digest, size, data }: Referrer,
    wanted: WantedReferrer<T>,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    const what = `${this.#source.name}: referrer ${digest}`
    if (size > ARTIFACT_MAX_BYTES) throw Failure.limit(`${what} has ${size} bytes`)
    const manifest = data ?? (await this.#ask(`manifests/${digest}`, OCI_MANIFEST, size, signal))
    if (manifest === undefined) throw Failure.missing(`${what} is not there`)
    checkDigest(manifest, digest, what)
    const { document, bytes } = parseArtifact(manifest, wanted.type, wanted.subject, what)
    if (document.size > wanted.maxBytes) throw Failure.limit(`${what}: its document has ${document.size} bytes`)
    const found = bytes ?? (await this.#ask(`blobs/${document.digest}`, '*/*', document.size, signal))
    if (found === undefined) throw Failure.missing(`${what}: its document is not there`)
    checkDigest(found, document.digest, what)
    return wanted.parse(found)
  }

  /** Undefined also where it refuses the question: it does not know it. @throws Failure unavailable, timeout, aborted */
  async #ask(path: string, accept: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
    try {
      return await this.#source.document(path, accept, maxBytes, signal)
    } catch (error) {
      if (!(error instanceof Failure) || NO_ANSWER.has(error.code)) throw error
      return undefined
    }
  }
}

/** A list that cannot be read names nothing. */
function usable(parse: () => Referrer[]): Referrer[] {
  try {
    return parse()
  } catch (error) {
    if (error instanceof Failure) return []
    throw error
  }
}

function checkDigest(bytes: Uint8Array, want: Digest, what: string): void {
  const got = digestOf(bytes)
  if (got !== want) throw Failure.corrupt(`${what}: want ${want}, got ${got}`)
}
