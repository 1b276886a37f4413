// Kills and power cuts: what a store has written is made again after each single call that changes something in its folder, once as a kill
// leaves it, once as a power cut may. Each must be a cache that opens, in which everything is as it was before a change or after it, and
// nothing counts as verified.
import { rmSync } from 'node:fs'
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import { AccessFile } from '../../src/store/access.ts'
import { ContestedNames } from '../../src/store/contested.ts'
import type { Device } from '../../src/store/device.ts'
import type { Disk } from '../../src/store/disk.ts'
import { ListVersion } from '../../src/store/list-version.ts'
import { type Listing, ListingRecords } from '../../src/store/listings.ts'
import type { Locks } from '../../src/store/locks.ts'
import { mayHave, Provenance, readProvenance } from '../../src/store/provenance.ts'
import { SealedFolder } from '../../src/store/sealed-folder.ts'
import { Store } from '../../src/store/store.ts'
import { devicesIn } from '../../src/store/usage.ts'
import { versionOf } from '../../src/store/version.ts'
import { READY_MISSING, READY_VERIFIED } from '../../src/tree/ready.ts'
import { runs } from '../fixtures/runs.ts'
import { Random } from '../soak/random.ts'
import { CHUNK_BYTES, write } from './chunks.ts'
import { disk } from './disk.ts'
import { folder } from './folder.ts'
import { LAYER, RECORD, tree } from './layer.ts'
import { recording } from './write-log.ts'

const TIMEOUT_MS = 120_000 * runs(1)
/** A copy is opened by one process only. */
const alone: Locks = { tryLock: () => true }
const bytes = (of: string) => new TextEncoder().encode(of)
const digest = (of: string) => digestOf(bytes(of))
const OBJECT = bytes('a manifest')
const MERGED = bytes('a merged image')
const WHOLE = bytes('a whole blob '.repeat(1000))
const [KEY, POLICY, BLOB] = [digest('key'), digest('policy'), digest('blob')]
const ONE = tree(3, 'one')
const TWO = tree(4, 'two')
const ROOT = '/root'
const REPOSITORY = 'registry.example.com/a'
const OTHER = 'registry.example.com/b'
const IMAGE = { repository: REPOSITORY, platform: 'linux/amd64', manifest: digest('m') }
const CLAIM = { blob: BLOB, tree: ONE.digest }
const EXAMINED = { diffId: digest('tar'), tarSize: 10, split: digest('split') }
const CONTESTED = { diffId: digest('tar'), blob: BLOB, tree: ONE.digest, together: false }
const listing = (name: string, proven: boolean[] = []): Listing => ({
  reference: name,
  manifest: digest(name),
  by: ['diffid'],
  ...(proven.length > 0 ? { proven } : {}),
})
const profile = (path: string) => ({ files: [{ layer: BLOB, path, ranges: [] }], stored: [] })

const record = recording()

/** A change of something is begun, or is promised to be kept. */
interface Note {
  key: Key
  /** What it is then; undefined where the change has ended. */
  to?: unknown
}

/** What a cache may be asked, and what it says. */
const READ = {
  object: async (store: Store) => (await store.getObject(digestOf(OBJECT)))?.length,
  layer: async (store: Store) => (await store.layer(LAYER))?.tree,
  merged: async (store: Store) => (await store.merged(KEY))?.image,
  tag: async (store: Store) => (await store.tags.of('a', 'b'))?.manifest,
  accepted: async (store: Store) => (await store.accepted('a', KEY, POLICY)) || undefined,
  pins: async (store: Store) => (await store.pins.all()).map(({ trees }) => trees.length),
  listed: async ({ dir }: Store) => {
    const all = await (await ListingRecords.open(dir, ROOT, () => {})).all()
    return all.map(({ reference, proven }) => `${reference} ${proven?.join() ?? false}`)
  },
  version: async ({ dir }: Store) => (await ListVersion.open(dir, ROOT, () => {})).restored?.version.toString(),
  contested: async ({ dir }: Store) => (await (await ContestedNames.open(dir, () => {})).all()).length,
  verdict: async (store: Store) => (await store.proofs.of(CLAIM))?.verdict,
  profile: async (store: Store) => (await store.profiles.of(IMAGE))?.profile.files[0]?.path,
  whole: async (store: Store) => {
    if (!store.wholes.has(digestOf(WHOLE))) return undefined // to hash it takes a thread
    const file = await store.wholes.find(digestOf(WHOLE))
    const found = await file?.readFile()
    await file?.close()
    return found?.length
  },
  access: async ({ dir }: Store) => (await accessOf(dir).read()).shown.map(({ repository }) => repository),
  sealed: async ({ dir }: Store) => String(await new SealedFolder(dir).read('x')),
}
type Key = keyof typeof READ

