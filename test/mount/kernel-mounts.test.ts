// Which layers are mounted in the kernel, over a native side that writes down what it is told. What is really mounted is test/e2e's.
import type { FileHandle } from 'node:fs/promises'
import { expect, test, vi } from 'vitest'
import type { Digest } from '../../src/image/digest.ts'
import type { OpenLayer } from '../../src/layer/layer.ts'
import type { Grafts } from '../../src/mount/graft.ts'
import { DEVICES_MAX, KernelMounts } from '../../src/mount/kernel-mounts.ts'
import type { NativeModule } from '../../src/mount/native.ts'
import type { MountSession } from '../../src/mount/session.ts'
import { READY_MISSING, READY_VERIFIED } from '../../src/tree/ready.ts'
import { digest } from '../stores/store.ts'

/** Of what comes about by itself; not a duration that matters. */
const WAIT_MS = 120_000

const DIR = '/nowhere/store'
const coded = (code: string) => Object.assign(new Error(code), { code })

function fake(max: number, context?: string) {
  const calls: string[] = []
  const mounted = new Map<string, readonly string[]>()
  const busy = new Set<string>()
  const it = {
    calls,
    mounted,
    busy,
    readAhead: [] as string[],
    closedImages: 0,
    mounting: async () => {},
    unmounting: async (_: string) => {},
  }
  const native = {
    setReadAhead(dir: string, kib: number) {
      it.readAhead.push(`${dir} ${kib} before ${calls.length} mounts`)
      return true
    },
    async mountErofs(_: number, devices: readonly string[], target: string, label: string | undefined) {
      await it.mounting()
      calls.push(`mount ${target}${label === undefined ? '' : ` ${label}`}`)
      mounted.set(target, devices)
    },
    async unmount(target: string, lazy: boolean) {
      await it.unmounting(target)
      if (busy.has(target) && !lazy) throw coded('EBUSY')
      if (!mounted.delete(target)) throw coded('EINVAL')
      calls.push(`${lazy ? 'detach' : 'unmount'} ${target}`)
    },
  } as unknown as NativeModule
  const session = { dir: DIR, addDirectory() {}, addDeviceFile() {} } as unknown as MountSession
  const grafts = { device: () => 1 } as unknown as Grafts
  return Object.assign(it, { covers: new KernelMounts(native, session, grafts, context, max) })
}

function layer(name: string, states = [READY_MISSING], deviceFd = 40): OpenLayer {
  return {
    tree: digest(name),
    slots: { states: async () => Uint8Array.from(states), deviceFd, hold: async () => () => {} },
    chunks: { sizeOf: () => 1 },
    openImage: async () => ({ fd: 30, close: async () => {} }) as unknown as FileHandle,
  } as unknown as OpenLayer // what covers use of it
}

/** Nothing stands below that could be busy. */
const empty = async () => true

const at = (name: string) => `${DIR}/${name}`

test('a device is the cache file where it is complete, else a file of the session', async () => {
  const { covers, mounted } = fake(10, 'system_u:object_r:container_file_t:s0')
  const hex = (of: Digest) => of.slice('sha256:'.length)
  const [a, b] = [layer('a'), layer('b', [READY_VERIFIED], 41)]
  expect(await covers.add({ fd: 9 } as FileHandle, [a, b], at('both'))).toBeUndefined()
  expect(mounted.get(at('both'))).toEqual([`${DIR}/.devices/${hex(a.tree)}`, '/proc/self/fd/41'])
  expect(await covers.cover(b, at('b'))).toBeUndefined()
  expect(covers.mounts).toEqual([
    { dir: at('both'), devices: 2, complete: 1 },
    { dir: at('b'), devices: 1, complete: 1 },
  ])
})

test("the session's read-ahead is that of devices before the first of them is opened", async () => {
  const { covers, readAhead } = fake(10)
  await covers.cover(layer('a'), at('a'))
  expect(readAhead).toEqual([`${DIR} 1024 before 0 mounts`])
})

test('the label goes to every mount', async () => {
  const { covers, calls } = fake(10, 'label')
  await covers.cover(layer('a'), at('a'))
  expect(calls).toEqual([`mount ${at('a')} label`])
})

test('a layer is mounted once, however often and by however many it is asked for', async () => {
  const { covers, calls } = fake(10)
  const a = layer('a')
  await Promise.all([covers.cover(a, at('a')), covers.cover(a, at('a'))])
  await covers.cover(a, at('a'))
  expect(calls).toEqual([`mount ${at('a')}`])
})

