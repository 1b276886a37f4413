// The snapshots that one containerd knows by one name, on disk before each answer. What is asked of them is answered in the order in which
// it came; reading them waits for nobody.
import { Failure } from '../errors.ts'
import { isDigest } from '../image/digest.ts'
import { makeFolder } from '../store/durable.ts'
import { DAMAGED_NAME, type Durability, Journal } from './journal.ts'
import { KINDS, type Labels, type LazyLayer, type Snapshot, TARGET } from './snapshot.ts'

/** A node has some hundred images and containers; what has more has lost its collector. */
export const SNAPSHOTS_MAX = 100_000
/** containerd's own limit for a key and a value together is 4096. */
const LABELS_MAX_BYTES = 1 << 16
/** The journal is written anew when so many of its lines are history for each that counts, and there are many. */
const HISTORY_MAX = 4
const HISTORY_MIN_LINES = 1_000

/** What a record of the journal says; all of it, or nothing. */
interface Change {
  drop?: string
  put?: Snapshot
}

export interface NewSnapshot extends Pick<Snapshot, 'key' | 'kind' | 'parent' | 'labels' | 'id'> {
  layer?: LazyLayer | undefined
}

export class Snapshots {
  readonly #journal: Journal
  readonly #byKey = new Map<string, Snapshot>()
  /** By the target that they were made for: those that are committed, the latest last. */
  readonly #byTarget = new Map<string, Set<string>>()
  readonly #children = new Map<string, number>()
  #next: number
  #turn: Promise<unknown> = Promise.resolve()

  /** Whether some snapshots were lost: what nobody knows may have been theirs. */
  readonly isDamaged: boolean

  private constructor(journal: Journal, all: readonly Snapshot[], isDamaged: boolean) {
    this.#journal = journal
    this.isDamaged = isDamaged
    this.#next = all.reduce((most, { id }) => Math.max(most, id), 0) + 1
    for (const each of all) this.#put(each)
  }

  /** @param folder is made where it is missing, not those above. @throws Failure system */
  static async open(folder: string, log: (message: string) => void): Promise<Snapshots> {
    await makeFolder(folder)
    const { records, damaged } = await Journal.read(folder)
    const { all, lost } = replay(records)
    const isDamaged = damaged.length > 0 || lost.length > 0
    if (isDamaged) {
      await Journal.setAside(folder, damaged, recordsOf(lost))
      log(
        `${folder}: ${damaged.length} records of snapshots are damaged, and ${lost.length} snapshots stood on them: they are in ${DAMAGED_NAME}; containerd's next collection removes what it knows of them`,
      )
    }
    return new Snapshots(await Journal.write(folder, recordsOf(all)), all, isDamaged)
  }

  get size(): number {
    return this.#byKey.size
  }

  /** The ID of a snapshot to be added, which no other one has. */
  reserve(): number {
    return this.#next++
  }

  get(key: string): Snapshot | undefined {
    return this.#byKey.get(key)
  }

  /** In no order. */
  all(): MapIterator<Snapshot> {
    return this.#byKey.values()
  }

