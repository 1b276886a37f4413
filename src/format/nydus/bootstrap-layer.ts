// The bootstrap layer: a tar.gz with the bootstrap, and tables of blobs beside it, as nydusd keeps them. Read whole, and checked.
//
//   image/image.boot        image/<64 hex digits of a blob>.blob.meta        other files do not matter, but backend.json
import { Failure } from '../../errors.ts'
import type { Blob } from '../../image/blob.ts'
import { S_IFMT, S_IFREG } from '../../tree/entry.ts'
import { type IndexOptions, type Unit, unitText } from '../format.ts'
import { digestInTurns } from '../index-bytes.ts'
import { inflate, isGzip } from '../inflate.ts'
import { giveBack } from '../memory.ts'
import { memberOf, type Prelude } from '../tar/entry.ts'
import { BLOCK_BYTES, isZero, parseHeader } from '../tar/header.ts'
import { behind, extend, isExtension } from '../tar/members.ts'

const BOOTSTRAP_NAME = 'image.boot'
const TABLES_NAME = /^([0-9a-f]{64})\.blob\.meta$/
/** Says that blobs are in object storage. */
const BACKEND_NAME = 'backend.json'

/** Compressed: bootstraps of large images have some megabytes, and checkpoints of gzip layers a fortieth of these. */
export const LAYER_STORED_MAX_BYTES = 128 << 20
/** Inflated: as much as indexes may take. */
export const LAYER_MAX_BYTES = 512 << 20
/** A blob has one file here at most, and blobs have numbers of a byte. */
const MEMBERS_MAX = 1024

export interface BootstrapLayer {
  bootstrap: Uint8Array
  /** The hex digits of a blob's digest -> its tables, decoded, their header at the end. */
  tables: ReadonlyMap<string, Uint8Array>
}

/** @throws Failure corrupt, limit, unsupported; what reading the blob throws */
export async function readLayer(unit: Unit, blob: Blob, options: IndexOptions): Promise<BootstrapLayer> {
  const what = unitText(unit)
  const { size } = unit.shown
  if (size > LAYER_STORED_MAX_BYTES) {
    throw Failure.limit(`${what}: the bootstrap layer has ${size} bytes`, {
      why: `at most ${LAYER_STORED_MAX_BYTES} are accepted`,
    })
  }
  const stored = size === 0 ? new Uint8Array() : await blob.read({ start: 0, end: size }, options)
  const got = await digestInTurns(stored)
  if (got !== unit.index) {
    throw Failure.corrupt(`${what}: the bootstrap layer differs from the manifest: want ${unit.index}, got ${got}`, {
      fix: 'Pull from another registry, or push the image again: what this one sent was altered or mixed up.',
    })
  }
  if (!isGzip(stored)) throw Failure.corrupt(`${what}: the bootstrap layer is no gzip`)
  // the index is a copy of what is of use in it
  const room = options.room && ((bytes: number) => options.room?.(2 * bytes) ?? Promise.resolve())
  const tar = await inflate(stored, `${what}: the bootstrap layer`, LAYER_MAX_BYTES, room)
  try {
    return filesIn(tar, what)
  } catch (error) {
    giveBack(tar)
    throw error
  }
}

/** @param tar what is returned lies in it @throws Failure corrupt, limit, unsupported */
export function filesIn(tar: Uint8Array, what: string): BootstrapLayer {
  let bootstrap: Uint8Array | undefined
  const tables = new Map<string, Uint8Array>()
  for (const { path, bytes } of membersOf(tar, `${what}: the bootstrap layer`)) {
    const name = path.slice(path.lastIndexOf('/') + 1)
    if (name === BOOTSTRAP_NAME) {
      if (bootstrap !== undefined) throw Failure.corrupt(`${what}: the bootstrap layer has two files ${BOOTSTRAP_NAME}`)
      bootstrap = bytes
    } else if (name === BACKEND_NAME) {
      throw Failure.unsupported(`${what}: its blobs are kept outside the registry`, {
        why: `the bootstrap layer has a ${BACKEND_NAME}`,
        fix: 'Convert the image again with its blobs in the registry.',
      })
    }
    const [, of] = TABLES_NAME.exec(name) ?? []
    if (of !== undefined) tables.set(of, bytes)
  }
  if (bootstrap === undefined) {
    throw Failure.corrupt(`${what}: the layer above its nydus blobs has no ${BOOTSTRAP_NAME}`, {
      why: 'that file is the tree of a nydus image',
      fix: 'Convert the image again, for example with nydusify convert.',
    })
  }
  return { bootstrap, tables }
}

/** The tar's files. @throws Failure corrupt, limit, unsupported */
function* membersOf(tar: Uint8Array, what: string): Iterable<{ path: string; bytes: Uint8Array }> {
  let prelude: Prelude = {}
  let count = 0
  for (let at = 0; at + BLOCK_BYTES <= tar.length; ) {
    const block = tar.subarray(at, at + BLOCK_BYTES)
    if (isZero(block)) return
    if (++count > MEMBERS_MAX) throw Failure.limit(`${what} has more than ${MEMBERS_MAX} files`)
    const of = { what: `${what}: header at ${at}` }
    const header = parseHeader(block, of)
    const begin = at + BLOCK_BYTES
    at = behind(begin, header.size)
    if (begin + header.size > tar.length)
      throw Failure.corrupt(`${of.what}: ${header.size} bytes follow, the tar is cut off`)
    const bytes = tar.subarray(begin, begin + header.size)
    if (isExtension(header)) {
      prelude = extend(prelude, header, bytes, of)
      continue
    }
    const { entry } = memberOf(header, prelude, what)
    prelude = {}
    if (entry.link === undefined && (entry.mode & S_IFMT) === S_IFREG) yield { path: entry.path, bytes }
  }
}
