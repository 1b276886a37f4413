// Whose image may show what is here of a tree. Anybody can write another's digests into a manifest, and who knows an index knows them; so an
// image is shown what others fetched only when its own registry, asked with its own credentials, gave a part of it. The record stands beside
// the device and goes with it.
//
//   first   for whom the tree was opened when nothing of it was here: while nobody else may see it, all that is here is theirs
//   shown   who gave a part that was chosen at random
//
// Without a record nobody is known to have anything.
import { basename, dirname, join } from 'node:path'
import { lockedFolder, readWhole, replaceFile } from './durable.ts'
import type { Locks } from './locks.ts'
import { decodeRecord, encodeRecord, RECORD_MAX_BYTES } from './record.ts'
import { TEMPORARY } from './version.ts'

/** Whoever asks: an image's repository, as a Giver has it, and a hash of what it is asked with; '': nothing. */
export interface Scope {
  readonly repository: string
  readonly credentials: string
}

export interface AccessRecord {
  readonly first: Scope | undefined
  readonly shown: readonly Scope[]
}

/** Beside the device. */
export const ACCESS_FILE = 'access.json'
/** Who was shown it longest ago shows once more that he has it. */
const SHOWN_MAX = 256
const NOBODY: AccessRecord = { first: undefined, shown: [] }

export function isSame(a: Scope | undefined, b: Scope): boolean {
  return a?.repository === b.repository && a.credentials === b.credentials
}

/** Whether all that is here came for this one. @param isOwn all of it came from its repository, if not with the same credentials */
export function isAlone({ first, shown }: AccessRecord, scope: Scope, isOwn: boolean): boolean {
  const isOther = (each: Scope) => !isSame(each, scope) && (!isOwn || each.repository === scope.repository)
  return isSame(first, scope) && !shown.some(isOther)
}

/** Of one tree. */
export class AccessFile {
  readonly #folder: string
  readonly #locks: Locks

  /** @param folder of the tree */
  constructor(folder: string, locks: Locks) {
    this.#folder = folder
    this.#locks = locks
  }

  /** What is written down; what is damaged says nothing. @throws Failure system */
  async read(): Promise<AccessRecord> {
    const bytes = await readWhole(join(this.#folder, ACCESS_FILE), RECORD_MAX_BYTES)
    if (bytes === undefined || bytes === 'damaged') return NOBODY
    return decodeAccess(bytes, basename(this.#folder)) ?? NOBODY
  }

  /** It is the first that may see it. @throws Failure system, timeout */
  async begin(first: Scope): Promise<void> {
    await this.#change((record) => ({ ...record, first }))
  }

  /** It gave a part. @throws Failure system, timeout */
  async add(scope: Scope): Promise<void> {
    await this.#change(({ first, shown }) => {
      const others = shown.filter((each) => !isSame(each, scope))
      return { first, shown: [...others, scope].slice(-SHOWN_MAX) }
    })
  }

  async #change(how: (record: AccessRecord) => AccessRecord): Promise<void> {
    await lockedFolder(this.#locks, this.#folder, async () => {
      const { first, shown } = how(await this.read())
      const record = encodeRecord({ tree: basename(this.#folder), first: first ?? null, shown })
      await replaceFile(join(dirname(dirname(this.#folder)), TEMPORARY), join(this.#folder, ACCESS_FILE), record)
    })
  }
}

/** @param tree the name of its folder: a record in another's says nothing. @returns undefined: it is not what was written */
export function decodeAccess(bytes: Uint8Array, tree: string): AccessRecord | undefined {
  const found = decodeRecord(bytes)
  if (typeof found !== 'object' || found === null) return undefined
  if (!('tree' in found && 'first' in found && 'shown' in found) || found.tree !== tree) return undefined
  const { first, shown } = found
  if (!Array.isArray(shown) || !shown.every(isScope) || !(first === null || isScope(first))) return undefined
  return { first: first ?? undefined, shown }
}

function isScope(found: unknown): found is Scope {
  if (typeof found !== 'object' || found === null) return false
  return ['repository', 'credentials'].every((name) => typeof Reflect.get(found, name) === 'string')
}