test('without room, the layer that was asked for the longest ago makes some, but none that is in use', async () => {
  const { covers, mounted, busy } = fake(3)
  for (const name of ['a', 'b', 'c']) await covers.cover(layer(name), at(name))
  await covers.hint('use', at('a'))
  busy.add(at('b'))
  expect(await covers.cover(layer('d'), at('d'))).toBeUndefined()
  expect([...mounted.keys()].sort()).toEqual(['a', 'b', 'd'].map(at))
  expect(covers.evicted).toBe(1)
  busy.clear()
  // asked for again, it is the newest
  await covers.cover(layer('b'), at('b'))
  expect(await covers.cover(layer('e'), at('e'))).toBeUndefined()
  expect([...mounted.keys()].sort()).toEqual(['a', 'b', 'e'].map(at))
})

test('a layer that had to make room is mounted again when an engine uses it', async () => {
  const { covers, mounted } = fake(1)
  await covers.cover(layer('a'), at('a'))
  await covers.cover(layer('b'), at('b'))
  expect([...mounted.keys()]).toEqual([at('b')])
  await covers.hint('use', at('a'))
  expect([...mounted.keys()]).toEqual([at('a')])
  await covers.hint('use', at('never shown'))
  expect([...mounted.keys()]).toEqual([at('a')])
})

test('where all are in use, and for images of their own, nothing makes room', async () => {
  const { covers, mounted } = fake(2)
  expect(await covers.add({ fd: 9 } as FileHandle, [layer('image')], at('image'))).toBeUndefined()
  await covers.cover(layer('a'), at('a'))
  await covers.hint('use', at('a'))
  expect(await covers.cover(layer('b'), at('b'))).toBe('2 layers are mounted already, all in use')
  expect([...mounted.keys()].sort()).toEqual([at('a'), at('image')])
  // many who wait for room are told, too
  const all = await Promise.all([1, 2, 3].map((i) => covers.cover(layer(`${i}`), at(`${i}`))))
  expect(all).toEqual(Array(3).fill('2 layers are mounted already, all in use'))
})

test('many who ask at once never exceed the bound', async () => {
  const it = fake(4)
  let most = 0
  it.mounting = async () => {
    most = Math.max(most, it.mounted.size)
  }
  const names = Array.from({ length: 40 }, (_, i) => `${i}`)
  for (let i = 0; i < names.length; i += 4) {
    await Promise.all(names.slice(i, i + 4).map((name) => it.covers.cover(layer(name), at(name))))
  }
  expect(most).toBeLessThan(4)
  expect([...it.mounted.keys()].sort()).toEqual(['36', '37', '38', '39'].map(at))
})

test('what an engine drops is mounted again when the kernel has detached it', async () => {
  const { covers, mounted, calls } = fake(10)
  await covers.cover(layer('a'), at('a'))
  mounted.clear() // as the kernel did
  await covers.hint('drop', at('a'))
  expect(mounted.has(at('a'))).toBe(true)
  expect(calls.filter((each) => each.startsWith('unmount'))).toEqual([])
})

test('what was gone before a drop is mounted again, and once more when the kernel detaches it only then', async () => {
  const { covers, mounted, calls } = fake(10)
  await covers.cover(layer('a'), at('a'))
  mounted.clear() // as somebody else did
  await covers.hint('drop', at('a'))
  mounted.clear() // as the kernel did
  await expect.poll(() => mounted.has(at('a'))).toBe(true)
  expect(calls).toEqual(Array(3).fill(`mount ${at('a')}`))
})

test('a try that fails after a drop is followed by another; when the last one fails, it is told and FUSE answers', async () => {
  const it = fake(10)
  await it.covers.cover(layer('a'), at('a'))
  it.mounted.clear()
  let tries = 0
  it.mounting = async () => {
    if (++tries === 1) throw coded('ENOENT')
  }
  await it.covers.hint('drop', at('a'))
  expect(it.mounted.has(at('a'))).toBe(true)
  it.mounted.clear()
  it.mounting = () => Promise.reject(coded('ENOENT'))
  await expect(it.covers.hint('drop', at('a'))).rejects.toThrow('ENOENT')
  expect(it.covers.mounts).toEqual([])
})

