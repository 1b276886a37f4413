import { open } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { Tars } from '../../src/proof/tars.ts'
import { openFiles } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

/** Of what comes about by itself; not a duration that matters. */
const WAIT_MS = 120_000

const DIFF_ID = digestOf(new Uint8Array())
const IDLE_MS = 60_000

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
afterEach(() => void vi.useRealTimers())

async function tars() {
  const dir = await folder()
  const warnings: string[] = []
  const tar = async (name: string) => {
    const file = await open(join(dir, name), 'w+')
    await file.write('0123456789')
    return file
  }
  const opened = async () => (await openFiles(dir)).map((path) => basename(path))
  const nothingIsOpen = async () => await vi.waitFor(async () => expect(await opened()).toEqual([]), WAIT_MS)
  return { kept: new Tars((message) => warnings.push(message)), tar, opened, nothingIsOpen, warnings }
}

test('a tar that is read is kept; one that is not, for a minute', async () => {
  const { kept, tar, opened, nothingIsOpen, warnings } = await tars()
  kept.keep(DIFF_ID, await tar('tar'))
  await vi.advanceTimersByTimeAsync(IDLE_MS - 1)
  expect(Buffer.from((await kept.read(DIFF_ID, { start: 2, end: 5 })) as Uint8Array).toString()).toBe('234')
  await vi.advanceTimersByTimeAsync(IDLE_MS - 1)
  expect(await opened()).toEqual(['tar'])
  await vi.advanceTimersByTimeAsync(1)
  expect(kept.read(DIFF_ID, { start: 2, end: 5 })).toBeUndefined()
  await nothingIsOpen()
  expect(warnings).toEqual([])
})

test('of the same tar one file is kept; a read beyond its end is corrupt', async () => {
  const { kept, tar, opened, nothingIsOpen } = await tars()
  kept.keep(DIFF_ID, await tar('first'))
  kept.keep(DIFF_ID, await tar('second'))
  await vi.waitFor(async () => expect(await opened()).toEqual(['first']), WAIT_MS)
  await expect(kept.read(DIFF_ID, { start: 9, end: 11 })).rejects.toMatchObject({ code: 'corrupt' })
  await kept.close()
  expect(vi.getTimerCount()).toBe(0)
  await nothingIsOpen()
})

test('what is closed while it is read stays closed', async () => {
  const { kept, tar, nothingIsOpen, warnings } = await tars()
  kept.keep(DIFF_ID, await tar('tar'))
  const reading = kept.read(DIFF_ID, { start: 0, end: 10 })
  await kept.close()
  expect((await reading)?.length).toBe(10)
  await vi.advanceTimersByTimeAsync(2 * IDLE_MS)
  await nothingIsOpen()
  expect(warnings).toEqual([])
})
