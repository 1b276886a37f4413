// Reads what storage roots of engines refer to; in a worker (engine-roots-worker.ts), because a node's lists have megabytes. Engines may
// write meanwhile: each of their lists is replaced as a whole, and nothing that was there all the time is missed.
//
//   <root>/overlay-layers/layers.json, volatile-layers.json             each layer's parent
//   <root>/overlay-images/images.json                                   an image's top layer, and its copies for other id maps
//   <root>/overlay-containers/containers.json, volatile-containers.json a container's layer
//   <root>/overlay/<id>/lower                                           the links of all layers below one
import { constants } from 'node:fs'
import { open, opendir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import { isAbsent } from '../registry/file.ts'

/** An engine's storage root. */
export interface EngineRoot {
  /** `graphroot` of storage.conf. */
  dir: string
  /** `runroot`: with `transient_store` the volatile files are there. */
  run?: string
}

/** What roots refer to. Most of these layers are the engines' own, not ours. */
export interface References {
  /** Layers, as layers.json names them. */
  ids: Set<string>
  /** Links of layers below others, as `overlay/l` names them. */
  links: Set<string>
}

/** What the worker tells, once: what it found, or why that is not known. */
export type Read = References | { why: string }

/** What a node with 10,000 layers writes, three times. */
const JSON_MAX_BYTES = 16 << 20
const RECORDS_MAX = 200_000
/**
 * Values in a list: 10,000 layers have 250,000. In memory a short one is ten times as large as in the file, and a parser that runs out of
 * memory ends the whole process, not its thread only.
 */
const VALUES_MAX = 2_000_000
/** 500 links of 29 bytes are as many layers as the kernel stacks. */
const LOWER_MAX_BYTES = 16 << 10
const ROOTS_MAX = 1024
/** Files of layers that are read at once. */
const READS = 32
/** A file that is cut short is one that an engine is about to replace; a damaged one stays so. */
const TRIES = 3
const PAUSE_MS = 50

const LINK = /^[0-9A-Z]{26}$/

/** Everything that these roots refer to. @throws Failure corrupt, limit, system: it cannot be told for sure */
export async function readRoots(roots: readonly EngineRoot[]): Promise<References> {
  const found: References = { ids: new Set(), links: new Set() }
  if (roots.length > ROOTS_MAX) throw Failure.limit(`there are ${roots.length} storage roots, more than ${ROOTS_MAX}`)
  for (const root of roots) await readRoot(root, found)
  return found
}

async function readRoot({ dir, run }: EngineRoot, found: References): Promise<void> {
  // a container holds on to its image's layers when the image goes, so images are read first: what moves from one to the other is seen
  const images = await records(join(dir, 'overlay-images', 'images.json'))
  for (const image of images ?? []) add(found.ids, image.layer, ...list(image['mapped-layers']))
  for (const folder of [dir, ...(run === undefined ? [] : [run])]) {
    for (const name of ['containers.json', 'volatile-containers.json']) {
      for (const each of (await records(join(folder, 'overlay-containers', name))) ?? []) add(found.ids, each.layer)
    }
  }
  const layers = await records(join(dir, 'overlay-layers', 'layers.json'))
  for (const each of layers ?? []) add(found.ids, each.parent)
  for (const folder of [dir, ...(run === undefined ? [] : [run])]) {
    for (const each of (await records(join(folder, 'overlay-layers', 'volatile-layers.json'))) ?? []) {
      add(found.ids, each.parent)
    }
  }
  const directories = await readLowers(join(dir, 'overlay'), found.links)
  if (layers === undefined && directories > 0) {
    throw Failure.corrupt(`${dir} has ${directories} layers and no overlay-layers/layers.json`)
  }
}

/** The links below each layer; of how many directories. */
async function readLowers(overlay: string, links: Set<string>): Promise<number> {
  let directories = 0
  const under = new Set<Promise<void>>()
  const failures: unknown[] = []
  try {
    for await (const entry of await opendir(overlay, { bufferSize: 256 })) {
      if (failures.length > 0) break
      // not `l`, staging and temporary directories
      if (!entry.isDirectory() || !/^[0-9a-f]{64}$/.test(entry.name)) continue
      if (++directories > RECORDS_MAX) throw Failure.limit(`${overlay} has more than ${RECORDS_MAX} layers`)
      const read = readLower(join(overlay, entry.name, 'lower'), links)
        .catch((error) => failures.push(error))
        .then(() => void under.delete(read))
      under.add(read)
      if (under.size >= READS) await Promise.race(under)
    }
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    if (!isAbsent(cause)) throw Failure.system(`cannot list ${overlay}`, { cause })
  } finally {
    await Promise.all(under)
  }
  if (failures.length > 0) throw failures[0]
  return directories
}

/** `l/LINK:l/LINK…`; a base layer has no such file. */
async function readLower(path: string, links: Set<string>): Promise<void> {
  const bytes = await readBounded(path, LOWER_MAX_BYTES)
  if (bytes === undefined) return
  for (const part of new TextDecoder().decode(bytes).trim().split(':')) {
    const link = part.slice(part.lastIndexOf('/') + 1)
    if (LINK.test(link)) links.add(link)
    else if (part !== '') throw Failure.corrupt(`${path} names ${JSON.stringify(part.slice(0, 100))} as a layer below`)
  }
}

type RootRecord = Record<string, unknown>

/** The objects of the JSON array in a file; undefined where there is no such file. `read` is for tests. @throws Failure */
export async function records(path: string, read = readBounded): Promise<RootRecord[] | undefined> {
  for (let tries = 1; ; tries++) {
    const bytes = await read(path, JSON_MAX_BYTES)
    if (bytes === undefined) return undefined
    // an empty file is what an engine that was killed leaves; it reads it as an empty list
    if (bytes.length === 0) return []
    const parsed = parse(bytes)
    if (parsed !== undefined) return parsed
    if (tries >= TRIES) throw Failure.corrupt(`${path} is no list of records`)
    await pause(PAUSE_MS)
  }
}

function parse(bytes: Uint8Array): RootRecord[] | undefined {
  let values = 0
  // [ { , begin one each
  for (const byte of bytes) if (byte === 0x2c || byte === 0x5b || byte === 0x7b) values++
  if (values > VALUES_MAX) return undefined
  let raw: unknown
  try {
    raw = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return undefined
  }
  if (raw === null) return [] // Go's empty list
  if (!Array.isArray(raw) || raw.length > RECORDS_MAX || !raw.every(isObject)) return undefined
  return raw
}

function isObject(value: unknown): value is RootRecord {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : []
}

function add(ids: Set<string>, ...values: unknown[]): void {
  for (const value of values) if (typeof value === 'string' && value !== '') ids.add(value)
}

/** @throws Failure limit, system, corrupt (no regular file) */
async function readBounded(path: string, maxBytes: number): Promise<Uint8Array | undefined> {
  try {
    // roots of users may hold anything: neither a FIFO nor a device may keep us waiting
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const found = await file.stat()
      if (!found.isFile()) throw Failure.corrupt(`${path} is no regular file`)
      if (found.size > maxBytes) throw Failure.limit(`${path} is larger than ${maxBytes} bytes`)
      const bytes = new Uint8Array(found.size)
      let size = 0
      // what is written behind its end meanwhile makes it a file that is cut short
      while (size < bytes.length) {
        const { bytesRead } = await file.read(bytes, size, bytes.length - size)
        if (bytesRead === 0) break
        size += bytesRead
      }
      return bytes.subarray(0, size)
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (isAbsent(cause)) return undefined
    if (cause instanceof Failure) throw cause
    throw Failure.system(`cannot read ${path}`, { cause })
  }
}
