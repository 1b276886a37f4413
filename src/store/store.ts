// The disk cache of one user: what was fetched and verified, and what was built from it.
//
//   version                     whose it is (version.ts)
//   tmp/                        files on their way (durable.ts); emptied by whoever is alone
//   objects/<hex>               manifests and configs by digest
//   layers/<layer>/chunks       a layer's chunk table; layers/<layer>/record.json says which tree it belongs to: written last
//   trees/<tree>/image          the EROFS image; device and ready (slots.ts) beside it, but for merged images
//   merged/<key>.json           layers put together -> the image of the whole
//   references/<hex>.json       reference and platform -> manifest, so that a restart needs no network
//   accepted/<hex>.json         images whose signatures a policy accepted
//   pins/<hex>.json             images whose trees keep all they have (pins.ts)
//   slots/<n>                   numbers of trees and of their inodes (numbers.ts)
//   twins/                      second copies of listed, proofs, references, contested and accepted (twins.ts)
//   listed/ proofs/ wholes/     what engines were shown, and of layers that were read whole: listings.ts, proofs.ts, wholes.ts
//   contested/                  names that layers lost to other images: contested.ts
//
// Several processes use it at once: files appear whole and are never changed in place (device and ready, which are, have their
// own locks), so a reader needs no lock. Whatever fails its digest is dropped or renamed, counted, and reported as absent.
import fs, { type FileHandle } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { describe, Failure } from '../errors.ts'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { CONFIG_MAX_BYTES } from '../image/manifest.ts'
import type { Part } from '../image/part.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import type { Tree } from '../tree/tree.ts'
import { type CacheSize, removeAside, sizeOf } from './aside.ts'
import { Device } from './device.ts'
import type { Disk } from './disk.ts'
import {
  diskFailure,
  dropDamaged,
  makeFolder,
  openTemporary,
  readWhole,
  replaceFile,
  setAside,
  systemCode,
} from './durable.ts'
import { openHashed } from './hash.ts'
import type { Locks } from './locks.ts'
import { Numbers, type TreeNumbers } from './numbers.ts'
import { Pins } from './pins.ts'
import { Proofs } from './proofs.ts'
import { decodeRecord, encodeRecord, RECORD_MAX_BYTES } from './record.ts'
import { Room } from './room.ts'
import type { RoomLimits } from './room-limits.ts'
import { Slots } from './slots.ts'
import { type Is, keepTwins, readTwins, TWINS } from './twins.ts'
import { enterCache, TEMPORARY } from './version.ts'
import { WholeFiles } from './wholes.ts'

/** What is known of a layer beside its tree. */
export interface LayerRecord {
  format: string
  /** The identity engines know its index by, if it has one. */
  indexDigest?: Digest
  /** Bytes of the layer's tar, as claimed. */
  tarSize?: number
  /** Where the layer shows one tree for several: what its index says of the others. */
  parts?: readonly Part[]
}

export interface KeptLayer {
  record: LayerRecord
  chunks: ChunkTable
  /** Of the image. */
  tree: Digest
}

export interface KeptMerge {
  /** Of the merged image, for openImage. */
  image: Digest
  /** The trees whose devices are the image's device slots 1…n. */
  trees: readonly Digest[]
}

export interface KeptReference {
  manifest: Digest
  /** When it was resolved: milliseconds since 1970. */
  at: number
}

/** What was found damaged since this process began. */
export interface StoreCounters {
  readonly corruptObjects: number
  readonly corruptRecords: number
  readonly corruptImages: number
  /** Devices set aside because they or their ready files did not match. */
  readonly corruptDevices: number
}

const FOLDERS = ['objects', 'layers', 'trees', 'merged', 'references', 'accepted', 'slots', 'pins', TWINS]
/** 3.5 million chunks with a check and a place each (119 bytes): more than any index may have. */
const CHUNK_TABLE_MAX_BYTES = 400 << 20
/** Every file is looked at. */
const SIZE_AGAIN_MS = 60_000
const TABLE_DIGEST_BYTES = 32

/** How much room the cache has, and what makes it; without `disk` it has no limit. */
export interface StoreRoom {
  disk?: Disk
  limits?: RoomLimits
}

export class Store {
  readonly dir: string
  readonly pins: Pins
  readonly room: Room
  readonly #disk: Disk | undefined
  readonly #locks: Locks
  readonly #warn: (message: string) => void
  readonly #lock: FileHandle
  /** Of what earlier starts set aside. */
  readonly #removing: Promise<void>
  #size: { at: number; size: Promise<CacheSize> } | undefined
  readonly #numbers: Numbers
  readonly proofs: Proofs
  readonly wholes: WholeFiles
  readonly #counters = { corruptObjects: 0, corruptRecords: 0, corruptImages: 0, corruptDevices: 0 }

