// Where a tree's bytes come from, so that other images get only what they might have fetched themselves: the repositories that it may have
// bytes of which not everybody gets. It stands beside the device, and is written before the first byte that it is about.
//
//   no record, no chunk stored     nothing is known because nothing is there
//   no record, chunks stored       nobody knows: a cache of before there were records, or damage; it is so for ever
//   private: []                    all of it came without credentials
//   private: [A, B]                some of it may be A's, and some B's
import { basename, dirname, join } from 'node:path'
import { Failure } from '../errors.ts'
import type { Giver } from '../image/blob.ts'
import { type Digest, hex } from '../image/digest.ts'
import { READY_MISSING } from '../tree/ready.ts'
import { lockedFolder, readWhole, removeFile, replaceFile } from './durable.ts'
import type { Locks } from './locks.ts'
import { decodeRecord, encodeRecord, RECORD_MAX_BYTES } from './record.ts'
import { TEMPORARY } from './version.ts'

/** Beside the device. */
export const PROVENANCE_FILE = 'from.json'
/** An image that more repositories have than that is everybody's, or copied between teams: nobody else gets anything of its trees. */
const PRIVATE_MAX = 16

export interface ProvenanceRecord {
  /** Repositories, and layouts, that it may have bytes of that were not given to everybody. null: nobody knows. */
  readonly private: readonly string[] | null
  /** What one of the tree's layers is kept under: its chunk table tells of the device. */
  readonly layer: string
  /** Whose image it was first; a hint. */
  readonly repository: string
}

/** Whether an image of this repository may have bytes of such a tree. */
export function mayHave(record: ProvenanceRecord, repository: string): boolean {
  return record.private?.every((each) => each === repository) ?? false
}

/** What is written down in a tree's folder; 'damaged' counts as `private: null`. @throws Failure system */
export async function readProvenance(folder: string): Promise<ProvenanceRecord | 'damaged' | undefined> {
  const bytes = await readWhole(join(folder, PROVENANCE_FILE), RECORD_MAX_BYTES)
  if (bytes === undefined) return undefined
  return bytes === 'damaged' ? bytes : (decodeProvenance(bytes, basename(folder)) ?? 'damaged')
}

/** @param tree the name of its folder: a record in another's says nothing. @returns undefined: it is not what was written */
export function decodeProvenance(bytes: Uint8Array, tree: string): ProvenanceRecord | undefined {
  const found = decodeRecord(bytes)
  if (typeof found !== 'object' || found === null) return undefined
  if (!('tree' in found && 'private' in found && 'layer' in found && 'repository' in found)) return undefined
  const { private: repositories, layer, repository } = found
  if (found.tree !== tree || typeof layer !== 'string' || !/^[0-9a-f]{64}$/.test(layer)) return undefined
  if (typeof repository !== 'string') return undefined
  if (repositories === null) return { private: null, layer, repository }
  if (!Array.isArray(repositories) || !repositories.every((each) => typeof each === 'string')) return undefined
  return { private: repositories, layer, repository }
}

/** Whose bytes are here: nobody's, such as anybody gets, those of one repository, or others'. */
export type Here = 'nothing' | 'public' | 'own' | 'private'

export interface ProvenanceParts {
  /** Of the tree. */
  folder: string
  locks: Locks
  /** Which its layer is kept under. */
  layer: Digest
  /** The ready bytes of its chunks. @throws what the system throws */
  states(): Promise<Uint8Array>
  /** Is told when the record is another one. */
  kept(): void
}

/** Of a tree whose device is open. */
export class Provenance {
  readonly #parts: ProvenanceParts
  /** What is written down for certain: it only grows, whoever writes. */
  readonly #private = new Set<string>()
  #known: 'nothing' | 'some' | 'unknown' = 'nothing'
  #writing: Promise<void> = Promise.resolve()

  constructor(parts: ProvenanceParts) {
    this.#parts = parts
  }

  /** Whose bytes are stored; 'own': this repository's. @throws what the system throws */
  async here(repository: string): Promise<Here> {
    const found = await readProvenance(this.#parts.folder)
    if (found === undefined) {
      return (await this.#parts.states()).every((state) => state === READY_MISSING) ? 'nothing' : 'private'
    }
    if (found === 'damaged' || !mayHave(found, repository)) return 'private'
    return found.private?.length === 0 ? 'public' : 'own'
  }

  /**
   * Resolves when it is durable that the tree may have bytes of this giver, which may be stored then. Where the disk does not take that,
   * what is there says no more than it knows. @throws Failure timeout: the folder is locked
   */
  async add(giver: Giver): Promise<void> {
    if (this.#covers(giver)) return
    const writing = this.#writing.then(() => this.#write(giver))
    this.#writing = writing.catch(() => {}) // whoever adds is told
    await writing
  }

  #covers({ repository, anonymous }: Giver): boolean {
    return this.#known === 'unknown' || (this.#known === 'some' && (anonymous || this.#private.has(repository)))
  }

  async #write(giver: Giver): Promise<void> {
    if (this.#covers(giver)) return
    const { folder, locks, kept } = this.#parts
    await lockedFolder(locks, folder, async () => {
      const found = await readProvenance(folder)
      const record = await this.#joined(found, giver)
      if (record !== found) {
        await keep(folder, record)
        kept()
      }
      this.#known = record.private === null ? 'unknown' : 'some'
      for (const each of record.private ?? []) this.#private.add(each)
    }).catch(async (error) => {
      if (error instanceof Failure && error.code === 'timeout') throw error
      // an older record would promise too much; without one, and with chunks stored, nobody is promised anything
      await removeFile(join(folder, PROVENANCE_FILE)).catch(() => {}) // a disk that takes nothing: no chunk, either
      this.#known = 'unknown'
    })
  }

  async #joined(found: Awaited<ReturnType<typeof readProvenance>>, giver: Giver): Promise<ProvenanceRecord> {
    const { layer, states } = this.#parts
    const unknown = { private: null, layer: hex(layer), repository: giver.repository }
    if (found === 'damaged') return unknown
    if (found === undefined && (await states()).some((state) => state !== READY_MISSING)) return unknown
    const before: readonly string[] | null = found === undefined ? [] : found.private
    if (before === null || giver.anonymous || before.includes(giver.repository)) {
      return found ?? { ...unknown, private: before }
    }
    return {
      ...(found ?? unknown),
      private: before.length < PRIVATE_MAX ? [...before, giver.repository] : null,
    }
  }
}

async function keep(folder: string, record: ProvenanceRecord): Promise<void> {
  const temporary = join(dirname(dirname(folder)), TEMPORARY)
  await replaceFile(temporary, join(folder, PROVENANCE_FILE), encodeRecord({ ...record, tree: basename(folder) }))
}
