// The control tree as the kernel sees it: symlinks, and files that are replaced while somebody has them open.
import { existsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { ATTRIBUTES, controlNode, mountNative, type NativeMount } from '../fixtures/native-mount.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const ROOT = 1n
const bytes = (text: string) => new TextEncoder().encode(text)
const reason = lacking(['umount', 'mount']) ?? (existsSync('/dev/fuse') ? undefined : 'there is no /dev/fuse')

suite('the control tree', reason, () => {
  let work: WorkDirectory
  let mounted: NativeMount | undefined
  let number = 0

  beforeAll(async () => {
    work = await makeWorkDirectory()
  })

  afterEach(async () => {
    await mounted?.end()
    mounted = undefined
  })

  afterAll(() => work?.remove())

  async function mount(): Promise<NativeMount> {
    const dir = join(work.path, `mount${++number}`)
    await mkdir(dir)
    mounted = mountNative(dir, work.path)
    return mounted
  }

  test('a symlink leads where it says, also along a path', async () => {
    const { session, dir } = await mount()
    session.addDirectory(controlNode(2), ROOT, 'dir', ATTRIBUTES, false)
    session.addDirectory(controlNode(3), ROOT, 'l', ATTRIBUTES, false)
    session.addFile(controlNode(4), controlNode(2), 'file', ATTRIBUTES, bytes('contents'))
    session.addSymlink(controlNode(5), controlNode(3), 'link', ATTRIBUTES, '../dir')
    expect(await readlink(join(dir, 'l/link'))).toBe('../dir')
    expect(await readFile(join(dir, 'l/link/file'), 'utf8')).toBe('contents')
    const [entry] = await readdir(join(dir, 'l'), { withFileTypes: true })
    expect(entry?.isSymbolicLink()).toBe(true)
  })

  test('a replaced file is another inode with another time; whoever has the old one open reads all of the old one', async () => {
    const { session, dir } = await mount()
    const path = join(dir, 'list')
    const version = (n: number) => ({ ...ATTRIBUTES, mtime: ATTRIBUTES.mtime + BigInt(n) })
    const long = 'old '.repeat(500_000)
    session.addFile(controlNode(10), ROOT, 'list', version(0), bytes(long))
    const old = await open(path, 'r')
    const before = await stat(path, { bigint: true })
    const { buffer } = await old.read(new Uint8Array(4), 0, 4, 0)
    session.replaceFile(controlNode(11), ROOT, 'list', version(1), bytes('new'))
    const after = await stat(path, { bigint: true })
    expect(after.ino).not.toBe(before.ino)
    expect(after.mtimeNs).toBe(before.mtimeNs + 1n)
    expect(await readFile(path, 'utf8')).toBe('new')
    expect(new TextDecoder().decode(buffer)).toBe('old ')
    expect(await old.readFile('utf8')).toBe(long)
    await old.close()
    expect(await readdir(dir)).toEqual(['list'])
    expect(() => session.replaceFile(controlNode(11), ROOT, 'list', version(2), bytes('x'))).toThrow('is in use')
    expect(() => session.replaceFile(controlNode(12), ROOT, 'other', version(2), bytes('x'))).toThrow('has no file')
  })

  test('versions that nobody reads any more do not stay in memory', async () => {
    const { session, dir } = await mount()
    const path = join(dir, 'list')
    const size = 4 << 20
    session.addFile(controlNode(20), ROOT, 'list', ATTRIBUTES, new Uint8Array(size))
    const rss = () => process.memoryUsage.rss()
    const replace = async (from: number, to: number) => {
      for (let n = from; n < to; n++) {
        expect((await readFile(path)).length).toBe(size)
        session.replaceFile(controlNode(20 + n), ROOT, 'list', ATTRIBUTES, new Uint8Array(size))
      }
      await stat(path) // has the kernel forget the last but one
      await sleep(200)
    }
    await replace(1, 20)
    const before = rss()
    await replace(20, 120)
    // 400 MiB were replaced
    await expect.poll(() => rss() - before).toBeLessThan(200 << 20)
  })

  test('nothing of it can be written', async () => {
    const { session, dir } = await mount()
    session.addFile(controlNode(30), ROOT, 'list', ATTRIBUTES, bytes('x'))
    session.addSymlink(controlNode(31), ROOT, 'link', ATTRIBUTES, 'list')
    for (const path of ['list', 'link']) {
      await expect(writeFile(join(dir, path), 'y')).rejects.toMatchObject({ code: 'EROFS' })
    }
    expect(await readFile(join(dir, 'link'), 'utf8')).toBe('x')
  })
})