  /** Those that were made for a target, the latest first: containerd takes the first. */
  madeFor(target: string): Snapshot[] {
    return [...(this.#byTarget.get(target) ?? [])].reverse().flatMap((key) => this.#byKey.get(key) ?? [])
  }

  /** It and what it stands on, from the top down. */
  chain(snapshot: Snapshot): Snapshot[] {
    const chain = [snapshot]
    for (let { parent } = snapshot; parent !== ''; ) {
      const below = this.#byKey.get(parent)
      if (below === undefined) throw new TypeError(`a snapshot whose parent ${parent} is gone`) // it has a child
      chain.push(below)
      parent = below.parent
    }
    return chain
  }

  /** @throws Failure exists; missing: its parent; unsupported: what that is; limit; system */
  add(wanted: NewSnapshot): Promise<Snapshot> {
    return this.#inTurn('synced', () => {
      const { key, kind, parent, labels, id, layer } = wanted
      if (this.#byKey.has(key)) throw Failure.exists(`snapshot ${key} is there already`)
      this.#checkParent(parent)
      checkLabels(labels)
      if (this.#byKey.size >= SNAPSHOTS_MAX) throw Failure.limit(`there are ${SNAPSHOTS_MAX} snapshots already`)
      const now = Date.now()
      const made = { key, kind, parent, labels, createdAt: now, updatedAt: now, id }
      const put: Snapshot = layer === undefined ? made : { ...made, layer }
      return { change: { put }, result: put }
    })
  }

  /**
   * What was written is a layer from now on.
   * @param parent '': as it is; else that of one that has none
   * @throws Failure exists; missing; unsupported: it is not written to; system
   */
  commit(key: string, name: string, labels: Labels, parent: string): Promise<Snapshot> {
    return this.#inTurn('synced', () => {
      const active = this.#found(key)
      if (active.kind !== 'active') throw Failure.unsupported(`snapshot ${key} is not active`)
      if (this.#byKey.has(name)) throw Failure.exists(`snapshot ${name} is there already`)
      if (parent !== '' && active.parent !== '' && parent !== active.parent)
        throw Failure.unsupported(`snapshot ${key} has a parent already`)
      if (parent !== '') this.#checkParent(parent)
      const all = { ...active.labels, ...labels }
      checkLabels(all)
      const put: Snapshot = {
        ...active,
        key: name,
        kind: 'committed',
        parent: parent === '' ? active.parent : parent,
        labels: all,
        updatedAt: Date.now(),
      }
      return { change: { drop: key, put }, result: put }
    })
  }

  /** Its directory is the caller's to remove. @throws Failure missing; unsupported: others stand on it; system */
  remove(key: string): Promise<Snapshot> {
    return this.#inTurn('synced', () => {
      const found = this.#found(key)
      if (this.#children.has(key)) throw Failure.unsupported(`others stand on snapshot ${key}`)
      return { change: { drop: key }, result: found }
    })
  }

  /** @param change gives the labels that it is to have. @throws Failure missing, system; as `change` */
  relabel(key: string, change: (labels: Labels) => Labels): Promise<Snapshot> {
    // clients put labels on for the length of a mount, and take them off: that costs no wait for the disk
    return this.#inTurn('written', () => {
      const found = this.#found(key)
      const labels = change(found.labels)
      checkLabels(labels)
      const put = { ...found, labels, updatedAt: Date.now() }
      return { change: { put }, result: put }
    })
  }

  /** A lazy layer shows another one from now on. @throws Failure missing; unsupported: it does not show `before` any more; system */
  reshow(key: string, before: LazyLayer, layer: LazyLayer): Promise<Snapshot> {
    return this.#inTurn('synced', () => {
      const found = this.#found(key)
      if (found.layer !== before) throw Failure.unsupported(`snapshot ${key} shows another layer by now`)
      const put = { ...found, layer }
      return { change: { put }, result: put }
    })
  }

  async close(): Promise<void> {
    await this.#turn
    await this.#journal.close()
  }

  #inTurn<T>(durability: Durability, work: () => { change: Change; result: T }): Promise<T> {
    const done = this.#turn.then(async () => {
      const { change, result } = work()
      await this.#journal.append([change], durability, () => this.#records())
      this.#apply(change)
      await this.#tidy()
      return result
    })
    this.#turn = done.catch(() => {}) // whoever asked is told
    return done
  }

  async #tidy(): Promise<void> {
    const { lines } = this.#journal
    if (lines < HISTORY_MIN_LINES || lines < this.#byKey.size * HISTORY_MAX) return
    await this.#journal.rewrite(this.#records()).catch(() => {}) // what comes next tries again, and is refused if it cannot
  }

  #records(): Iterable<object> {
    return recordsOf(this.#byKey.values())
  }

  #found(key: string): Snapshot {
    const found = this.#byKey.get(key)
    if (found === undefined) throw Failure.missing(`there is no snapshot ${key}`)
    return found
  }

  #checkParent(parent: string): void {
    if (parent !== '' && this.#found(parent).kind !== 'committed')
      throw Failure.unsupported(`parent ${parent} is not committed`)
  }

  #apply({ drop, put }: Change): void {
    if (drop !== undefined) this.#drop(drop)
    if (put !== undefined) this.#put(put)
  }

  /** In the place of one of the same key. */
  #put(snapshot: Snapshot): void {
    const { key, parent } = snapshot
    const before = this.#byKey.get(key)
    const target = targetOf(snapshot)
    if (before !== undefined && targetOf(before) !== target) this.#forgetTarget(before)
    this.#byKey.set(key, snapshot)
    if (before === undefined && parent !== '') this.#children.set(parent, (this.#children.get(parent) ?? 0) + 1)
    if (target !== undefined) this.#byTarget.set(target, (this.#byTarget.get(target) ?? new Set()).add(key))
  }

  #drop(key: string): void {
    const found = this.#byKey.get(key)
    if (found === undefined) return
    this.#byKey.delete(key)
    this.#forgetTarget(found)
    const left = (this.#children.get(found.parent) ?? 0) - 1
    if (left > 0) this.#children.set(found.parent, left)
    else this.#children.delete(found.parent)
  }

  #forgetTarget(snapshot: Snapshot): void {
    const target = targetOf(snapshot)
    const made = target === undefined ? undefined : this.#byTarget.get(target)
    made?.delete(snapshot.key)
    if (target !== undefined && made?.size === 0) this.#byTarget.delete(target)
  }
}

