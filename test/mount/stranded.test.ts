import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { strandedOverlays } from '../../src/mount/stranded.ts'
import { folder } from '../store/folder.ts'

const ROOT = '/var/lib/lazylayer/store'
const LAYER = `${ROOT}/layers/aW1hZ2U=/sha256:aa/diff`

let minor = 100
const store = (dir = ROOT) => `40 22 0:${minor++} / ${dir} rw shared:1 - fuse.lazylayer lazylayer rw`
const overlay = (device: string, point: string, lower: string) =>
  `50 22 ${device} / ${point} rw - overlay overlay rw,lowerdir=${lower},upperdir=/u,workdir=/w`

/** Mount tables as files. */
async function tables(...all: string[][]): Promise<string[]> {
  const dir = await folder()
  return await Promise.all(
    all.map(async (lines, i) => {
      const path = join(dir, `${i}`)
      await writeFile(path, `22 1 8:1 / / rw - ext4 /dev/vda rw\n${lines.join('\n')}\n`)
      return path
    }),
  )
}

const points = async (isAlive: boolean, ...all: string[][]) =>
  (await strandedOverlays([{ dir: ROOT, isAlive }], await tables(...all))).map((each) => each.points)

test('an overlay is stranded that is older than the mount of its layers', async () => {
  expect(await points(true, [overlay('0:50', '/c/merged', LAYER), store()])).toEqual([['/c/merged']])
  expect(await points(true, [store(), overlay('0:50', '/c/merged', LAYER)])).toEqual([])
  // of several on one point the last is seen
  expect(await points(true, [store(), overlay('0:50', '/c/merged', LAYER), store()])).toEqual([['/c/merged']])
  expect(await points(true, [overlay('0:50', '/c/merged', '/elsewhere:/x'), store()])).toEqual([])
  expect(await points(true, [overlay('0:50', '/c/merged', `${ROOT}x/layers`), store()])).toEqual([])
})

test('all are whose layers nobody serves', async () => {
  const dead = [store(), overlay('0:50', '/c/merged', LAYER), overlay('0:51', '/d/merged', '/elsewhere')]
  expect(await points(false, dead)).toEqual([['/c/merged']])
  expect(await points(false, [overlay('0:50', '/c/merged', LAYER)])).toEqual([['/c/merged']])
})

test('a namespace that does not see the mount tells where else it is mounted, and nothing of its age', async () => {
  const inside = [overlay('0:50', '/', LAYER)]
  expect(await points(true, [store(), overlay('0:50', '/c/merged', LAYER)], inside)).toEqual([])
  expect(await points(true, inside, [overlay('0:50', '/c/merged', LAYER), store()])).toEqual([['/', '/c/merged']])
  expect(await points(true, inside)).toEqual([])
})

test('relative names count from where the engine mounted it, and its links are followed', async () => {
  const graph = await folder()
  for (const each of ['l', 'one', 'two']) await mkdir(join(graph, each))
  await symlink(LAYER, join(graph, 'one/diff'))
  await symlink('../one/diff', join(graph, 'l/ONE'))
  const line = overlay('0:50', join(graph, 'two/merged'), 'l/ONE')
  expect(await points(true, [overlay('0:50', '/', 'l/ONE')], [line, store()])).toEqual([
    ['/', join(graph, 'two/merged')],
  ])
})

test('the mount itself may be the lower directory, and a table that cannot be read is none', async () => {
  expect(await points(true, [overlay('0:50', '/c/merged', ROOT), store()])).toEqual([['/c/merged']])
  expect(await strandedOverlays([{ dir: ROOT, isAlive: true }], ['/nowhere/mountinfo'])).toEqual([])
})
