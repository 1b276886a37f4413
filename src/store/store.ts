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
//   profiles/<hex>.<hex>.json   what starts read (profiles.ts)
//   slots/<n>                   numbers of trees and of their inodes (numbers.ts)
//   twins/                      second copies of listed, proofs, references, contested, accepted and pins (twins.ts)
//   listed/ proofs/ wholes/     what engines were shown, and of layers that were read whole: listings.ts, proofs.ts, wholes.ts
//   contested/                  names that layers lost to other images: contested.ts
//
// Several processes use it at once: files appear whole and are never changed in place (device and ready, which are, have their
// own locks), so a reader needs no lock. Whatever fails its digest is dropped or renamed, counted, and reported as absent.
import fs, { type FileHandle } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { describe, Failure } from '../errors.ts'
import { type Digest, digestOf, hex } from '../image/digest.ts'
import { CONFIG_MAX_BYTES } from '../image/manifest.ts'
import type { Part } from '../image/part.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import type { Tree } from '../tree/tree.ts'
import { type Accepted, acceptedName, isAccepted } from './accepted.ts'
import { type CacheSize, removeAside, sizeOf } from './aside.ts'
import { CacheFiles, makeFolders } from './cache-files.ts'
import { Device } from './device.ts'
import type { Disk } from './disk.ts'
import { diskFailure, isRefusal, makeFolder, openTemporary } from './durable.ts'
import type { Locks } from './locks.ts'
import { memoryFile } from './memory-files.ts'
import { Numbers, type TreeNumbers } from './numbers.ts'
import { Pins } from './pins.ts'
import { Profiles } from './profiles.ts'
import { Proofs } from './proofs.ts'
import { ResolvedTags } from './resolved-tags.ts'
import { Reuse, type Threads } from './reuse.ts'
import { Room } from './room.ts'
import type { RoomLimits } from './room-limits.ts'
import { Slots } from './slots.ts'
import { keepTwins, readTwins, TWINS } from './twins.ts'
import { markUsed, unusedMetadata } from './unused-metadata.ts'
import { enterCache, isUnbegun, TEMPORARY } from './version.ts'
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

/** What was found damaged since this process began. */
export interface StoreCounters {
  readonly corruptObjects: number
  readonly corruptRecords: number
  readonly corruptImages: number
  /** Devices set aside because they or their ready files did not match. */
  readonly corruptDevices: number
}

/** 3.5 million chunks with a check and a place each (119 bytes): more than any index may have. */
const CHUNK_TABLE_MAX_BYTES = 400 << 20
/** Every file is looked at. */
const SIZE_AGAIN_MS = 60_000
const TABLE_DIGEST_BYTES = 32

/** How much room the cache has, and what makes it; without `disk` it has no limit. */
export interface StoreRoom {
  disk?: Disk
  limits?: RoomLimits
  /** Is told of chunks' bytes that are in memory in place of the disk; negative: so many have gone. */
  inMemory?: (bytes: number) => void
}

/** What to do about a tree whose image turned out to be damaged while it was in use. */
export const RESTART = 'Stop and start the agent: it is built again then.'

export class Store {
  readonly dir: string
  readonly pins: Pins
  readonly tags: ResolvedTags
  readonly profiles: Profiles
  readonly room: Room
  readonly #disk: Disk | undefined
  readonly #locks: Locks
  readonly #warn: (message: string) => void
  /** Of what earlier starts set aside. */
  readonly #removing: Promise<void>
  #size: { at: number; size: Promise<CacheSize> } | undefined
  readonly #numbers: Numbers
  readonly #files: CacheFiles
  readonly proofs: Proofs
  readonly wholes: WholeFiles
  readonly #counters = { corruptObjects: 0, corruptRecords: 0, corruptImages: 0, corruptDevices: 0 }

