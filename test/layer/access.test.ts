// Who is shown what others fetched: only an image whose own registry gives a part of it that nobody could foresee.
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Source } from '../../src/format/format.ts'
import type { Blob, Giver, Range } from '../../src/image/blob.ts'
import { hex } from '../../src/image/digest.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { contents, lazyLayer, type MadeLayer, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

const HOST = 'registry.example.com'
const TEAM = `${HOST}/team/app`
const OTHER = `${HOST}/other/app`
const FILES = { secret: 'the text of a file\n'.repeat(1000), more: 'and of another\n'.repeat(2000) }

/** What is asked for with whom: ada may read TEAM, and OTHER if somebody copied it there. */
const logins = new Map([
  [TEAM, 'ada'],
  [OTHER, 'eve'],
])

async function start(dir: string, as: ReadonlyMap<string, string> = logins) {
  return await openCache(dir, undefined, { credentials: async (repository) => as.get(repository) ?? '' })
}
type Cache = Awaited<ReturnType<typeof start>>

/** A layer as a repository has it, with what was asked for of it. */
function placed(made: MadeLayer, repository: string, anonymous = false) {
  const ranges: Range[] = []
  let failure: Failure | undefined
  let flips = false
  const { digest, size } = made.blob
  const giver: Giver = { repository, anonymous }
  const blob: Blob = {
    digest,
    size,
    async read(range, options) {
      ranges.push(range)
      if (failure !== undefined) throw failure
      await options?.onGiver?.(giver)
      const bytes = await made.blob.read(range)
      return flips ? bytes.map((each) => each ^ 1) : bytes
    },
  }
  const source: Source = { ...sourceOf(blob), repository }
  return {
    ranges,
    open: ({ layers }: Cache, from: 'anywhere' | 'disk' = 'anywhere'): Promise<LayerLease> =>
      layers.open(unitOf(made.descriptor), source, HOST, from),
    fail: (how: Failure | undefined) => {
      failure = how
    },
    lie: () => {
      flips = true
    },
  }
}

async function scene(anonymous = false) {
  const dir = await folder()
  const made = await lazyLayer(FILES)
  return {
    dir,
    made,
    cache: await start(dir),
    team: placed(made, TEAM, anonymous),
    other: placed(made, OTHER, anonymous),
  }
}

async function readAll(layer: LayerLease): Promise<void> {
  for (const [path, text] of Object.entries(FILES)) expect(await contents(layer, path)).toBe(text)
}

const NOT_HERE = Failure.missing('no such blob')

test('the first image to open a layer is asked for nothing more, also when it opens it again, and after a restart', async () => {
  const { dir, cache, team } = await scene()
  const layer = await team.open(cache)
  expect(team.ranges).toHaveLength(1) // the index
  await readAll(layer)
  const before = team.ranges.length
  await team.open(cache)
  await cache.close()
  await readAll(await team.open(await start(dir)))
  expect(team.ranges).toHaveLength(before)
})

test('an image whose registry does not have the layer is not shown what another fetched, though it names its digests', async () => {
  const { dir, cache, team, other } = await scene()
  await readAll(await team.open(cache))
  other.fail(NOT_HERE)
  const refused = {
    code: 'missing',
    message: expect.stringContaining(`is here, and is not shown to ${OTHER}`),
    why: expect.stringContaining('no such blob'),
  }
  await expect(other.open(cache)).rejects.toMatchObject(refused)
  await cache.close()
  const next = await start(dir)
  await expect(other.open(next)).rejects.toMatchObject(refused)
  await readAll(await team.open(next))
})

test('nor is one whose registry gives other bytes', async () => {
  const { cache, team, other } = await scene()
  await readAll(await team.open(cache))
  other.lie()
  await expect(other.open(cache)).rejects.toMatchObject({ code: 'corrupt' })
})

test('one whose registry gives a part is shown all, and is asked once: not again after a restart, nor offline', async () => {
  const { dir, cache, team, other } = await scene()
  await readAll(await team.open(cache))
  await readAll(await other.open(cache))
  expect(other.ranges).toHaveLength(1)
  const [{ start: from, end }] = other.ranges as [Range]
  expect(end - from).toBeGreaterThan(0)
  await cache.close()
  for (const each of [team, other]) each.fail(Failure.unavailable('nobody answers'))
  const next = await start(dir)
  await readAll(await other.open(next))
  await readAll(await team.open(next))
  expect(other.ranges).toHaveLength(1)
})

