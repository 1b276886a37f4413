import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { mountTable } from '../../src/mount/mount-table.ts'
import { visibility } from '../../src/mount/propagation.ts'
import { folder } from '../store/folder.ts'

test('a mount is seen where the same filesystem is at the same path', async () => {
  const proc = (await mountTable()).findLast(({ point }) => point === '/proc')
  const host = join(await folder(), 'mountinfo')
  const line = (point: string, device: string) => `7 1 ${device} / ${point} rw - proc proc rw\n`
  const write = (...lines: string[]) => writeFile(host, ['1 0 8:1 / / rw - ext4 /dev/vda rw\n', ...lines].join(''))
  await write(line('/proc', proc?.device ?? ''))
  expect(await visibility('/proc', host)).toEqual({ seen: 'yes' })
  for (const lines of [[], [line('/elsewhere', proc?.device ?? '')], [line('/proc', '0:9999')]]) {
    await write(...lines)
    const { seen, why } = await visibility('/proc', host)
    expect([seen, why]).toEqual(['no', expect.stringMatching(/^engines .* do not see \/proc: .+/)])
  }
})

test('what cannot be read, or is not mounted, is said to be unknown', async () => {
  const none = join(await folder(), 'none')
  expect(await visibility('/proc', none)).toEqual({ seen: 'unknown', why: expect.stringContaining('ENOENT') })
  expect(await visibility('/nowhere')).toMatchObject({ seen: 'unknown' })
})
