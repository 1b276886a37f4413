import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import type { Blob } from '../../src/image/blob.ts'
import { hex } from '../../src/image/digest.ts'
import { Grafts } from '../../src/mount/graft.ts'
import type { DeviceSpec, TreeSpec } from '../../src/mount/native.ts'
import type { DeviceFiller, MountSession } from '../../src/mount/session.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { folder } from '../store/folder.ts'
import { lazyLayer, openCache } from './fixture.ts'

const noLog = () => {}

/** The part of a session that layers are put into. */
function fakeSession() {
  const devices: { spec: DeviceSpec; filler: DeviceFiller; failed: (error: unknown) => void }[] = []
  const trees = new Map<number, TreeSpec>()
  const session = {
    addDevice: (...[spec, filler, failed]: Parameters<MountSession['addDevice']>) =>
      devices.push({ spec, filler, failed }),
    takeTouched: () => new Uint8Array(),
    readsOf: () => ({ take: () => new Float64Array(), begin: () => {}, end: () => {} }),
    addTree(slot: number, spec: TreeSpec) {
      if (trees.has(slot)) throw new Error(`slot ${slot} is taken`)
      trees.set(slot, spec)
    },
  }
  return { session: session as unknown as MountSession, devices, trees }
}

test('a layer is one device, and one tree a name, however often it is put in', async () => {
  const dir = await folder()
  const { layers } = await openCache(dir)
  const made = await lazyLayer({ a: 'one' })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  const { session, devices, trees } = fakeSession()
  const grafts = new Grafts(session, noLog)
  const slot = await grafts.layer(layer, 'here')
  expect(await grafts.layer(layer, 'here')).toBe(slot)
  expect(grafts.device(layer)).toBe(1)
  expect(devices.map(({ spec }) => spec)).toEqual([
    {
      deviceFd: layer.slots.deviceFd,
      readyFd: layer.slots.readyFd,
      chunks: layer.chunks.length,
      size: layer.chunks.deviceSize,
      places: layer.chunks.packedPlaces(),
    },
  ])
  expect([...trees]).toEqual([[slot, { imageFd: expect.any(Number), devices: [1], inodeBase: 0 }]])
  // under another name it is another directory to the kernel, over the same device
  const other = await grafts.layer(layer, 'there')
  expect(other).not.toBe(slot)
  const { size } = await stat(join(dir, 'trees', hex(layer.tree), 'image'))
  expect(trees.get(other)).toMatchObject({ devices: [1], inodeBase: size / 32 })
  expect(devices).toHaveLength(1)
})

test('a merged image has the devices of its layers, in their order', async () => {
  const { layers } = await openCache(await folder())
  const open = async (files: Record<string, string>) => {
    const made = await lazyLayer(files)
    return await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  }
  const [below, above] = [await open({ a: 'one' }), await open({ b: 'two' })]
  const { session, devices, trees } = fakeSession()
  const grafts = new Grafts(session, noLog)
  await grafts.layer(above, 'above')
  await using image = await below.openImage()
  expect(grafts.tree({ slot: 77, inodeBase: 1000 }, image, [below, above, below])).toBe(77)
  expect(devices).toHaveLength(2)
  expect(trees.get(77)).toEqual({ imageFd: image.fd, devices: [2, 1, 2], inodeBase: 1000 })
})

test("a device's misses are filled on demand, each told by itself", async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  expect(made.descriptor.annotations[TOC_DIGEST]).toBeDefined()
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  const { session, devices } = fakeSession()
  await new Grafts(session, noLog).layer(layer, 'here')
  const settled = await new Promise((resolve) =>
    devices[0]?.filler.fillEach([0], 'demand', (chunk, error) => resolve({ chunk, error })),
  )
  expect(settled).toEqual({ chunk: 0, error: undefined })
  expect(layer.slots.state(0)).toBe(1)
})

test('why reads of a layer fail is said, once for many', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  const refusal = Failure.denied('registry.example.com refuses us')
  let refused = false
  const blob: Blob = {
    ...made.blob,
    read: (range) => (refused ? Promise.reject(refusal) : made.blob.read(range)),
  }
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(blob), 'registry.example.com')
  refused = true
  const { session, devices } = fakeSession()
  const lines: string[] = []
  await new Grafts(session, (line) => lines.push(line)).layer(layer, 'here')
  const miss = () => new Promise((resolve) => devices[0]?.filler.fillEach([0], 'demand', (_, error) => resolve(error)))
  for (let i = 0; i < 3; i++) {
    const error = await miss()
    expect(error).toMatchObject({ code: 'denied' })
    devices[0]?.failed(error)
  }
  expect(lines).toEqual([`layer ${made.descriptor.digest}: reads fail: ${refusal.message}`])
})