/** Everything that a store keeps, changed, replaced and removed. */
async function use(dir: string, holes: Disk, note: (note: Note | string) => void): Promise<void> {
  const change = async (key: Key, to: unknown, work: Promise<unknown> | (() => Promise<unknown>)) => {
    note({ key, to })
    await (typeof work === 'function' ? work() : work)
    note({ key })
  }
  const store = await Store.open(dir, alone, () => {}, { disk: holes })
  await change('object', OBJECT.length, () => store.putObject(digestOf(OBJECT), OBJECT))
  await change('layer', ONE.digest, () => store.keepLayer(LAYER, RECORD, ONE))
  await change('tag', KEY, () => store.tags.keep('a', 'b', KEY))
  const merged = { image: digestOf(MERGED), trees: [ONE.digest] }
  await change('merged', merged.image, () => store.keepMerged(KEY, MERGED, merged))
  note(`slot ${(await store.numbersOf(ONE.digest)).slot}`)
  await change('accepted', true, () => store.keepAccepted('a', KEY, POLICY))
  await change('pins', [1], () => store.pins.add({ reference: 'a', trees: [ONE.digest] }))
  const listings = await ListingRecords.open(store.dir, ROOT, () => {})
  await change('listed', ['a false'], () => listings.keep(listing('a')))
  await change('listed', ['a false', 'b false'], () => listings.keep(listing('b')))
  await change('listed', ['a true', 'b false'], () => listings.keep(listing('a', [true])))
  await change('listed', ['a true'], () => listings.forget(listing('b')))
  const version = await ListVersion.open(store.dir, ROOT, () => {})
  for (const each of ['1', '2']) {
    version.keep(BigInt(each), bytes(each))
    await change('version', each, () => version.close())
  }
  const contested = await ContestedNames.open(store.dir, () => {})
  await change('contested', 1, () => contested.keep(CONTESTED))
  await change('contested', 0, () => contested.forget(CONTESTED))
  await change('verdict', 'refuted', () => store.proofs.keep(CLAIM, { ...EXAMINED, verdict: 'refuted', why: 'no' }))
  await change('verdict', 'proven', () => store.proofs.keep(CLAIM, { ...EXAMINED, verdict: 'proven' }))
  await change('profile', 'a', () => store.profiles.keep(IMAGE, 'start', profile('a')))
  await change('profile', 'b', () => store.profiles.keep(IMAGE, 'start', profile('b')))
  const { file, path } = await store.wholes.begin()
  await file.writeFile(WHOLE)
  await file.close()
  await change('whole', WHOLE.length, () => store.wholes.keep(digestOf(WHOLE), path))
  const sealed = new SealedFolder(store.dir)
  await change('sealed', '1', () => sealed.write('x', bytes('1')))
  await change('sealed', '2', () => sealed.write('x', bytes('2')))
  await change('sealed', 'undefined', () => sealed.remove('x'))
  const device = await store.openSlots(ONE.digest, ONE.chunks)
  const from = provenance(store.dir, device)
  await change('access', [REPOSITORY], () => accessOf(dir).add({ repository: REPOSITORY, credentials: '' }))
  await change('access', [REPOSITORY, OTHER], () => accessOf(dir).add({ repository: OTHER, credentials: '' }))
  await from.add({ repository: OTHER, anonymous: true })
  await device.fill(0, write)
  await from.add({ repository: REPOSITORY, anonymous: false })
  note('private')
  for (const chunk of [1, 2]) await device.fill(chunk, write)
  await device.takeBackChunks([1])
  await device.fill(1, write)
  await device.close()
  await change('pins', [2], () => store.pins.add({ reference: 'a', trees: [ONE.digest, TWO.digest] }))
  await change('pins', [], () => store.pins.remove('a'))
  await change('layer', TWO.digest, () => store.keepLayer(LAYER, RECORD, TWO))
  await change('tag', POLICY, () => store.tags.keep('a', 'b', POLICY))
  await store.close()
  // another life, of which nothing is left of the first one's version, and in which a device goes
  await fs.writeFile(join(dir, 'version'), 'lazylayer cac')
  const next = await Store.open(dir, alone, () => {}, { disk: holes })
  const again = await next.openSlots(ONE.digest, ONE.chunks)
  await again.fill(2, write)
  await again.close()
  for (const each of await devicesIn(dir, new Set(), alone)) await each.go()
  await next.close()
}

