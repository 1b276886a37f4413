// A tree's device (one sparse file) and its ready file (which of the chunks are there), open and locked.
//
// Why a power cut, a kill or a flipped byte never makes an unverified chunk be served:
// - Only READY_VERIFIED is served, and it is trusted only while somebody who saw it being set is alive: every user holds a shared
//   flock on the ready file for as long as it uses the device, and whoever can get the exclusive one is alone. Whatever it finds
//   was written in an earlier life (of the process or of the machine), so it demotes all of it to READY_STORED before anybody
//   else gets in; such a chunk is read back and hashed before its first use.
// - So the order in which a dying machine wrote the data and the bytes to its disk does not matter, and neither needs an fsync: a
//   byte that outlived its data leads to a hash that does not match and to a fetch; data that outlived its byte are fetched again.
// - Within one life the worker writes the data, then the byte, both through the page cache, which all processes share.
// - A verdict that bytes are damaged is one process's, and is not written down: another may have put them right meanwhile, and told its
//   readers so. The byte stays READY_STORED until right bytes are there, and whoever looks before that finds the same.
// - Opening is done under the folder's lock, so that nobody sees the files half made, set aside or half demoted.
import { readSync } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { hex } from '../image/digest.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_HEADER_BYTES, READY_MISSING, READY_STORED, READY_VERIFIED, READY_VERSION } from '../tree/ready.ts'
import { diskFailure, FILE_MODE, lockedFolder, replaceFile, setAside, systemCode } from './durable.ts'
import { type Locks, lock } from './locks.ts'

const MAGIC = new TextEncoder().encode('lazyrdy\n')

function readyHeader(chunks: ChunkTable): Uint8Array {
  const header = new Uint8Array(READY_HEADER_BYTES)
  const view = new DataView(header.buffer)
  header.set(MAGIC)
  view.setUint32(8, READY_VERSION, true)
  view.setUint32(12, chunks.length, true)
  header.set(Buffer.from(hex(chunks.contentDigest()), 'hex'), 16)
  return header
}

export class Slots {
  readonly chunks: number
  readonly #device: FileHandle
  readonly #ready: FileHandle
  /** What was read last; a READY_VERIFIED in it stays true while this is open. */
  readonly #states: Uint8Array

  private constructor(device: FileHandle, ready: FileHandle, states: Uint8Array) {
    this.chunks = states.length
    this.#device = device
    this.#ready = ready
    this.#states = states
  }

  /**
   * Opens `folder/device` and `folder/ready`, or makes them. Files that are not what `chunks` describes are renamed to
   * `*.corrupt` (in place of earlier ones) and `aside` is told why.
   * @throws Failure system (no space, no rights), timeout (a lock)
   */
  static async open(
    folder: string,
    temporary: string,
    chunks: ChunkTable,
    locks: Locks,
    aside: (why: string) => void,
  ): Promise<Slots> {
    try {
      const header = readyHeader(chunks)
      return await lockedFolder(locks, folder, async () => {
        const { device, ready } =
          (await openPair(folder, header, chunks, aside)) ?? (await makePair(folder, temporary, header, chunks))
        try {
          const states = new Uint8Array(chunks.length)
          const alone = locks.tryLock(ready.fd, true)
          await readFully(ready, states, READY_HEADER_BYTES)
          if (alone) {
            demote(states)
            await ready.write(states, 0, states.length, READY_HEADER_BYTES)
          }
          // the folder's lock keeps all others out until the shared lock stands in for the exclusive one
          await lock(locks, ready.fd, false, join(folder, 'ready'))
          return new Slots(device, ready, states)
        } catch (error) {
          await device.close()
          await ready.close()
          throw error
        }
      })
    } catch (cause) {
      throw diskFailure(folder, cause)
    }
  }

  get deviceFd(): number {
    return this.#device.fd
  }

  /** Descriptors made of this one by dup(2) share its lock, which ends when the last is closed. */
  get readyFd(): number {
    return this.#ready.fd
  }