test('of many drops of one layer, the last sees to it that it is mounted, once', async () => {
  const { covers, mounted, calls } = fake(10)
  await covers.cover(layer('a'), at('a'))
  mounted.clear()
  await Promise.all([1, 2, 3].map(() => covers.hint('drop', at('a'))))
  expect(mounted.has(at('a'))).toBe(true)
  expect(calls).toEqual([`mount ${at('a')}`, `mount ${at('a')}`])
})

test('a mount that fails is told, leaves no trace, and can be tried again', async () => {
  const it = fake(1)
  it.mounting = () => Promise.reject(new Error('erofs: bad image'))
  expect(await it.covers.cover(layer('a'), at('a'))).toBe('erofs: bad image')
  expect(it.covers.mounts).toEqual([])
  it.mounting = async () => {}
  expect(await it.covers.cover(layer('a'), at('a'))).toBeUndefined()
})

test('what is uncovered is detached though it is in use, leaves no trace, and is not made again', async () => {
  const it = fake(10)
  for (const name of ['a', 'b']) await it.covers.cover(layer(name), at(name))
  it.busy.add(at('a'))
  const dropped = it.covers.hint('drop', at('a'))
  await it.covers.uncover(at('a'))
  await it.covers.uncover(at('never shown'))
  await dropped
  for (const op of ['use', 'drop'] as const) await it.covers.hint(op, at('a'))
  expect([...it.mounted.keys()]).toEqual([at('b')])
  expect(it.covers.mounts.map(({ dir }) => dir)).toEqual([at('b')])
  expect(it.calls.filter((each) => each.endsWith('/a'))).toEqual([`mount ${at('a')}`, `detach ${at('a')}`])
})

test('what is being mounted when it is uncovered is detached as soon as it is mounted', async () => {
  const it = fake(10)
  const go = Promise.withResolvers<void>()
  it.mounting = () => go.promise
  const late = it.covers.cover(layer('a'), at('a'))
  await new Promise((done) => setImmediate(done))
  const uncovered = it.covers.uncover(at('a'))
  go.resolve()
  await Promise.all([late, uncovered])
  expect(it.calls).toEqual([`mount ${at('a')}`, `detach ${at('a')}`])
  expect(it.covers.mounts).toEqual([])
})

test('what waits for room when it is uncovered is not mounted, and keeps no room', async () => {
  const it = fake(1)
  await it.covers.cover(layer('a'), at('a'))
  const go = Promise.withResolvers<void>()
  it.unmounting = () => go.promise
  const waiting = it.covers.cover(layer('b'), at('b'))
  await new Promise((done) => setImmediate(done))
  await it.covers.uncover(at('b'))
  go.resolve()
  expect(await waiting).toBeUndefined()
  expect([...it.mounted.keys()]).toEqual([])
  expect(await it.covers.cover(layer('c'), at('c'))).toBeUndefined()
})

test('uncovering what is being evicted, or what the kernel detached already, is no error', async () => {
  const it = fake(1)
  await it.covers.cover(layer('a'), at('a'))
  const go = Promise.withResolvers<void>()
  it.unmounting = () => go.promise
  const next = it.covers.cover(layer('b'), at('b'))
  await vi.waitFor(() => expect(it.covers.mounts).toEqual([]), WAIT_MS) // it makes room
  const uncovered = it.covers.uncover(at('a'))
  go.resolve()
  await Promise.all([next, uncovered])
  expect([...it.mounted.keys()]).toEqual([at('b')])
  it.mounted.clear()
  await it.covers.uncover(at('b'))
  expect(it.covers.mounts).toEqual([])
})

test('what is covered anew while it is uncovered is mounted after that', async () => {
  const it = fake(10)
  await it.covers.cover(layer('a'), at('a'))
  const { promise, resolve } = Promise.withResolvers<void>()
  it.unmounting = () => promise
  const uncovered = it.covers.uncover(at('a'))
  const covered = it.covers.cover(layer('b'), at('a'))
  resolve()
  await uncovered
  expect(await covered).toBeUndefined()
  expect(it.calls).toEqual([`mount ${at('a')}`, `detach ${at('a')}`, `mount ${at('a')}`])
  expect(it.covers.mounts).toMatchObject([{ dir: at('a') }])
})

test('what is uncovered while its cover waits for the one before is never mounted', async () => {
  const it = fake(10)
  await it.covers.cover(layer('a'), at('a'))
  const { promise, resolve } = Promise.withResolvers<void>()
  it.unmounting = () => promise
  const first = it.covers.uncover(at('a'))
  const covered = it.covers.cover(layer('b'), at('a'))
  const second = it.covers.uncover(at('a'))
  resolve()
  await Promise.all([first, covered, second])
  expect(it.calls).toEqual([`mount ${at('a')}`, `detach ${at('a')}`])
  expect(it.covers.mounts).toEqual([])
})

