// What a door's mount holds and lets go of, over a session that says what the kernel knows. What the kernel really does is test/e2e's.
import { expect, test, vi } from 'vitest'
import type { LayerLease, OpenLayer } from '../../src/layer/layer.ts'
import { DoorMount, type DoorMountParts } from '../../src/mount/door-mount.ts'
import type { SessionState } from '../../src/mount/session-state.ts'
import { digest, FakeLeases } from '../stores/store.ts'

const PATH = ['layers', 'a', 'diff']

interface Fake {
  leases: FakeLeases
  /** Slots that the kernel knows. */
  known: Set<number>
  used: Set<string>
  lowerDirs: () => Promise<Set<string>>
  grafted: Map<number, string>
  grafting: () => Promise<void>
  invalidated: string[]
  lines: string[]
}

function fake({ covers, state }: { covers?: DoorMountParts['covers']; state?: SessionState } = {}) {
  const it: Fake = {
    leases: new FakeLeases(),
    known: new Set<number>(),
    used: new Set<string>(),
    lowerDirs: async () => it.used,
    grafted: new Map<number, string>(),
    grafting: async () => {},
    invalidated: [],
    lines: [],
  }
  const slots: string[] = ['']
  const slotOf = (name: string) => {
    if (!slots.includes(name)) slots.push(name)
    return slots.indexOf(name)
  }
  const layer = (blob: string, tree = blob): LayerLease =>
    it.leases.hold(digest(blob), {
      descriptor: { digest: digest(blob) },
      tree: digest(tree),
      numbersAs: async (name: string) => ({ slot: slotOf(`${tree} ${name}`), inodeBase: 0 }),
    } as unknown as OpenLayer) // what a mount uses of it
  const parts: DoorMountParts = {
    session: {
      dir: '/nowhere',
      invalidate: (_, name) => void it.invalidated.push(name),
      isTreeKnown: (slot) => it.known.has(slot),
      ...(state === undefined ? {} : { state }),
    },
    grafts: {
      async layer(of, name) {
        await it.grafting()
        const slot = slots.findIndex((each) => digest(each.split(' ')[0] as string) === of.tree && each.endsWith(name))
        it.grafted.set(slot, name)
        return slot
      },
      devicesOf: (slot) => {
        const treeOf = (each: number) => slots[each]?.split(' ')[0] as string // each has one
        const same = [...it.grafted.keys()].filter((each) => treeOf(each) === treeOf(slot))
        return same.length === 1 ? [digest(treeOf(slot))] : []
      },
      remove: (slot) => void it.grafted.delete(slot),
    },
    covers,
    ready: Promise.resolve(),
    lowerDirs: () => it.lowerDirs(),
    log: (line) => void it.lines.push(line),
  }
  return Object.assign(it, { mount: new DoorMount(parts), layer })
}

test('a layer is held from its attachment until it is released as often', async () => {
  const it = fake()
  const lease = it.layer('a')
  const slot = await it.mount.attach(lease, PATH)
  expect(await it.mount.attach(lease, PATH)).toBe(slot)
  await lease.close()
  expect(it.leases.held.get(digest('a'))).toBe(1)
  it.mount.release(slot)
  await it.mount.look()
  expect(it.mount.size).toBe(1)
  it.mount.release(slot)
  await vi.waitFor(() => expect(it.mount.size).toBe(0))
  expect(it.leases.held.size).toBe(0)
  expect(it.grafted.size).toBe(0)
})

test('what is released stays while the kernel knows it or an overlay is made of it', async () => {
  const it = fake()
  const lease = it.layer('a')
  const slot = await it.mount.attach(lease, PATH)
  await lease.close()
  it.known.add(slot)
  it.used.add(`/nowhere/${PATH.join('/')}`)
  it.mount.release(slot)
  for (const end of [() => it.known.delete(slot), () => it.used.clear()]) {
    await it.mount.look()
    expect(it.grafted.size).toBe(1)
    end()
  }
  await it.mount.look()
  expect([it.mount.size, it.grafted.size, it.leases.held.size]).toEqual([0, 0, 0])
})