  /** READY_MISSING, READY_VERIFIED or READY_STORED, as of now: workers and other processes set the byte. */
  state(chunk: number): number {
    const known = this.#states[chunk]
    if (known === undefined) throw new RangeError(`chunk ${chunk} of ${this.chunks}`)
    if (known === READY_VERIFIED) return READY_VERIFIED
    // a byte of the page cache (a microsecond), so it is worth no thread's time
    readSync(this.#ready.fd, this.#states, chunk, 1, READY_HEADER_BYTES + chunk)
    return meaning(this.#states[chunk])
  }

  /** The states of some chunks, as `state` gives each, in one read: a system call a chunk would hold up the thread. */
  statesOf(chunks: readonly number[]): number[] {
    const unknown = chunks.filter((chunk) => this.#states[chunk] !== READY_VERIFIED)
    const first = unknown.reduce((least, each) => Math.min(least, each), this.chunks)
    const last = unknown.reduce((most, each) => Math.max(most, each), -1)
    if (first < 0 || last >= this.chunks) throw new RangeError(`chunks ${first} to ${last} of ${this.chunks}`)
    if (last >= first) readSync(this.#ready.fd, this.#states, first, last + 1 - first, READY_HEADER_BYTES + first)
    return chunks.map((chunk) => meaning(this.#states[chunk]))
  }

  /** The states of all chunks as of now, in one read: for large layers, where `state` chunk by chunk would hold up the thread. */
  async states(): Promise<Uint8Array> {
    const states = new Uint8Array(this.chunks)
    await readFully(this.#ready, states, READY_HEADER_BYTES)
    return states
  }

  /** Lets go of the device. Nobody may write through its descriptors any more. */
  async close(): Promise<void> {
    await this.#device.close()
    await this.#ready.close()
  }
}

/** A byte that means nothing means that nothing is there. */
function meaning(byte: number | undefined): number {
  return byte === READY_VERIFIED || byte === READY_STORED ? byte : READY_MISSING
}

function demote(states: Uint8Array): void {
  states.forEach((state, i) => {
    states[i] = state === READY_VERIFIED || state === READY_STORED ? READY_STORED : READY_MISSING
  })
}

interface Pair {
  device: FileHandle
  ready: FileHandle
}

/** The two files, if they are what they must be; else they are out of the way. */
async function openPair(
  folder: string,
  header: Uint8Array,
  chunks: ChunkTable,
  aside: (why: string) => void,
): Promise<Pair | undefined> {
  const device = await openExisting(join(folder, 'device'))
  const ready = await openExisting(join(folder, 'ready'))
  const why = ready === undefined ? undefined : await mismatch(device, ready, header, chunks)
  if (device !== undefined && ready !== undefined && why === undefined) return { device, ready }
  await device?.close()
  await ready?.close()
  if (why !== undefined) {
    aside(`${folder}: ${why}`)
    // the ready file last: without it the other counts for nothing
    await setAside(join(folder, 'device'))
    await setAside(join(folder, 'ready'))
  } else {
    // a device whose ready file was never made
    await fs.rm(join(folder, 'device'), { force: true })
  }
  return undefined
}

async function openExisting(path: string): Promise<FileHandle | undefined> {
  try {
    return await fs.open(path, 'r+')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    if (systemCode(error) !== 'EISDIR') throw error
    await setAside(path) // damage
    return undefined
  }
}

async function mismatch(
  device: FileHandle | undefined,
  ready: FileHandle,
  header: Uint8Array,
  chunks: ChunkTable,
): Promise<string | undefined> {
  if (device === undefined) return 'the device is gone'
  const deviceSize = (await device.stat()).size
  if (deviceSize !== chunks.deviceSize) return `the device has ${deviceSize} bytes instead of ${chunks.deviceSize}`
  const readySize = (await ready.stat()).size
  const wanted = header.length + chunks.length
  if (readySize !== wanted) return `the ready file has ${readySize} bytes instead of ${wanted}`
  const found = new Uint8Array(header.length)
  await readFully(ready, found, 0)
  return Buffer.from(found).equals(header) ? undefined : 'the ready file is of another device or version'
}

async function makePair(folder: string, temporary: string, header: Uint8Array, chunks: ChunkTable): Promise<Pair> {
  const device = await fs.open(join(folder, 'device'), 'wx+', FILE_MODE)
  try {
    await device.chmod(FILE_MODE)
    await device.truncate(chunks.deviceSize)
    // written out, not sparse: setting a byte later then needs no new block, and cannot fail for want of one
    const bytes = new Uint8Array(header.length + chunks.length)
    bytes.set(header)
    await replaceFile(temporary, join(folder, 'ready'), bytes)
    return { device, ready: await fs.open(join(folder, 'ready'), 'r+') }
  } catch (error) {
    await device.close()
    await fs.rm(join(folder, 'device'), { force: true })
    throw error
  }
}

async function readFully(file: FileHandle, into: Uint8Array, position: number): Promise<void> {
  let at = 0
  while (at < into.length) {
    const { bytesRead } = await file.read(into, at, into.length - at, position + at)
    if (bytesRead === 0) throw new Error(`the ready file ends at ${position + at}`)
    at += bytesRead
  }
}