function accessOf(dir: string): AccessFile {
  return new AccessFile(join(dir, 'trees', hex(ONE.digest)), alone)
}

function provenance(dir: string, device: Device): Provenance {
  const parts = { folder: join(dir, 'trees', hex(ONE.digest)), locks: alone, layer: LAYER, kept() {} }
  return new Provenance({ ...parts, states: () => device.states() })
}

/** What each may be: what was promised last, and whatever was begun since. */
function allowed(notes: readonly (Note | string)[]): Map<Key, unknown[]> {
  const all = new Map<Key, unknown[]>(Object.keys(READ).map((key) => [key as Key, []]))
  for (const note of notes) {
    if (typeof note === 'string') continue
    const before = all.get(note.key) ?? []
    all.set(note.key, 'to' in note ? [...before, note.to] : before.slice(-1))
  }
  return all
}

/** Before anything was kept. */
const NOTHING: Partial<Record<Key, unknown>> = { pins: [], listed: [], access: [], contested: 0, sealed: 'undefined' }
/** What can be found out again may be lost: a whole blob, and what was built of a layer while it is replaced. */
const mayBeLost = (key: Key, values: readonly unknown[]) => key === 'whole' || (key === 'layer' && values.length > 1)

async function check(dir: string, notes: readonly (Note | string)[]): Promise<void> {
  const store = await Store.open(dir, alone, () => {})
  const begun = new Set(notes.flatMap((note) => (typeof note === 'string' ? [] : [note.key])))
  const promised = new Set(notes.flatMap((note) => (typeof note === 'string' || 'to' in note ? [] : [note.key])))
  for (const [key, values] of allowed(notes)) {
    const found = await READ[key](store)
    const may = promised.has(key) && !mayBeLost(key, values) ? values : [NOTHING[key], ...values]
    expect(may, `${key}, ${begun.has(key) ? 'which was begun' : 'of which nothing was said'}`).toContainEqual(found)
  }
  for (const each of [ONE, TWO]) {
    const image = await store.openImage(each.digest)
    if (image !== undefined) expect(await image.readFile()).toEqual(Buffer.from(each.image))
    await image?.close()
    await store.keepLayer(digest(each.digest), RECORD, each)
  }
  const [one, two] = [await store.numbersOf(ONE.digest), await store.numbersOf(TWO.digest)]
  if (notes.includes('slot 1')) expect(one).toEqual({ slot: 1, inodeBase: 0 })
  expect(two.slot).not.toBe(one.slot)
  expect(Math.abs(two.inodeBase - one.inodeBase)).toBeGreaterThanOrEqual(ONE.image.length / 32)
  const device = await store.openSlots(ONE.digest, ONE.chunks)
  const states = await device.states()
  expect([...states]).not.toContain(READY_VERIFIED)
  // whoever else asks is given no bytes that may be a private repository's
  const said = await readProvenance(join(dir, 'trees', hex(ONE.digest)))
  if (notes.includes('private') && states.some((state) => state !== READY_MISSING) && said !== undefined) {
    expect(said !== 'damaged' && mayHave(said, OTHER)).toBe(false)
  }
  // what differs from its digest is fetched again, and so is what is gone
  for (const chunk of states.keys()) await fetched(device, chunk)
  const read = new Uint8Array(3 * CHUNK_BYTES)
  await device.read(read, 0, [0, 1, 2], () => Promise.reject(new Error('it is there')))
  for (const chunk of states.keys()) expect(read.at(chunk * CHUNK_BYTES)).toBe(chunk + 1)
  await device.close()
  expect(store.counters.corruptImages).toBe(0)
  await store.close()
}