  private constructor(
    dir: string,
    locks: Locks,
    warn: (message: string) => void,
    lock: FileHandle,
    { proofs, wholes, removing }: Pick<Store, 'proofs' | 'wholes'> & { removing: Promise<void> },
    { disk, limits }: StoreRoom,
  ) {
    this.#removing = removing
    this.dir = dir
    this.pins = new Pins(dir)
    this.#disk = disk
    const [others, pinned] = [() => wholes.all(), () => this.pins.trees()]
    this.room = new Room({ dir, locks, disk, ...(limits === undefined ? {} : { limits }), others, pinned, warn })
    this.proofs = proofs
    this.wholes = wholes
    this.#locks = locks
    this.#warn = warn
    this.#lock = lock
    this.#numbers = new Numbers(join(dir, 'slots'), join(dir, TEMPORARY), locks, join(dir, TWINS, 'slots.json'))
  }

  /**
   * Opens the cache in `dir`, or makes it. `warn` gets a sentence for everything that is set aside.
   * @throws Failure usage (`dir` holds something else), unsupported (another version is running on it), timeout, system
   */
  static async open(dir: string, locks: Locks, warn: (message: string) => void, room: StoreRoom = {}): Promise<Store> {
    const at = resolve(dir)
    const startedAt = Date.now()
    const { lock, alone, aside } = await enterCache(at, locks, warn)
    try {
      for (const folder of FOLDERS) await makeFolder(join(at, folder))
      const parts = { proofs: await Proofs.open(at, warn), wholes: await WholeFiles.open(at, warn) }
      // nobody waits for it; what fails is tried again by the next start
      const removing = alone
        ? removeAside(at, aside, startedAt, locks).catch((error) =>
            warn(`what was set aside in ${at} cannot be removed: ${describe(error)}`),
          )
        : Promise.resolve()
      return new Store(at, locks, warn, lock, { ...parts, removing }, room)
    } catch (error) {
      await lock.close()
      throw error
    }
  }

  get counters(): StoreCounters {
    return this.#counters
  }

  /** What all of it takes on disk, as of less than a minute ago. @throws Failure system */
  async size(): Promise<CacheSize> {
    const now = performance.now()
    if (this.#size === undefined || now - this.#size.at > SIZE_AGAIN_MS) {
      const size = sizeOf(this.dir)
      this.#size = { at: now, size }
      size.catch(() => {}) // the caller hears of it
    }
    try {
      return await this.#size.size
    } catch (cause) {
      throw diskFailure(this.dir, cause)
    }
  }

  /** Lets go of the cache; slots and images that are open stay so. */
  async close(): Promise<void> {
    await this.room.close()
    await this.#removing
    await this.wholes.close()
    await this.#lock.close()
  }

  /** Keeps a manifest or a config. @throws Failure corrupt (not the bytes of `digest`), limit, system */
  async putObject(digest: Digest, bytes: Uint8Array): Promise<void> {
    if (bytes.length > CONFIG_MAX_BYTES) throw Failure.limit(`object ${digest} has more than ${CONFIG_MAX_BYTES} bytes`)
    const found = digestOf(bytes)
    if (found !== digest) throw Failure.corrupt(`object ${digest} has the digest ${found}`)
    await this.#replace(this.#path('objects', hex(digest)), bytes)
  }

  /** @throws Failure system */
  async getObject(digest: Digest): Promise<Uint8Array | undefined> {
    const path = this.#path('objects', hex(digest))
    const bytes = await readWhole(path, CONFIG_MAX_BYTES)
    if (bytes === undefined) return undefined
    if (bytes !== 'damaged' && digestOf(bytes) === digest) return bytes
    this.#counters.corruptObjects++
    await this.#drop(path, 'it differs from its digest')
    return undefined
  }

  /** Keeps what was built from a layer. An image that is there already stays. @throws Failure system */
  async keepLayer(layer: Digest, record: LayerRecord, tree: Tree): Promise<void> {
    await this.#withRoom(() => this.#keepLayer(layer, record, tree))
  }