test('what is attached again while it leaves stays', async () => {
  const it = fake()
  const lease = it.layer('a')
  const slot = await it.mount.attach(lease, PATH)
  it.known.add(slot)
  it.mount.release(slot)
  expect(await it.mount.attach(lease, PATH)).toBe(slot)
  it.known.clear()
  await it.mount.look()
  expect(it.grafted.has(slot)).toBe(true)
  expect(it.mount.size).toBe(1)
})

test('what is attached in whichever turn of its end is there', async () => {
  for (let turns = 0; turns < 40; turns++) {
    const it = fake()
    const lease = it.layer('a')
    const slot = await it.mount.attach(lease, PATH)
    it.mount.release(slot)
    const looking = it.mount.look()
    for (let i = 0; i < turns; i++) await Promise.resolve()
    if (turns > 20) await new Promise((next) => setTimeout(next, turns - 20))
    await it.mount.attach(lease, PATH)
    await looking
    expect(it.grafted.has(slot)).toBe(true)
    expect(it.leases.held.get(digest('a'))).toBe(2)
  }
})

test('of the layers of one tree each is held, but for more than a few', async () => {
  const it = fake()
  const all = Array.from({ length: 6 }, (_, i) => it.layer(`blob ${i}`, 'tree'))
  const slots = await Promise.all([...all, ...all].map((each) => it.mount.attach(each, PATH)))
  expect(new Set(slots).size).toBe(1)
  for (const each of all) await each.close()
  expect(it.leases.held.size).toBe(4)
  for (const slot of slots) it.mount.release(slot)
  await vi.waitFor(() => expect(it.leases.held.size).toBe(0))
})

test('a layer that cannot be grafted is not held', async () => {
  const it = fake()
  const lease = it.layer('a')
  it.grafting = () => Promise.reject(new Error('its image is damaged'))
  await expect(it.mount.attach(lease, PATH)).rejects.toThrow('damaged')
  await lease.close()
  await vi.waitFor(() => expect(it.leases.held.size).toBe(0))
  expect(it.mount.size).toBe(0)
})

test('a layer is free when the kernel has let go of it, which it is told to', async () => {
  const it = fake()
  const slot = await it.mount.attach(it.layer('a'), PATH)
  it.known.add(slot)
  expect(await it.mount.isFree(slot, 5n)).toBe(false)
  const looking = it.mount.isFree(slot, 5n)
  it.known.clear()
  expect(await looking).toBe(true)
  expect(it.invalidated).toEqual(['diff', 'diff'])
})

test('paths in use are told from the root; what cannot be told is logged, and nothing leaves', async () => {
  const it = fake()
  it.used.add('/nowhere/layers/a/diff')
  expect(await it.mount.inUse()).toEqual(new Set(['layers/a/diff']))
  const slot = await it.mount.attach(it.layer('b'), ['layers', 'b', 'diff'])
  it.lowerDirs = () => Promise.reject(new Error('the mount table cannot be read'))
  it.mount.release(slot)
  await vi.waitFor(() => expect(it.lines).toEqual([expect.stringContaining('cannot be read')]))
  expect(it.mount.size).toBe(1)
})

test('the device of a tree is there again before any of its names, however many show it', async () => {
  const shown: string[] = []
  const covers = {
    devices: { path: (of: OpenLayer) => void shown.push(of.tree) },
  } as unknown as DoorMountParts['covers'] // what restoring uses
  const state = {
    get: (key: string) => (key === `device ${digest('tree')}` ? true : undefined),
  } as unknown as SessionState
  const it = fake({ covers, state })
  const names = ['a', 'b', 'c'].map((name) => [name, 'diff'])
  await Promise.all(names.map((path) => it.mount.restore(it.layer('blob', 'tree'), path)))
  expect(new Set(shown)).toEqual(new Set([digest('tree')]))
  await it.mount.restore(it.layer('other', 'another'), PATH)
  expect(new Set(shown).size).toBe(1)
})

test('what a process that is gone attached is held for as long as the mount is, whatever the kernel says of it', async () => {
  const it = fake()
  const lease = it.layer('a')
  await it.mount.restore(lease, PATH)
  const slot = await it.mount.attach(lease, PATH)
  await lease.close()
  it.mount.release(slot)
  await it.mount.look()
  expect(await it.mount.isFree(slot, 1n)).toBe(false)
  expect([...it.grafted]).toEqual([[slot, PATH.join('/')]])
  expect(it.leases.held.get(digest('a'))).toBe(1)
})