test('who did not show it before is not shown it offline, which is said', async () => {
  const { cache, team, other } = await scene()
  await readAll(await team.open(cache))
  other.fail(Failure.unavailable('nobody answers'))
  await expect(other.open(cache)).rejects.toMatchObject({
    code: 'unavailable',
    why: expect.stringContaining('is shown once its registry gives a part of it'),
  })
  other.fail(undefined)
  await readAll(await other.open(cache))
})

test('another login for the same repository shows it for itself', async () => {
  const { dir, made, cache, team } = await scene()
  await readAll(await team.open(cache))
  await cache.close()
  const next = await start(dir, new Map([[TEAM, 'eve']]))
  const hers = placed(made, TEAM)
  hers.fail(Failure.denied('the credentials do not suffice'))
  await expect(hers.open(next)).rejects.toMatchObject({ code: 'denied' })
  hers.fail(undefined)
  await readAll(await hers.open(next))
  expect(hers.ranges.length).toBeGreaterThan(0)
})

test('what came without credentials is shown to everybody', async () => {
  const { dir, made } = await scene()
  const cache = await start(dir, new Map())
  const [team, other] = [placed(made, TEAM, true), placed(made, OTHER, true)]
  await readAll(await team.open(cache))
  await readAll(await other.open(cache))
  expect(other.ranges).toEqual([])
})

test('who came first with nothing keeps the next one from bringing it his bytes', async () => {
  const { cache, team, other } = await scene()
  // all that it has is the index, which tells the digests
  const held = await other.open(cache)
  other.fail(NOT_HERE)
  await expect(team.open(cache)).rejects.toMatchObject({
    code: 'denied',
    message: expect.stringContaining(`is not lazy for ${TEAM}`),
    why: expect.stringContaining(OTHER),
  })
  expect(cache.warnings).toContainEqual(expect.stringContaining(`is not lazy for ${TEAM}`))
  await held.close()
  await readAll(await team.open(cache))
  // and is not shown it later for having come first
  await expect(other.open(cache)).rejects.toMatchObject({ code: 'missing' })
})

test('names of files are shown to nobody who has not got the index himself', async () => {
  const { cache, team, other } = await scene()
  await (await team.open(cache)).close()
  other.fail(NOT_HERE)
  await expect(other.open(cache)).rejects.toMatchObject({ code: 'missing' })
})

test('what an earlier process showed is shown again, with whatever credentials there are by then', async () => {
  const { dir, made, cache, team } = await scene()
  await readAll(await team.open(cache))
  await cache.close()
  const next = await start(dir, new Map())
  const again = placed(made, TEAM)
  again.fail(Failure.denied('no credentials'))
  await readAll(await again.open(next, 'disk'))
})

test('a record that is damaged, or another tree’s, shows nothing to anybody', async () => {
  const { dir, cache, team } = await scene()
  const layer = await team.open(cache)
  await readAll(layer)
  await cache.close()
  const path = join(dir, 'trees', hex(layer.tree), 'access.json')
  const record = await readFile(path, 'utf8')
  expect(record).not.toContain('hunter2')
  await writeFile(path, record.replace('"ada"', '"eve"'))
  team.ranges.length = 0
  await readAll(await team.open(await start(dir)))
  expect(team.ranges).toHaveLength(1)
})

test('a layer that is served from its whole blob is shown to whose registry gives bytes of it', async () => {
  const { dir } = await scene()
  const made = await lazyLayer(FILES)
  const cache = await start(dir)
  const at = (repository: string) => {
    const ranges: Range[] = []
    let has = true
    const blob = {
      digest: made.descriptor.digest,
      size: made.blob.size,
      origin: HOST,
      read: async (range: Range) => {
        ranges.push(range)
        if (!has) throw NOT_HERE
        return await made.blob.read(range)
      },
      stream: async (take: (bytes: Uint8Array) => Promise<void>) => {
        if (!has) throw NOT_HERE
        await take(await made.blob.read({ start: 0, end: made.blob.size }))
      },
    }
    const open = () =>
      cache.layers.openWhole({ ...made.descriptor, annotations: {} }, blob, true, 'anywhere', repository)
    return { ranges, open, lose: () => (has = false) }
  }
  const [team, other, third] = [at(TEAM), at(OTHER), at(`${HOST}/third/app`)]
  await readAll((await team.open()) as LayerLease)
  expect(team.ranges).toEqual([])
  third.lose()
  await expect(third.open()).rejects.toMatchObject({ code: 'missing' })
  await readAll((await other.open()) as LayerLease)
  expect(other.ranges).toHaveLength(1)
  const [{ start: from, end }] = other.ranges as [Range]
  expect(end - from).toBe(Math.min(made.blob.size, 16 << 10))
})
