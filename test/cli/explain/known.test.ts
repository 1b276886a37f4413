import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { knownOf } from '../../../src/cli/explain/known.ts'
import { Failure } from '../../../src/errors.ts'
import type { Digest } from '../../../src/image/digest.ts'
import type { Descriptor } from '../../../src/image/manifest.ts'
import { BOOTSTRAP, blobLayer, topLayer } from '../../format/nydus/nydus-craft.ts'

const digestOf = (i: number): Digest => `sha256:${i.toString(16).padStart(64, '0')}`
const LAYERS = Array.from({ length: 100 }, (_, i) => ({
  digest: digestOf(i),
  size: 1,
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  annotations: {},
}))

test('of an image with many layers, the records of some are read at once, and each layer has its own', async () => {
  let [running, most] = [0, 0]
  const cache = {
    async judged(blob: Digest) {
      most = Math.max(most, ++running)
      await turn()
      running--
      const verdict = { verdict: 'proven' as const, diffId: blob, tarSize: 1, split: blob }
      return [{ tree: blob, verdict }]
    },
    treesOf: async () => new Set<Digest>(),
    contested: async () => [],
  }
  const known = await knownOf(LAYERS, cache, () => {})
  expect(known).toEqual(LAYERS.map(({ digest }) => ({ diffIds: [digest], refuted: undefined, contested: [] })))
  expect(most).toBe(8)
})

test('of layers that show one tree together, what is known is what was found out of them so', async () => {
  const [blob, tree] = [blobLayer(LAYERS[0] as Descriptor), topLayer(LAYERS[1] as Descriptor, { [BOOTSTRAP]: 'true' })]
  const said = { diffId: digestOf(7), tarSize: 1, split: digestOf(8) }
  const cache = {
    judged: async (of: Digest, together?: boolean) => {
      if (together !== true) return [{ tree: digestOf(9), verdict: { verdict: 'proven' as const, ...said } }]
      if (of === tree.digest) return [{ tree: digestOf(9), verdict: { verdict: 'proven' as const, ...said } }]
      return [{ tree: digestOf(9), verdict: { verdict: 'refuted' as const, why: 'it begins as a tar does', ...said } }]
    },
    treesOf: async () => new Set<Digest>(),
    contested: async (of: Digest) => (of === blob.digest ? [blob.digest] : []),
  }
  expect(await knownOf([blob, tree], cache, () => {})).toEqual([
    { diffIds: [], refuted: 'it begins as a tar does', contested: [blob.digest] },
    { diffIds: [said.diffId], refuted: undefined, contested: [] },
  ])
})

test('where one record cannot be read, nothing is known, and that is said once', async () => {
  const said: string[] = []
  const cache = {
    judged: async () => Promise.reject(Failure.system('cannot read it')),
    treesOf: async () => new Set<Digest>(),
    contested: async () => [],
  }
  const known = await knownOf(LAYERS, cache, (message) => said.push(message))
  expect(known).toEqual(LAYERS.map(() => ({ diffIds: [], refuted: undefined, contested: [] })))
  expect(said).toEqual(['what this machine knows of layers is left out: cannot read it'])
})