  async #keepLayer(layer: Digest, record: LayerRecord, tree: Tree): Promise<void> {
    await this.#keepImage(tree.digest, tree.image)
    const folder = this.#path('layers', hex(layer))
    await makeFolder(folder)
    await this.#replace(join(folder, 'chunks'), tree.chunks.bytes)
    const table = tableDigest(tree.chunks.bytes)
    await this.#keepRecord(join(folder, 'record.json'), { ...record, tree: tree.digest, table })
  }

  /** @throws Failure system */
  async layer(layer: Digest): Promise<KeptLayer | undefined> {
    const folder = this.#path('layers', hex(layer))
    const path = join(folder, 'record.json')
    // as keepLayer wrote it
    const found = (await this.#record(path)) as (LayerRecord & { tree: Digest; table: Digest }) | undefined
    if (found === undefined) return undefined
    const { tree, table, ...record } = found
    const bytes = await readWhole(join(folder, 'chunks'), CHUNK_TABLE_MAX_BYTES)
    // a crash can leave the table of one version beside the record of another: the record's digest of it tells
    if (bytes !== undefined && bytes !== 'damaged' && tableDigest(bytes) === table) {
      try {
        return { record, tree, chunks: new ChunkTable(bytes) }
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        if (error.code === 'unsupported') {
          await this.#drop(path, 'its chunk table is of another version: it is built again')
          return undefined
        }
      }
    }
    this.#counters.corruptRecords++
    await this.#drop(path, 'its chunk table is damaged')
    return undefined
  }

  /** Keeps the merged image of several layers under `key`, which the caller derives from them. @throws Failure system */
  async keepMerged(key: Digest, image: Uint8Array, merged: KeptMerge): Promise<void> {
    await this.#keepImage(merged.image, image)
    await this.#keepRecord(this.#path('merged', `${hex(key)}.json`), { image: merged.image, trees: merged.trees })
  }

  /** @throws Failure system */
  async merged(key: Digest): Promise<KeptMerge | undefined> {
    return (await this.#record(this.#path('merged', `${hex(key)}.json`))) as KeptMerge | undefined // as keepMerged wrote it
  }

  /** Remembers what a tag meant. @throws Failure system */
  async keepReference(reference: string, platform: string, manifest: Digest): Promise<void> {
    await keepTwins(this.dir, referenceName(reference, platform), { reference, platform, manifest, at: Date.now() })
  }

  /** @throws Failure system */
  async reference(reference: string, platform: string): Promise<KeptReference | undefined> {
    const is = (record: unknown): record is KeptReference =>
      says(record, { reference, platform }) && 'manifest' in record && isDigest(record.manifest) && 'at' in record
    const found = await readTwins(this.dir, referenceName(reference, platform), is, (why) => this.#foundDamaged(why))
    return found === undefined ? undefined : { manifest: found.manifest, at: found.at }
  }

  /** Remembers that a policy accepted an image's signature. @throws Failure system */
  async keepAccepted(reference: string, manifest: Digest, policy: Digest): Promise<void> {
    const accepted: Accepted = { reference, manifest, policy }
    await keepTwins(this.dir, acceptedName(accepted), accepted)
  }

  /** Whether that was ever remembered. @throws Failure system */
  async accepted(reference: string, manifest: Digest, policy: Digest): Promise<boolean> {
    const accepted: Accepted = { reference, manifest, policy }
    const found = (why: string) => this.#foundDamaged(why)
    return (await readTwins(this.dir, acceptedName(accepted), isAccepted(accepted), found)) !== undefined
  }

  /**
   * A tree's image, all of it hashed just now. Undefined when it is absent or differs from its digest; then it was renamed, and
   * the caller builds it again. The caller closes it.
   * @throws Failure system
   */
  async openImage(tree: Digest): Promise<FileHandle | undefined> {
    const path = this.#path('trees', hex(tree), 'image')
    const image = await openHashed(path, tree)
    if (image === undefined || !('found' in image)) return image
    this.#counters.corruptImages++
    this.#warn(`${path} is damaged (its digest is ${image.found ?? 'unknown: it cannot be read'}): it is built again`)
    try {
      await setAside(path)
    } catch (cause) {
      throw diskFailure(path, cause)
    }
    return undefined
  }

  /**
   * A tree's device, made if need be. The caller closes it.
   * @param refetchable whether what is taken back of it could be fetched again now
   * @throws Failure system, timeout
   */
  async openSlots(tree: Digest, chunks: ChunkTable, refetchable = () => false): Promise<Device> {
    const name = hex(tree)
    const folder = this.#path('trees', name)
    await this.#withRoom(() => makeFolder(folder))
    const aside = (why: string) => {
      this.#counters.corruptDevices++
      this.#warn(`${why}: it is set aside, and its contents are fetched again`)
    }
    const parts = { locks: this.#locks, disk: this.#disk, temporary: this.#path(TEMPORARY), aside }
    const slots = await this.#withRoom(() => Slots.open(folder, chunks, parts))
    return new Device(name, slots, chunks, this.room, refetchable)
  }

  /**
   * The numbers of a tree where it is shown as `name`: the same for ever, given now if it has none.
   * @throws Failure limit, system, timeout
   */
  numbersOf(tree: Digest, name = ''): Promise<TreeNumbers> {
    const shown = name === '' ? tree : digestOf(new TextEncoder().encode(`${tree} ${name}`))
    return this.#numbers.of(shown, async () => {
      const path = this.#path('trees', hex(tree), 'image')
      try {
        return (await fs.stat(path)).size
      } catch (cause) {
        throw diskFailure(path, cause)
      }
    })
  }

  /** An empty file without a name, gone when it is closed. @throws Failure system */
  async temporary(): Promise<FileHandle> {
    const { file, path } = await openTemporary(this.#path(TEMPORARY))
    try {
      await fs.unlink(path)
      return file
    } catch (cause) {
      await file.close()
      throw diskFailure(path, cause)
    }
  }

  #path(...names: string[]): string {
    return join(this.dir, ...names)
  }

  #replace(path: string, bytes: Uint8Array): Promise<void> {
    return this.#withRoom(() => replaceFile(this.#path(TEMPORARY), path, bytes))
  }

  /** Does it again on a full disk, when contents that can be fetched again have made room for what says what they are. */
  async #withRoom<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      const code = error instanceof Failure ? systemCode(error.cause) : undefined
      if (this.#disk === undefined || (code !== 'ENOSPC' && code !== 'EDQUOT')) throw error
      await this.room.relieve()
      return await work()
    }
  }

  async #keepImage(tree: Digest, image: Uint8Array): Promise<void> {
    const folder = this.#path('trees', hex(tree))
    await makeFolder(folder)
    const path = join(folder, 'image')
    // one that is intact may be mounted, and is never replaced; of one that is not the kernel would read other bytes than ours
    const there = await openHashed(path, tree)
    if (there !== undefined && !('found' in there)) await there.close()
    else await this.#replace(path, image)
  }

  /** Its name is part of it: a record in another's place says nothing. */
  #keepRecord(path: string, record: object): Promise<void> {
    return this.#replace(path, encodeRecord({ ...record, name: relative(this.dir, path) }))
  }

  async #record(path: string): Promise<unknown> {
    const bytes = await readWhole(path, RECORD_MAX_BYTES)
    if (bytes === undefined) return undefined
    const record = bytes === 'damaged' ? undefined : decodeRecord(bytes)
    // one that was kept before records had names has none
    const { name = relative(this.dir, path), ...rest } = (record ?? {}) as { name?: string }
    if (record !== undefined && name === relative(this.dir, path)) return rest
    this.#counters.corruptRecords++
    await this.#drop(path, 'it is damaged, or of another version')
    return undefined
  }

  #foundDamaged(why: string): void {
    this.#counters.corruptRecords++
    this.#warn(why)
  }

  async #drop(path: string, why: string): Promise<void> {
    this.#warn(`${path} is dropped: ${why}`)
    await dropDamaged(path)
  }
}

function referenceName(reference: string, platform: string): string {
  const key = digestOf(new TextEncoder().encode(`${reference} ${platform}`)) // a platform holds no space
  return join('references', `${hex(key)}.json`)
}

/** An image whose signature a policy accepted. */
export interface Accepted {
  reference: string
  manifest: Digest
  policy: Digest
}

/** Of the record that says so. */
export function acceptedName({ reference, manifest, policy }: Accepted): string {
  return join('accepted', `${hex(digestOf(new TextEncoder().encode(`${reference} ${manifest} ${policy}`)))}.json`)
}

export function isAccepted(accepted: Accepted): Is<Accepted> {
  return (record): record is Accepted => says(record, { ...accepted })
}

/** Whether a record has these fields, and they say that. */
function says(record: unknown, fields: Record<string, string>): record is object {
  if (typeof record !== 'object' || record === null) return false
  return Object.entries(fields).every(([name, value]) => (record as Record<string, unknown>)[name] === value)
}

/** A chunk table ends with the digest of all before it. */
function tableDigest(table: Uint8Array): Digest {
  return `sha256:${Buffer.from(table.subarray(-TABLE_DIGEST_BYTES)).toString('hex')}`
}
