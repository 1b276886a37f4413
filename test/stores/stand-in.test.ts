import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { StandIns } from '../../src/stores/stand-in.ts'
import { openFiles } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

test('a layer is a regular file that says what to do, where no agent serves it', async () => {
  const root = await folder()
  const standIns = await StandIns.open(root)
  await standIns.put(['layers', 'cmVm', 'sha256:ab'])
  const diff = join(root, 'layers/cmVm/sha256:ab/diff')
  expect((await stat(diff)).isFile()).toBe(true)
  expect((await stat(diff)).mode & 0o222).toBe(0)
  expect(await readFile(diff, 'utf8')).toContain('lazylayer serve')
  expect(await readdir(join(root, 'layers/cmVm/sha256:ab'))).toEqual(['diff'])
  await standIns.close()
})

test('it is put once, and what is there stays', async () => {
  const root = await folder()
  const standIns = await StandIns.open(root)
  await standIns.put(['a'])
  await chmod(join(root, 'a/diff'), 0o644)
  await writeFile(join(root, 'a/diff'), 'mine')
  await Promise.all([standIns.put(['a']), standIns.put(['a'])])
  expect(await readFile(join(root, 'a/diff'), 'utf8')).toBe('mine')
  await standIns.close()
})

test('whether it was put is known, also in the next life; what is no file is none', async () => {
  const root = await folder()
  const standIns = await StandIns.open(root)
  await standIns.put(['layers', 'a'])
  await standIns.close()
  await mkdir(join(root, 'layers/b/diff'), { recursive: true })
  const next = await StandIns.open(root)
  expect(
    await Promise.all([['layers', 'a'], ['layers', 'b'], ['layers', 'c'], ['x']].map((each) => next.has(each))),
  ).toEqual([true, false, false, false])
  await next.close()
})

test('errors of the disk are thrown', async () => {
  const root = await folder()
  const standIns = await StandIns.open(root)
  await writeFile(join(root, 'a'), 'a file in the way')
  await expect(standIns.put(['a', 'b'])).rejects.toMatchObject({ code: 'ENOTDIR' })
  await standIns.close()
})

test('nothing stays open', async () => {
  const root = await folder()
  const standIns = await StandIns.open(root)
  await standIns.put(['a'])
  await standIns.close()
  expect(await openFiles(root)).toEqual([])
  await expect(StandIns.open(join(root, 'nowhere'))).rejects.toMatchObject({ code: 'ENOENT' })
})