  private constructor(
    dir: string,
    locks: Locks,
    warn: (message: string) => void,
    lock: FileHandle | undefined,
    { proofs, wholes, removing }: Pick<Store, 'proofs' | 'wholes'> & { removing: Promise<void> },
    { disk, limits, inMemory }: StoreRoom,
  ) {
    this.#removing = removing
    this.dir = dir
    this.pins = new Pins(dir, (why) => this.#foundDamaged(why))
    this.#disk = disk
    const pinned = () => this.pins.trees()
    const others = async () => [...(await wholes.all()), ...(await unusedMetadata(dir, await pinned(), locks))]
    this.room = new Room({
      dir,
      locks,
      disk,
      ...(limits === undefined ? {} : { limits }),
      inMemory,
      others,
      pinned,
      warn,
    })
    this.proofs = proofs
    this.wholes = wholes
    this.#locks = locks
    this.#warn = warn
    this.#files = new CacheFiles({ dir, locks, disk, room: this.room, lock, warn })
    this.tags = new ResolvedTags(dir, this.#files, (why) => this.#foundDamaged(why))
    this.profiles = new Profiles(dir, this.#files, (why) => this.#foundDamaged(why))
    this.#numbers = new Numbers(join(dir, 'slots'), join(dir, TEMPORARY), locks, {
      mark: join(dir, TWINS, 'slots.json'),
      ...(disk === undefined ? {} : { refused: (error: unknown) => this.room.refused(error) }),
    })
  }

  /**
   * Opens the cache in `dir`, or makes it. `warn` gets a sentence for everything that is set aside. With `room.disk`, a disk that takes
   * nothing is no error: what is there is used, and what comes is in memory as far as there is room.
   * @throws Failure usage (`dir` holds something else), unsupported (another version is running on it), timeout, system
   */
  static async open(dir: string, locks: Locks, warn: (message: string) => void, room: StoreRoom = {}): Promise<Store> {
    const at = resolve(dir)
    const startedAt = Date.now()
    let refused: unknown
    const entered = await enterCache(at, locks, warn).catch(async (error) => {
      if (room.disk === undefined || !isRefusal(error) || !(await isUnbegun(at))) throw error
      refused = error
      return { lock: undefined, alone: false, aside: [] }
    })
    const { lock, alone, aside } = entered
    try {
      await makeFolders(at)
      const parts = { proofs: await Proofs.open(at, warn), wholes: await WholeFiles.open(at, warn) }
      // nobody waits for it; what fails is tried again by the next start
      const removing = alone
        ? removeAside(at, aside, startedAt, locks).catch((error) =>
            warn(`what was set aside in ${at} cannot be removed: ${describe(error)}`),
          )
        : Promise.resolve()
      const store = new Store(at, locks, warn, lock, { ...parts, removing }, room)
      if (refused !== undefined) store.room.refused(refused)
      return store
    } catch (error) {
      await lock?.close()
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
    await this.#files.close()
  }

  /** Keeps a manifest or a config. @throws Failure corrupt (not the bytes of `digest`), limit, system */
  async putObject(digest: Digest, bytes: Uint8Array): Promise<void> {
    if (bytes.length > CONFIG_MAX_BYTES) throw Failure.limit(`object ${digest} has more than ${CONFIG_MAX_BYTES} bytes`)
    const found = digestOf(bytes)
    if (found !== digest) throw Failure.corrupt(`object ${digest} has the digest ${found}`)
    await this.#files.keep(this.#path('objects', hex(digest)), bytes)
  }

  /** @throws Failure system */
  async getObject(digest: Digest): Promise<Uint8Array | undefined> {
    const path = this.#path('objects', hex(digest))
    const bytes = await this.#files.read(path, CONFIG_MAX_BYTES)
    if (bytes === undefined) return undefined
    if (bytes !== 'damaged' && digestOf(bytes) === digest) return bytes
    this.#counters.corruptObjects++
    await this.#drop(path, 'it differs from its digest')
    return undefined
  }

  /** Keeps what was built from a layer. An image that is there already stays. @throws Failure system */
  async keepLayer(layer: Digest, record: LayerRecord, tree: Tree): Promise<void> {
    const folder = this.#path('layers', hex(layer))
    const parts = [
      this.#files.keepHashed(this.#imagePath(tree.digest), tree.digest, tree.image),
      this.#files.keep(join(folder, 'chunks'), tree.chunks.bytes),
    ]
    const named = Promise.all(parts)
    const table = tableDigest(tree.chunks.bytes)
    // written beside what it names, and put in its place after it
    const recorded = this.#files.keepRecord(join(folder, 'record.json'), { ...record, tree: tree.digest, table }, named)
    const kept = await Promise.allSettled([...parts, named, recorded])
    for (const each of kept) if (each.status === 'rejected') throw each.reason // when nothing is written any more
  }

  /** @throws Failure system */
  async layer(layer: Digest): Promise<KeptLayer | undefined> {
    const folder = this.#path('layers', hex(layer))
    const path = join(folder, 'record.json')
    // as keepLayer wrote it
    const found = (await this.#record(path)) as (LayerRecord & { tree: Digest; table: Digest }) | undefined
    if (found === undefined) return undefined
    const { tree, table, ...record } = found
    const bytes = await this.#files.read(join(folder, 'chunks'), CHUNK_TABLE_MAX_BYTES)
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
    await this.#files.keepHashed(this.#imagePath(merged.image), merged.image, image)
    await this.#files.keepRecord(this.#path('merged', `${hex(key)}.json`), { image: merged.image, trees: merged.trees })
  }

  /** @throws Failure system */
  async merged(key: Digest): Promise<KeptMerge | undefined> {
    return (await this.#record(this.#path('merged', `${hex(key)}.json`))) as KeptMerge | undefined // as keepMerged wrote it
  }

  /** Remembers that a policy accepted an image's signature. @throws Failure system */
  async keepAccepted(reference: string, manifest: Digest, policy: Digest): Promise<void> {
    const accepted: Accepted = { reference, manifest, policy }
    await this.#files.unlessRefused(() => keepTwins(this.dir, acceptedName(accepted), accepted))
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
    const path = this.#imagePath(tree)
    const image = await this.#files.openHashed(path, tree)
    if (image === undefined) return undefined
    if (!('found' in image)) {
      await markUsed(image)
      return image
    }
    this.#counters.corruptImages++
    this.#warn(`${path} is damaged (its digest is ${image.found ?? 'unknown: it cannot be read'}): it is built again`)
    await this.#files.drop(path, 'set aside')
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
    const aside = (why: string) => {
      this.#counters.corruptDevices++
      this.#warn(`${why}: it is set aside, and its contents are fetched again`)
    }
    const parts = { locks: this.#locks, disk: this.#disk, temporary: this.#path(TEMPORARY), aside }
    const opening = this.#files.withRoom(async () => {
      await makeFolder(folder)
      return await Slots.open(folder, chunks, parts)
    })
    const slots = await opening.catch(async (error) => {
      if (this.#disk === undefined || !isRefusal(error)) throw error
      this.room.refused(error)
      return await Slots.openUnwritable(folder, chunks, this.#locks, this.#disk)
    })
    return new Device(name, slots, chunks, this.room, refetchable)
  }

  /**
   * The numbers of a tree where it is shown as `name`: the same for ever, given now if it has none.
   * @throws Failure corrupt: its image was set aside meanwhile; limit, system, timeout
   */
  numbersOf(tree: Digest, name = ''): Promise<TreeNumbers> {
    const shown = name === '' ? tree : digestOf(new TextEncoder().encode(`${tree} ${name}`))
    return this.#numbers.of(shown, async () => {
      const size = await this.#files.sizeOf(this.#imagePath(tree))
      if (size === undefined) throw Failure.corrupt('its image on disk is damaged', { fix: RESTART })
      return size
    })
  }

  /** What its trees have in common. @param threads where it is looked for */
  reuse(threads: Threads): Reuse {
    return new Reuse(this.dir, this.#locks, threads)
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

  /** A file without a name that holds these bytes; in memory where the disk takes nothing. The caller closes it. @throws Failure system */
  async unnamed(bytes: Uint8Array): Promise<FileHandle> {
    try {
      return await filled(await this.temporary(), bytes)
    } catch (error) {
      if (this.#disk === undefined || !isRefusal(error)) throw error
      return await filled(await memoryFile(this.#disk, 'lazylayer-bytes'), bytes)
    }
  }

  #path(...names: string[]): string {
    return join(this.dir, ...names)
  }

  #imagePath(tree: Digest): string {
    return this.#path('trees', hex(tree), 'image')
  }

  async #record(path: string): Promise<unknown> {
    const record = await this.#files.record(path)
    if (record !== 'damaged') return record
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
    await this.#files.drop(path, 'remove')
  }
}

async function filled(file: FileHandle, bytes: Uint8Array): Promise<FileHandle> {
  try {
    await file.writeFile(bytes)
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}

/** A chunk table ends with the digest of all before it. */
function tableDigest(table: Uint8Array): Digest {
  return `sha256:${Buffer.from(table.subarray(-TABLE_DIGEST_BYTES)).toString('hex')}`
}
