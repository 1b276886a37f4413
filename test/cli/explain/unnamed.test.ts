import { expect, test } from 'vitest'
import { waysOf } from '../../../src/cli/explain/layer.ts'
import { unnamedOf } from '../../../src/cli/explain/unnamed.ts'
import { TOC_DIGEST } from '../../../src/format/estargz/estargz.ts'
import { planUnits } from '../../../src/format/formats.ts'
import { type Descriptor, DOCKER_MANIFEST } from '../../../src/image/manifest.ts'
import { waitedFor } from '../../../src/stores/read-whole.ts'

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const MIB = 1 << 20

function layer(id: string, size: number, annotations: Descriptor['annotations'] = {}): Descriptor {
  return {
    digest: `sha256:${id.repeat(64)}`,
    size,
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    annotations,
  }
}
const lazy = (id: string, size: number) => layer(id, size, { [TOC_DIGEST]: `sha256:${'f'.repeat(64)}` })

/** Of each layer: `whole`, `left` to engines until something is done, `named`; or `plain`, of those that are. */
function unnamed(
  layers: readonly Descriptor[],
  only: boolean,
  here: readonly Descriptor[] = [],
  mediaType = OCI_MANIFEST,
) {
  const plan = planUnits({ layers })
  const waited = waitedFor(
    { mediaType, layers },
    plan,
    () => only,
    (each) => here.includes(each),
  )
  return layers.map((each) => {
    if (!('format' in (plan.get(each) ?? {}))) return 'plain'
    const found = unnamedOf({ mediaType }, each, only ? waited : undefined)
    if (found === undefined) return 'named'
    return found.whole ? 'whole' : 'left'
  })
}

test('indexes name layers, unless the agent is served with --diffid-only', () => {
  const layers = [lazy('a', 1), layer('b', 1), lazy('c', 1)]
  expect(unnamed(layers, false)).toEqual(['named', 'plain', 'named'])
  expect(unnamed(layers, true)).toEqual(['whole', 'plain', 'whole'])
})

test('an engine waits for all of them together or for none; what is here does not count, nor what cannot be listed', () => {
  const [half, rest, more] = [lazy('a', 128 * MIB), lazy('b', 128 * MIB), lazy('c', 1)]
  const plain = layer('d', 512 * MIB)
  expect(unnamed([half, rest], true)).toEqual(['whole', 'whole'])
  expect(unnamed([half, rest, more], true)).toEqual(['left', 'left', 'left'])
  expect(unnamed([half, rest, more], true, [rest])).toEqual(['whole', 'whole', 'whole'])
  expect(unnamed([half, rest, plain, more], true)).toEqual(['whole', 'whole', 'plain', 'left'])
})

test('that they are too large is said of the lowest, and of those above that it is below them', () => {
  const large = unnamedOf({ mediaType: OCI_MANIFEST }, lazy('a', 256 * MIB + 1), new Set())
  expect(large).toEqual({ why: expect.stringMatching(/by its index, .*too large/), fix: 'Serve without --diffid-only' })
  const believed = { why: 'the DiffID is nobody’s', fix: 'Have it proven.' }
  const facts = { format: { name: 'a format', unnamed: large }, proven: false, believed }
  const ways = waysOf([facts, facts])
  expect(ways[0]?.image).toMatchObject({ why: expect.stringContaining('too large') })
  expect(ways[1]?.image).toMatchObject({ why: expect.stringContaining('a layer below it is not in the image store') })
})

test('no index in a Docker manifest names a layer, nor does an engine wait for one there', () => {
  const layers = [lazy('a', 1), layer('b', 1)]
  expect(unnamed(layers, false, [], DOCKER_MANIFEST)).toEqual(['left', 'plain'])
  expect(unnamed(layers, true, [], DOCKER_MANIFEST)).toEqual(['left', 'plain'])
})