test('a mount that cannot be ended to make room keeps nobody waiting', async () => {
  const it = fake(1)
  await it.covers.cover(layer('a'), at('a'))
  it.unmounting = async (target) => {
    it.unmounting = async () => {}
    throw coded(target === at('a') ? 'EIO' : 'ENOSYS')
  }
  expect(await it.covers.cover(layer('b'), at('b'))).toContain('EIO')
  await it.covers.uncover(at('a'))
  expect(it.mounted.size).toBe(0)
  expect(it.covers.mounts).toEqual([])
})

test('unmounting waits for what is being uncovered', async () => {
  const it = fake(10)
  await it.covers.cover(layer('a'), at('a'))
  const go = Promise.withResolvers<void>()
  it.unmounting = () => go.promise
  const uncovered = it.covers.uncover(at('a'))
  let ended = false
  const unmounted = it.covers.unmount(empty).then((done) => {
    ended = true
    return done
  })
  await new Promise((done) => setImmediate(done))
  expect(ended).toBe(false)
  go.resolve()
  expect(await unmounted).toBe(true)
  await uncovered
  expect(it.calls).toEqual([`mount ${at('a')}`, `detach ${at('a')}`])
})

test('an image of too many layers is not mounted', async () => {
  const { covers } = fake(10)
  const layers = Array.from({ length: DEVICES_MAX + 1 }, (_, i) => layer(`${i}`))
  expect(await covers.add({ fd: 9 } as FileHandle, layers, at('image'))).toContain(`at most ${DEVICES_MAX}`)
})

test('nothing is mounted while the whole mount is being ended, and again when it is in use', async () => {
  const it = fake(10)
  const [a, b] = [layer('a'), layer('b')]
  await it.covers.cover(a, at('a'))
  const asked: Promise<unknown>[] = []
  // the path of a mount leads through lookups, which have layers mounted
  it.unmounting = async () => void asked.push(it.covers.cover(a, at('a')), it.covers.cover(b, at('b')))
  const seen: string[] = []
  const isBusy = async () => {
    await new Promise((done) => setImmediate(done))
    seen.push(...it.mounted.keys())
    return false
  }
  expect(await it.covers.unmount(isBusy)).toBe(false)
  expect(seen).toEqual([])
  await Promise.all(asked)
  expect(it.covers.mounts.map(({ dir }) => dir).sort()).toEqual([at('a'), at('b')])
  it.unmounting = async () => {}
  expect(await it.covers.unmount(empty)).toBe(true)
  expect([...it.mounted.keys()]).toEqual([])
})

test('unmounting stops at one that is busy; detaching takes all, also what is being mounted', async () => {
  const it = fake(10)
  for (const name of ['a', 'b']) await it.covers.cover(layer(name), at(name))
  it.busy.add(at('a'))
  expect(await it.covers.unmount(empty)).toBe(false)
  expect([...it.mounted.keys()]).toEqual([at('a')])
  const go = Promise.withResolvers<void>()
  it.mounting = () => go.promise
  const late = it.covers.cover(layer('c'), at('c'))
  await new Promise((done) => setImmediate(done))
  const detached = it.covers.detach()
  go.resolve()
  await detached
  await late
  expect([...it.mounted.keys()]).toEqual([])
  expect(await it.covers.cover(layer('d'), at('d'))).toBe('the agent is stopping')
  await it.covers.hint('drop', at('a'))
  expect([...it.mounted.keys()]).toEqual([])
})

test('unmounting waits for what is being mounted, so that it is not left behind', async () => {
  const it = fake(10)
  const go = Promise.withResolvers<void>()
  it.mounting = () => go.promise
  const late = it.covers.cover(layer('a'), at('a'))
  await new Promise((done) => setImmediate(done))
  const unmounted = it.covers.unmount(empty)
  go.resolve()
  expect(await unmounted).toBe(true)
  await late
  expect([...it.mounted.keys()]).toEqual([])
})

test('mounts that somebody else ended are no error', async () => {
  const { covers, mounted } = fake(10)
  for (const name of ['a', 'b']) await covers.cover(layer(name), at(name))
  mounted.delete(at('b'))
  expect(await covers.unmount(empty)).toBe(true)
  expect(covers.mounts).toEqual([])
})
