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
//   slots/<n>                   numbers of trees and of their inodes (numbers.ts)
//   listed/ proofs/ wholes/     what engines were shown, and of layers that were read whole: listings.ts, proofs.ts, wholes.ts
//
// Several processes use it at once: files appear whole and are never changed in place (device and ready, which are, have their
// own locks), so a reader needs no lock. Whatever fails its digest is dropped or renamed, counted, and reported as absent.
import fs, { type FileHandle } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, digestOf, hex } from '../image/digest.ts'
import { CONFIG_MAX_BYTES } from '../image/manifest.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import type { Tree } from '../tree/tree.ts'
import { diskFailure, makeFolder, openTemporary, readWhole, replaceFile, systemCode } from './durable.ts'
import { openHashed } from './hash.ts'
import type { Locks } from './locks.ts'
import { Numbers, type TreeNumbers } from './numbers.ts'
import { Proofs } from './proofs.ts'
import { decodeRecord, encodeRecord, RECORD_MAX_BYTES } from './record.ts'
import { Slots } from './slots.ts'
import { enterCache, TEMPORARY } from './version.ts'
import { WholeFiles } from './wholes.ts'

/** What is known of a layer beside its tree. */
export interface LayerRecord {
  format: string
  /** The identity engines know its index by, if it has one. */
  indexDigest?: Digest
  /** Bytes of the layer's tar, as claimed. */
  tarSize?: number
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

const FOLDERS = ['objects', 'layers', 'trees', 'merged', 'references', 'accepted', 'slots']
/** 4 million chunks with a check and a place each (94 bytes): more than any index may have. */
const CHUNK_TABLE_MAX_BYTES = 400 << 20
const TABLE_DIGEST_BYTES = 32

export class Store {
  readonly dir: string
  readonly #locks: Locks
  readonly #warn: (message: string) => void
  readonly #lock: FileHandle
  readonly #numbers: Numbers
  readonly proofs: Proofs
  readonly wholes: WholeFiles
  readonly #counters = { corruptObjects: 0, corruptRecords: 0, corruptImages: 0, corruptDevices: 0 }

  private constructor(
    dir: string,
    locks: Locks,
    warn: (message: string) => void,
    lock: FileHandle,
    { proofs, wholes }: Pick<Store, 'proofs' | 'wholes'>,
  ) {
    this.dir = dir
    this.proofs = proofs
    this.wholes = wholes
    this.#locks = locks
    this.#warn = warn
    this.#lock = lock
    this.#numbers = new Numbers(join(dir, 'slots'), join(dir, TEMPORARY), locks)
  }

  /**
   * Opens the cache in `dir`, or makes it. `warn` gets a sentence for everything that is set aside.
   * @throws Failure usage (`dir` holds something else), unsupported (another version is running on it), timeout, system
   */
  static async open(dir: string, locks: Locks, warn: (message: string) => void): Promise<Store> {
    const at = resolve(dir)
    const lock = await enterCache(at, locks, warn)
    try {
      for (const folder of FOLDERS) await makeFolder(join(at, folder))
      const parts = { proofs: await Proofs.open(at, warn), wholes: await WholeFiles.open(at, warn) }
      return new Store(at, locks, warn, lock, parts)
    } catch (error) {
      await lock.close()
      throw error
    }
  }

  get counters(): StoreCounters {
    return this.#counters
  }