/** What a layer is found by. */
function targetOf({ kind, labels }: Snapshot): string | undefined {
  return kind === 'committed' ? labels[TARGET] : undefined
}

function* recordsOf(all: Iterable<Snapshot>): Generator<Change> {
  for (const put of all) yield { put }
}

/** What the records of a journal come to. @returns `lost`: those that stood on one that is not there */
function replay(records: readonly unknown[]): { all: Snapshot[]; lost: Snapshot[] } {
  const all = new Map<string, Snapshot>()
  for (const record of records) {
    if (!isObject(record)) continue
    if (typeof record.drop === 'string') all.delete(record.drop)
    if (isSnapshot(record.put)) all.set(record.put.key, record.put)
  }
  const lost: Snapshot[] = []
  for (let before = -1; before !== lost.length; ) {
    before = lost.length
    for (const each of all.values())
      if (each.parent !== '' && !all.has(each.parent) && all.delete(each.key)) lost.push(each)
  }
  return { all: [...all.values()], lost }
}

function checkLabels(labels: Labels): void {
  const bytes = Object.entries(labels).reduce((sum, [key, value]) => sum + key.length + value.length, 0)
  if (bytes > LABELS_MAX_BYTES) throw Failure.limit(`a snapshot with ${bytes} bytes of labels`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function isSnapshot(value: unknown): value is Snapshot {
  if (!isObject(value)) return false
  const { key, kind, parent, labels, createdAt, updatedAt, id, layer } = value
  const texts = [key, parent].every((each) => typeof each === 'string')
  const numbers = [createdAt, updatedAt, id].every((each) => Number.isSafeInteger(each))
  const isKind = KINDS.some((each) => each === kind)
  const isLabels = isObject(labels) && Object.values(labels).every((each) => typeof each === 'string')
  return texts && numbers && isKind && isLabels && (layer === undefined || isLazyLayer(layer))
}

function isLazyLayer(value: unknown): value is LazyLayer {
  if (!isObject(value)) return false
  const { reference, manifest, place, diffId, blob, index, tree, together } = value
  const digests = [manifest, diffId, blob, tree].every(isDigest) && (index === undefined || isDigest(index))
  return digests && typeof reference === 'string' && Number.isSafeInteger(place) && typeof together === 'boolean'
}
