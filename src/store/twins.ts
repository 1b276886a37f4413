// Records of what nothing else can say again: what engines were shown, what reading a layer whole said, what a tag meant. Each is kept
// four times, so that damage to a file, or to a folder, loses none: a file holds it twice, and so does its twin.
//
//   CACHE/<name>         record, record
//   CACHE/twins/<name>   the same
//
// Whoever reads one that is damaged, or gone, has it restored from what is left of it.
import fs from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../errors.ts'
import {
  ABSENT,
  diskFailure,
  dropDamaged,
  makeFolder,
  readWhole,
  removeFile,
  replaceFile,
  systemCode,
} from './durable.ts'
import { decodeRecord, encodeRecord } from './record.ts'
import { TEMPORARY } from './version.ts'

export const TWINS = 'twins'
/** The largest is a pin of 1024 layers, of 75 bytes each, twice. */
const FILE_MAX_BYTES = 256 << 10

/** Whether a record is what its name promises: damage can swap files, too. */
export type Is<T> = (record: unknown) => record is T

/** Whether a record has these fields, and they say that. */
export function says(record: unknown, fields: Record<string, string>): record is object {
  if (typeof record !== 'object' || record === null) return false
  return Object.entries(fields).every(([name, value]) => (record as Record<string, unknown>)[name] === value)
}

/** Is told of each damage that is found, in a sentence. */
export type Found = (message: string) => void

interface Copy<T> {
  /** Undefined: nothing of it can be read. */
  record: T | undefined
  state: 'whole' | 'single' | 'damaged' | 'absent'
}

/** @throws Failure system */
export async function keepTwins(cache: string, name: string, record: object): Promise<void> {
  const bytes = doubled(record)
  // at once, for each is whole or as it was: an engine may wait for the disk here
  const paths = [join(cache, name), join(cache, TWINS, name)]
  const kept = await Promise.allSettled(paths.map((path) => keepFile(cache, path, bytes)))
  for (const each of kept) if (each.status === 'rejected') throw each.reason
}

/** The record, restored where it was damaged; undefined: there is none, or nothing is left of it, which is told. @throws Failure system */
export async function readTwins<T extends object>(
  cache: string,
  name: string,
  is: Is<T>,
  found: Found,
): Promise<T | undefined> {
  const [path, twinPath] = [join(cache, name), join(cache, TWINS, name)]
  const [first, twin] = await Promise.all([readCopy(path, is), readCopy(twinPath, is)])
  const record = first.record ?? twin.record
  if (record === undefined) {
    if (first.state === 'absent' && twin.state === 'absent') return undefined
    found(`${path} is dropped: it is damaged, or of another version`)
    await dropDamaged(path)
    await dropDamaged(twinPath)
    return undefined
  }
  if (first.state === 'whole' && twin.state === 'whole') return record
  // as it was kept before there were twins
  const isOld = first.state === 'single' && twin.state === 'absent'
  if (!isOld) found(`${first.state === 'whole' ? twinPath : path} was damaged: it is restored`)
  await keepTwins(cache, name, record).catch((error) => {
    found(`${path} cannot be restored: ${error instanceof Error ? error.message : error}`) // a full disk: what was read counts
  })
  return record
}

/** The same, but it changes nothing. @throws Failure system */
export async function peekTwins<T extends object>(cache: string, name: string, is: Is<T>): Promise<T | undefined> {
  for (const path of [join(cache, name), join(cache, TWINS, name)]) {
    const { record } = await readCopy(path, is)
    if (record !== undefined) return record
  }
  return undefined
}

/** Resolves when both are gone. @throws Failure system */
export async function removeTwins(cache: string, name: string): Promise<void> {
  for (const path of [join(cache, TWINS, name), join(cache, name)]) await removeFile(path)
}

/** The names of what is kept in a folder, in order. @throws Failure system */
export async function namesOfTwins(cache: string, folder: string): Promise<string[]> {
  const names = new Set<string>()
  for (const path of [join(cache, folder), join(cache, TWINS, folder)]) {
    const found = await fs.readdir(path).catch((cause) => {
      if (ABSENT.has(systemCode(cause))) return []
      throw diskFailure(path, cause)
    })
    for (const each of found) names.add(each)
  }
  return [...names].sort()
}

async function keepFile(cache: string, path: string, bytes: Uint8Array): Promise<void> {
  const put = () => replaceFile(join(cache, TEMPORARY), path, bytes)
  await put().catch(async (error) => {
    if (!ABSENT.has(systemCode(error instanceof Failure ? error.cause : error))) throw error
    await makeFolders(cache, dirname(path)) // they are there but for the first time, or when something happened to them
    await put()
  })
}

async function makeFolders(cache: string, folder: string): Promise<void> {
  if (folder === cache) return
  await makeFolders(cache, dirname(folder))
  await makeFolder(folder)
}

async function readCopy<T>(path: string, is: Is<T>): Promise<Copy<T>> {
  const bytes = await readWhole(path, FILE_MAX_BYTES)
  if (bytes === undefined) return { record: undefined, state: 'absent' }
  if (bytes === 'damaged') return { record: undefined, state: 'damaged' }
  const half = bytes.length / 2
  const line = bytes.indexOf(NEWLINE) + 1 // of one that lost its end, or some of its beginning
  const copies = [bytes.subarray(0, half), bytes.subarray(half), bytes.subarray(0, line), bytes.subarray(line)]
  const records = copies.map((each) => {
    const record = decodeRecord(each)
    return is(record) ? record : undefined
  })
  const [one, other] = records
  if (one !== undefined && other !== undefined) return { record: one, state: 'whole' }
  const record = records.find((each) => each !== undefined)
  if (record === undefined) return { record, state: 'damaged' }
  return { record, state: line === bytes.length ? 'single' : 'damaged' }
}

const NEWLINE = 10

function doubled(record: object): Uint8Array {
  const bytes = encodeRecord(record)
  return Buffer.concat([bytes, bytes])
}
