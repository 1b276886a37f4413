// The two files of a device: made, opened, and out of the way where they are not what they must be.
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { hex } from '../image/digest.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_CHANGING_AT, READY_HEADER_BYTES, READY_VERSION, readyLength } from '../tree/ready.ts'
import { ABSENT, FILE_MODE, replaceFile, setAside, systemCode } from './durable.ts'

const MAGIC = new TextEncoder().encode('lazyrdy\n')

/** The header of a new ready file (tree/ready.ts). */
export function readyHeader(chunks: ChunkTable): Uint8Array {
  const header = new Uint8Array(READY_HEADER_BYTES)
  const view = new DataView(header.buffer)
  header.set(MAGIC)
  view.setUint32(8, READY_VERSION, true)
  view.setUint32(12, chunks.length, true)
  header.set(Buffer.from(hex(chunks.contentDigest()), 'hex'), 16)
  return header
}

/** The device and its ready file, open. */
export interface Pair {
  device: FileHandle
  ready: FileHandle
}

/** Opens `folder/device` and `folder/ready`, or makes them. The caller has the folder's lock. @throws what the system throws */
export async function devicePair(
  folder: string,
  temporary: string,
  chunks: ChunkTable,
  aside: (why: string) => void,
): Promise<Pair> {
  const header = readyHeader(chunks)
  return (await openPair(folder, header, chunks, aside)) ?? (await makePair(folder, temporary, header, chunks))
}

/** The two files as they are, for reading alone, if they are there and what they must be. Changes nothing. @throws what the system throws */
export async function readableKept(folder: string, chunks: ChunkTable): Promise<Pair | undefined> {
  const [device, ready] = [await openReadable(join(folder, 'device')), await openReadable(join(folder, 'ready'))]
  if (device !== undefined && ready !== undefined) {
    if ((await mismatch(device, ready, readyHeader(chunks), chunks)) === undefined) return { device, ready }
  }
  await device?.close()
  await ready?.close()
  return undefined
}

async function openReadable(path: string): Promise<FileHandle | undefined> {
  return await fs.open(path, 'r').catch((error) => {
    if (ABSENT.has(systemCode(error))) return undefined
    throw error
  })
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
  if (device !== undefined && ready !== undefined && why === undefined) {
    await makeLong(ready, chunks)
    return { device, ready }
  }
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
  const wanted = readyLength(chunks.length, chunks.deviceSize)
  if (readySize !== wanted && readySize !== header.length + chunks.length)
    return `the ready file has ${readySize} bytes instead of ${wanted}`
  const found = new Uint8Array(READY_CHANGING_AT)
  await readFully(ready, found, 0)
  return Buffer.from(found).equals(header.subarray(0, READY_CHANGING_AT))
    ? undefined
    : 'the ready file is of another device or version'
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
    const ready = await fs.open(join(folder, 'ready'), 'r+')
    await makeLong(ready, chunks).catch(async (error) => {
      await ready.close()
      throw error
    })
    return { device, ready }
  } catch (error) {
    await device.close()
    await fs.rm(join(folder, 'device'), { force: true })
    throw error
  }
}

/** Checksums are sparse: most of a device is never read. */
async function makeLong(ready: FileHandle, chunks: ChunkTable): Promise<void> {
  await ready.truncate(readyLength(chunks.length, chunks.deviceSize))
}

export async function readFully(file: FileHandle, into: Uint8Array, position: number): Promise<void> {
  let at = 0
  while (at < into.length) {
    const { bytesRead } = await file.read(into, at, into.length - at, position + at)
    if (bytesRead === 0) throw new Error(`the ready file ends at ${position + at}`)
    at += bytesRead
  }
}
