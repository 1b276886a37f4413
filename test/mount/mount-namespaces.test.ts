import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { keepersOf } from '../../src/mount/mount-namespaces.ts'
import { OWN_TABLE } from '../../src/mount/mount-table.ts'
import { folder } from '../store/folder.ts'

const ROOT = '/var/lib/lazylayer/store'

/** The table of a process that has this mounted. */
async function process(pid: number, point: string, optional = ''): Promise<string> {
  const home = join(await folder(), `${pid}`)
  await mkdir(home)
  await writeFile(join(home, 'comm'), 'sleep\n')
  const table = join(home, 'mountinfo')
  await writeFile(table, `40 22 0:50 / ${point} rw${optional} - erofs /proc/self/fd/7 ro\n`)
  return table
}

test('a process of another namespace that keeps copies is named', async () => {
  expect(await keepersOf(ROOT, [OWN_TABLE, await process(12, `${ROOT}/layers/a`)])).toEqual(['sleep (12)'])
  expect(await keepersOf(ROOT, [await process(13, ROOT)])).toEqual(['sleep (13)'])
})

test('one is not whose copies go with the mounts, that has others, or that has ended', async () => {
  const others = [
    await process(14, ROOT, ' master:3'),
    await process(15, ROOT, ' shared:3'),
    await process(16, `${ROOT}x`),
    join(await folder(), 'none/mountinfo'),
  ]
  expect(await keepersOf(ROOT, others)).toEqual([])
})
