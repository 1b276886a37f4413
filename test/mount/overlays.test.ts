import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { lowerDirsBelow } from '../../src/mount/overlays.ts'
import { folder } from '../store/folder.ts'

const ROOT = '/var/lib/lazylayer/store'
const A = `${ROOT}/layers/aW1hZ2U=/sha256:aa/diff`
const B = `${ROOT}/layers/aW1hZ2U=/sha256:bb/diff`

async function check(options: string, wanted: string[], type = 'overlay'): Promise<void> {
  const table = join(await folder(), 'mountinfo')
  await writeFile(
    table,
    `22 1 0:21 / / rw - ext4 /dev/vda rw\n40 22 0:50 / /m rw shared:1 - ${type} overlay ${options}\n`,
  )
  expect([...(await lowerDirsBelow(ROOT, [table]))].sort()).toEqual(wanted)
}

test('lower directories are found as they were named: joined by colons, one by one, escaped', async () => {
  const escaped = (path: string) => path.replaceAll(':', '\\134:')
  await check(`rw,lowerdir=${escaped(A)}:${escaped(B)},upperdir=/u,workdir=/w`, [A, B])
  await check(`rw,lowerdir+=${A},lowerdir+=/other,upperdir=/u`, [A])
  await check(`rw,lowerdir=/other:${ROOT}x/layers,upperdir=${B}`, [])
  await check(`rw,lowerdir=${escaped(A)}`, [], 'erofs')
})

test('links of an engine are followed to the store, and no further', async () => {
  const graph = await folder()
  for (const each of ['l', 'one', 'two', 'loop']) await mkdir(join(graph, each))
  await symlink(A, join(graph, 'one/diff'))
  await symlink('../one/diff', join(graph, 'l/ONE'))
  await mkdir(join(graph, 'two/diff'))
  await symlink('../two/diff', join(graph, 'l/TWO'))
  await symlink('LOOP', join(graph, 'l/LOOP'))
  const lower = ['ONE', 'TWO', 'LOOP', 'GONE'].map((each) => join(graph, 'l', each)).join(':')
  await check(`rw,lowerdir=${lower}`, [A])
  await check('rw,lowerdir=l/ONE:l/TWO,upperdir=x', [])
})