  /** Lets go of the cache; slots and images that are open stay so. */
  async close(): Promise<void> {
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
    const found = (await this.#record(path)) as (LayerRecord & { tree: Digest; table: Digest }) | undefined // as keepLayer wrote it
    if (found === undefined) return undefined
    const { tree, table, ...record } = found
    const bytes = await readWhole(join(folder, 'chunks'), CHUNK_TABLE_MAX_BYTES)
    // a crash can leave the table of one version beside the record of another: the record's digest of it tells
    if (bytes !== undefined && bytes !== 'damaged' && tableDigest(bytes) === table) {
      try {
        return { record, tree, chunks: new ChunkTable(bytes) }
      } catch (error) {
        if (!(error instanceof Failure)) throw error
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
    const record = { reference, platform, manifest, at: Date.now() }
    await this.#keepRecord(this.#referencePath(reference, platform), record)
  }

  /** @throws Failure system */
  async reference(reference: string, platform: string): Promise<KeptReference | undefined> {
    const found = (await this.#record(this.#referencePath(reference, platform))) as KeptReference | undefined // as kept above
    return found === undefined ? undefined : { manifest: found.manifest, at: found.at }
  }

  /** Remembers that a policy accepted an image's signature. @throws Failure system */
  async keepAccepted(reference: string, manifest: Digest, policy: Digest): Promise<void> {
    await this.#keepRecord(acceptedPath(this.dir, reference, manifest, policy), { reference, manifest, policy })
  }

  /** Whether that was ever remembered. @throws Failure system */
  async accepted(reference: string, manifest: Digest, policy: Digest): Promise<boolean> {
    return (await this.#record(acceptedPath(this.dir, reference, manifest, policy))) !== undefined
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
      await fs.rename(path, `${path}.corrupt`).catch(ignoreAbsent)
    } catch (cause) {
      throw diskFailure(path, cause)
    }
    return undefined
  }

  /** A tree's device, made if need be. The caller closes it. @throws Failure system, timeout */
  async openSlots(tree: Digest, chunks: ChunkTable): Promise<Slots> {
    const folder = this.#path('trees', hex(tree))
    await makeFolder(folder)
    return Slots.open(folder, this.#path(TEMPORARY), chunks, this.#locks, (why) => {
      this.#counters.corruptDevices++
      this.#warn(`${why}: it is set aside, and its contents are fetched again`)
    })
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

  #referencePath(reference: string, platform: string): string {
    const key = digestOf(new TextEncoder().encode(`${reference} ${platform}`)) // a platform holds no space
    return this.#path('references', `${hex(key)}.json`)
  }

  #replace(path: string, bytes: Uint8Array): Promise<void> {
    return replaceFile(this.#path(TEMPORARY), path, bytes)
  }

  async #keepImage(tree: Digest, image: Uint8Array): Promise<void> {
    const folder = this.#path('trees', hex(tree))
    await makeFolder(folder)
    const path = join(folder, 'image')
    // one that is mounted is never replaced; a damaged one was renamed by openImage, which every use passes
    const there = await fs.stat(path).then(
      (found) => found.size === image.length,
      () => false,
    )
    if (!there) await this.#replace(path, image)
  }

  #keepRecord(path: string, record: object): Promise<void> {
    return this.#replace(path, encodeRecord(record))
  }

  async #record(path: string): Promise<unknown> {
    const bytes = await readWhole(path, RECORD_MAX_BYTES)
    if (bytes === undefined) return undefined
    const record = bytes === 'damaged' ? undefined : decodeRecord(bytes)
    if (record !== undefined) return record
    this.#counters.corruptRecords++
    await this.#drop(path, 'it is damaged, or of another version')
    return undefined
  }

  async #drop(path: string, why: string): Promise<void> {
    this.#warn(`${path} is dropped: ${why}`)
    await fs.unlink(path).catch(ignoreAbsent)
  }
}

/** Of the record that says so, in the cache `dir`. */
export function acceptedPath(dir: string, reference: string, manifest: Digest, policy: Digest): string {
  const key = digestOf(new TextEncoder().encode(`${reference} ${manifest} ${policy}`))
  return join(dir, 'accepted', `${hex(key)}.json`)
}

/** Another process saw the same damage and was faster. */
function ignoreAbsent(error: unknown): void {
  if (systemCode(error) !== 'ENOENT') throw error
}

/** A chunk table ends with the digest of all before it. */
function tableDigest(table: Uint8Array): Digest {
  return `sha256:${Buffer.from(table.subarray(-TABLE_DIGEST_BYTES)).toString('hex')}`
}
