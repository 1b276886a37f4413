import { expect, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz.ts'
import { Grafts } from '../../src/mount/graft.ts'
import type { DeviceSpec, TreeSpec } from '../../src/mount/native.ts'
import type { DeviceFiller, MountSession } from '../../src/mount/session.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { folder } from '../store/folder.ts'
import { lazyLayer, openCache } from './fixture.ts'

/** The part of a session that layers are put into. */
function fakeSession() {
  const devices: { spec: DeviceSpec; filler: DeviceFiller }[] = []
  const trees = new Map<number, TreeSpec>()
  const session = {
    addDevice: (spec: DeviceSpec, filler: DeviceFiller) => devices.push({ spec, filler }),
    addTree(slot: number, spec: TreeSpec) {
      if (trees.has(slot)) throw new Error(`slot ${slot} is taken`)
      trees.set(slot, spec)
    },
  }
  return { session: session as unknown as MountSession, devices, trees }
}

test('a layer is one device and one tree, however often it is put in', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  const layer = await layers.open(made.descriptor, sourceOf(made.blob))
  const { session, devices, trees } = fakeSession()
  const grafts = new Grafts(session)
  expect(grafts.layer(layer)).toBe(layer.slot)
  expect(grafts.layer(layer)).toBe(layer.slot)
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
  expect([...trees]).toEqual([[layer.slot, { imageFd: layer.image.fd, devices: [1] }]])
})

test('a merged image has the devices of its layers, in their order', async () => {
  const { layers } = await openCache(await folder())
  const open = async (files: Record<string, string>) => {
    const made = await lazyLayer(files)
    return await layers.open(made.descriptor, sourceOf(made.blob))
  }
  const [below, above] = [await open({ a: 'one' }), await open({ b: 'two' })]
  const { session, devices, trees } = fakeSession()
  const grafts = new Grafts(session)
  expect(grafts.layer(above)).toBe(above.slot)
  expect(grafts.tree(77, below.image, [below, above, below])).toBe(77)
  expect(devices).toHaveLength(2)
  expect(trees.get(77)).toEqual({ imageFd: below.image.fd, devices: [2, 1, 2] })
})

test("a device's misses are filled on demand, each told by itself", async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  expect(made.descriptor.annotations[TOC_DIGEST]).toBeDefined()
  const layer = await layers.open(made.descriptor, sourceOf(made.blob))
  const { session, devices } = fakeSession()
  new Grafts(session).layer(layer)
  const settled = await new Promise((resolve) =>
    devices[0]?.filler.fillEach([0], (chunk, error) => resolve({ chunk, error })),
  )
  expect(settled).toEqual({ chunk: 0, error: undefined })
  expect(layer.slots.state(0)).toBe(1)
})
