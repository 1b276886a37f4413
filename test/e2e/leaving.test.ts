// Layers that leave a mount: the kernel itself says whether somebody uses one, in whichever mount namespace, and what is used goes on.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { DoorMount } from '../../src/mount/door-mount.ts'
import { Grafts } from '../../src/mount/graft.ts'
import { KernelMounts } from '../../src/mount/kernel-mounts.ts'
import { loadNative, type NodeAttributes, ROOT_NODE } from '../../src/mount/native.ts'
import { controlNode, MountSession } from '../../src/mount/session.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { lazyLayer, openCache, openFiles } from '../mount/fixture.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'

const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const PATH = ['layer', 'diff']
/** Chunks of their own. */
const FILES = { first: 'one', second: 'two', third: 'three' }

for (const rung of ['erofs', 'fuse'] as const) {
  suite(`a layer on rung ${rung}`, lacking(['mount', 'umount', 'unshare', 'cat']), () => {
    let work: WorkDirectory
    let session: MountSession
    let mount: DoorMount
    let lines: string[]
    const node = controlNode('layer')
    const children: ChildProcess[] = []

    beforeEach(async () => {
      work = await makeWorkDirectory()
      const native = loadNative()
      const dir = join(work.path, 'mount')
      await mkdir(dir)
      lines = []
      const log = (line: string) => void lines.push(line)
      session = MountSession.mount(native, { dir, fsname: 'leaving', allowOther: true, rootSlot: null })
      const grafts = new Grafts(session, log)
      const covers = rung === 'erofs' ? new KernelMounts(native, session, grafts) : undefined
      mount = new DoorMount({ session, grafts, covers, ready: Promise.resolve(), log })
    })
    afterEach(async () => {
      for (const each of children.splice(0)) await ended(each)
      await session.detach()
      await session.ended
      session.close()
      await work.remove()
    })

    const path = (...names: string[]) => join(work.path, 'mount', ...PATH, ...names)

    async function show() {
      const cache = await openCache(join(work.path, 'cache'), undefined, { idleMax: 0 })
      const made = await lazyLayer(FILES)
      const attach = async () => {
        await using layer = await cache.layers.open(
          unitOf(made.descriptor),
          sourceOf(made.blob),
          'registry.example.com',
        )
        const slot = await mount.attach(layer, PATH)
        session.addDirectory(node, ROOT_NODE, PATH[0] as string, DIRECTORY, false)
        session.graft(node, PATH[1] as string, slot)
        await mount.cover(layer, PATH)
        return slot
      }
      return { slot: await attach(), attach, cache }
    }
    const take = () => session.remove(ROOT_NODE, PATH[0] as string)
    const devices = async () => (await openFiles(join(work.path, 'cache'))).filter((each) => each.includes('/trees/'))

    /** Something that uses it: a line on stdin has it read `name` and say what it is. */
    async function user(...args: string[]): Promise<(name: string) => Promise<string>> {
      const [program = '', ...rest] = args
      const child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] })
      children.push(child)
      const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      expect((await answers.next()).value).toBe('ready')
      return async (name) => {
        child.stdin.write(`${name}\n`)
        return (await answers.next()).value ?? 'ended'
      }
    }
    const ended = (child: ChildProcess) =>
      new Promise((done) => {
        child.once('exit', done)
        child.stdin?.end()
        if (child.exitCode !== null) done(undefined)
      })

    /** An overlay that no mount table shows but its own. */
    async function container(): Promise<(name: string) => Promise<string>> {
      for (const each of ['upper', 'work', 'merged']) await mkdir(join(work.path, each))
      const options = `lowerdir=${path()},upperdir=${work.path}/upper,workdir=${work.path}/work`
      const script = `mount -t overlay overlay -o ${options} ${work.path}/merged || exit 1
        cd ${work.path}/merged; echo ready; while read name; do cat "$name" || echo failed; echo; done`
      return await user('unshare', '--mount', '--propagation', 'private', 'sh', '-c', script)
    }

    test('that nobody uses leaves with its device and its files, and comes back under the same numbers', async () => {
      const { slot, attach } = await show()
      expect(await succeed('cat', [path('first')])).toBe('one')
      expect(await mount.isFree(slot, node)).toBe(true)
      take()
      mount.release(slot)
      await expect.poll(() => mount.size).toBe(0)
      await expect.poll(devices).toEqual([])
      expect(await mountsBelow(join(work.path, 'mount'))).toHaveLength(1)
      expect((await command('cat', [path('first')])).code).not.toBe(0)
      expect(await attach()).toBe(slot)
      expect(await succeed('cat', [path('second')])).toBe('two')
      expect(lines).toEqual([])
    })

    test('that a container uses stays, though no mount table says so, and what it lacks is fetched', async () => {
      const { slot } = await show()
      const read = await container()
      expect(await read('first')).toBe('one')
      expect(await mount.isFree(slot, node)).toBe(false)
      expect(await read('second')).toBe('two')
      expect(await succeed('cat', [path('third')])).toBe('three')
      for (const each of children.splice(0)) await ended(each)
      await expect.poll(() => mount.isFree(slot, node)).toBe(true)
    })

    test('whose files a program has open stays', async () => {
      const { slot } = await show()
      const read = await user(
        'sh',
        '-c',
        `exec 3<${path('first')}; echo ready; while read name; do cat <&3; echo; done`,
      )
      expect(await mount.isFree(slot, node)).toBe(false)
      expect(await read('first')).toBe('one')
    })

    // what FUSE answers, an overlay looks up again
    const isHeld = async () => {
      const { slot } = await show()
      const read = await container()
      expect(await read('first')).toBe('one')
      mount.uncover(PATH)
      take()
      mount.release(slot)
      await expect.poll(async () => (await mountsBelow(join(work.path, 'mount'))).length).toBe(1)
      expect(await read('second')).toBe('two')
      expect(mount.size).toBe(1)
      expect(await devices()).not.toEqual([])
      for (const each of children.splice(0)) await ended(each)
      await mount.look()
      await expect.poll(() => mount.size).toBe(0)
      await expect.poll(devices).toEqual([])
    }
    if (rung === 'erofs') test('that is released while a container uses it is held until that ends', isHeld)

    test('leaves nothing behind, however often it comes and goes', async () => {
      const { slot, attach } = await show()
      // of the cache's files alone: memory of this process's own has maps, too
      const count = async () => {
        const maps = (await readFile('/proc/self/maps', 'utf8')).split('\n')
        return maps.filter((each) => each.includes(`${work.path}/cache/`)).length
      }
      for (let i = 0; i < 5; i++) {
        expect(await mount.isFree(slot, node)).toBe(true)
        take()
        mount.release(slot)
        await expect.poll(() => mount.size).toBe(0)
        expect(await attach()).toBe(slot)
      }
      const maps = await count()
      for (let i = 0; i < 20; i++) {
        expect(await mount.isFree(slot, node)).toBe(true)
        take()
        mount.release(slot)
        await expect.poll(() => mount.size).toBe(0)
        await attach()
      }
      expect(maps).toBeGreaterThan(0)
      expect(await count()).toBe(maps)
      expect(await devices()).toHaveLength(2 + 1) // device and ready file, and the session's device
    })
  })
}