/** As the filler does it. */
async function fetched(device: Device, chunk: number): Promise<void> {
  const read = new Uint8Array(CHUNK_BYTES)
  if (device.state(chunk) !== READY_MISSING) {
    const { bytesRead } = await fs.open(`/proc/self/fd/${device.deviceFd}`, 'r').then(async (file) => {
      const got = await file.read(read, 0, CHUNK_BYTES, chunk * CHUNK_BYTES)
      await file.close()
      return got
    })
    if (bytesRead === CHUNK_BYTES && read.every((byte) => byte === chunk + 1)) return await device.check(chunk, write)
  }
  await device.fill(chunk, write)
}

/**
 * Runs `work` on a new cache, then `each` on what is left of it: of a kill and of power cuts.
 * @param every of so many moments is tried one in an ordinary run of the tests, in a soak each of them
 * @returns how many moments there are
 */
async function cutAnywhere(
  work: (dir: string, holes: Disk, note: (note: Note | string) => void) => Promise<void>,
  each: (dir: string, notes: (Note | string)[]) => Promise<void>,
  every = 2,
): Promise<number> {
  const root = await folder()
  const recorded = await record(root)
  const real = disk()
  const holes: Disk = {
    ...real,
    async punchHoles(fd, ranges) {
      await real.punchHoles(fd, ranges)
      recorded.punched(fd, ranges)
    },
  }
  await work(join(root, 'cache'), holes, (note) => recorded.note(note))
  recorded.end()
  // nothing was written that was not seen
  recorded.restore(Number.POSITIVE_INFINITY, join(root, 'all'))
  expect(await filesIn(join(root, 'all/cache'))).toEqual(await filesIn(join(root, 'cache')))
  const moments = recorded.moments()
  for (const [i, moment] of moments.entries()) {
    const notes = recorded.notes(moment) as (Note | string)[]
    // a sample in every run of the tests: after some of the calls, in turns a kill and a cut
    const cuts =
      runs(1) > 1 ? Array.from({ length: runs(1) + 1 }, (_, cut) => cut) : i % every === 0 ? [(i / every) % 2] : []
    for (const cut of cuts) {
      const to = join(root, 'left')
      recorded.restore(moment, to, cut === 0 ? undefined : new Random(moment * 1000 + cut))
      const what = `${cut === 0 ? 'killed' : `power cut ${cut}`} at moment ${moment} of ${moments.at(-1)}`
      await each(join(to, 'cache'), notes).catch((cause) => {
        throw cause instanceof Failure || !(cause instanceof Error)
          ? new Error(what, { cause })
          : Object.assign(cause, { message: `${what}: ${cause.message}` })
      })
      rmSync(to, { recursive: true })
    }
  }
  return moments.length
}

async function filesIn(dir: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const path of (await fs.readdir(dir, { recursive: true })).sort()) {
    found[path] = await fs.readFile(join(dir, path), 'latin1').catch(() => 'a folder')
  }
  return found
}

test('after any call of a life a cut leaves a cache in which all is old or new', { timeout: TIMEOUT_MS }, async () => {
  expect(await cutAnywhere(use, check, 5)).toBeGreaterThan(150)
})

test('after any call of setting another version aside a cut loses nothing of the old', {
  timeout: 120_000,
}, async () => {
  const work = async (dir: string, _: Disk, note: (note: string) => void) => {
    const store = await Store.open(dir, alone, () => {})
    await store.putObject(digestOf(OBJECT), OBJECT)
    await store.close()
    await fs.writeFile(join(dir, 'version'), 'lazylayer cache 0\n')
    note('of another version')
    await (await Store.open(dir, alone, () => {})).close()
  }
  const objects = async (dir: string) =>
    (await fs.readdir(dir, { recursive: true })).filter((path) => /^(\.aside-\d\/)?objects\/\w{64}$/.test(path))
  let looked = 0
  await cutAnywhere(work, async (dir, notes) => {
    if (!notes.includes('of another version')) return
    looked++
    const version = await fs.readFile(join(dir, 'version')).catch(() => Buffer.alloc(0)) // it is being replaced
    expect(await objects(dir)).toHaveLength(1)
    const warnings: string[] = []
    await (await Store.open(dir, alone, (message) => warnings.push(message))).close()
    // whoever finds the new cache begun removes the old one, as after any start
    if (versionOf(version) !== 'ours') expect(await objects(dir)).toHaveLength(1)
  })
  expect(looked).toBeGreaterThan(10)
})
