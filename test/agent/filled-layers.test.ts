import { expect, test } from 'vitest'
import { FilledLayers } from '../../src/agent/filled-layers.ts'
import type { BackgroundLayer } from '../../src/layer/background.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import { type LayerLease, WHOLE } from '../../src/layer/layer.ts'

const IMAGE = { digest: 'sha256:1', origin: 'registry.example.com' } as unknown as ResolvedImage

function rig() {
  const added: BackgroundLayer[] = []
  const forgotten: number[] = []
  const completed: number[] = []
  const open = { leases: 0 }
  const lease = (format: string, chunks: number): LayerLease => {
    open.leases++
    const close = async () => {
      open.leases--
    }
    const it = { format, chunks: { length: chunks }, descriptor: { digest: 'sha256:2' }, close }
    return { ...it, again: () => lease(format, chunks) } as unknown as LayerLease
  }
  const filled = new FilledLayers({
    background: {
      add(of) {
        added.push(of)
        return () => void forgotten.push(added.indexOf(of))
      },
    },
    completed: async (slot) => void completed.push(slot),
    log: () => {},
  })
  return { filled, lease, added, forgotten, completed, open }
}

test('a layer that is shown is filled as one of its image, and held until it is shown no more', async () => {
  const { filled, lease, added, forgotten, completed, open } = rig()
  const layer = lease('estargz', 3)
  filled.shown(7, layer, IMAGE)
  filled.shown(7, layer, IMAGE)
  await layer.close()
  expect(added.map(({ image, origin }) => [image, origin])).toEqual(Array(2).fill([IMAGE.digest, IMAGE.origin]))
  added[0]?.complete()
  expect(completed).toEqual([7])
  filled.released(7)
  filled.released(7)
  filled.released(7)
  await new Promise(setImmediate)
  expect(forgotten).toEqual([1, 0])
  expect(open.leases).toBe(0)
})

test('what was fetched whole, or has nothing in it, has no rest', () => {
  const { filled, lease, added } = rig()
  filled.shown(1, lease(WHOLE, 3), IMAGE)
  filled.shown(2, lease('nydus', 0), IMAGE)
  expect(added).toEqual([])
})
