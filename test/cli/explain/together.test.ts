import { expect, test } from 'vitest'
import type { LayerFacts } from '../../../src/cli/explain/layer.ts'
import { waysOfImage } from '../../../src/cli/explain/together.ts'
import { ERAS } from '../../../src/engines/versions.ts'
import type { Unit } from '../../../src/format/format.ts'
import { planUnits } from '../../../src/format/formats.ts'
import { type Descriptor, DOCKER_MANIFEST } from '../../../src/image/manifest.ts'
import type { Together } from '../../../src/layer/layer.ts'
import { OCI_CONFIG, OCI_MANIFEST } from '../../fake/image.ts'
import { BOOTSTRAP, blobLayer, someDigest, topLayer } from '../../format/nydus/nydus-craft.ts'

const [BLOB, OTHER] = ['blob', 'other'].map((name) => blobLayer({ digest: someDigest(name), size: 4096 })) as [
  Descriptor,
  Descriptor,
]
const TREE = topLayer({ digest: someDigest('tree'), size: 1 }, { [BOOTSTRAP]: 'true' })
const PLAIN = topLayer({ digest: someDigest('plain'), size: 1 })
const UNBELIEVED = { why: 'the DiffID is nobody’s', fix: 'Have it proven.' }

interface Case {
  layers?: readonly Descriptor[]
  mediaType?: string
  configType?: string
  /** What blobs are that have chunks. */
  chunks?: readonly Descriptor[]
  believed?: LayerFacts['believed']
  proven?: readonly Descriptor[]
  waited?: readonly Descriptor[]
  unusable?: Descriptor
}

function waysIn(of: Case) {
  const { layers = [BLOB, OTHER, TREE, PLAIN], mediaType = OCI_MANIFEST, configType = OCI_CONFIG } = of
  const { chunks = [BLOB, OTHER], believed = UNBELIEVED, proven = [], waited = [] } = of
  const plan = planUnits({ layers })
  const facts = layers.map((each): LayerFacts => {
    const isPlain = 'why' in (plan.get(each) as object)
    const unusable = each === of.unusable ? { why: 'it is no good', fix: 'Ask who made it.' } : undefined
    const format = unusable ?? (isPlain ? { why: 'a plain layer' } : { name: 'a format' })
    return { format, proven: proven.includes(each), believed }
  })
  const indexes = new Map<Descriptor, Together>()
  for (const each of layers) {
    const unit = plan.get(each) as Unit | { why: string }
    if ('why' in unit) continue
    const parts = unit.layers.filter((layer) => layer !== unit.shown)
    indexes.set(each, { unit, shows: each === unit.shown, hasChunks: chunks.includes(each), parts })
  }
  const config = { ...PLAIN, mediaType: configType }
  const diffIds = layers.map(({ digest }, i) => (layers[i] === TREE ? someDigest('its tar') : digest))
  const image = { manifest: { mediaType, config, layers }, config: { diffIds, platform: { os: '', architecture: '' } } }
  return waysOfImage(image, plan, indexes, facts, new Set(waited))
}

const rows = (of: Case) =>
  waysIn(of).map((ways) =>
    ERAS.map((era) => {
      const way = ways[era]
      if (way.door !== undefined) return `${way.door} ${way.identity}`
      return way.fails ? 'fails' : 'pulled'
    }).join(', '),
  )

const [PROVEN, LISTED] = ['layers proven, images proven, images proven', 'images proven, images proven, images proven']
const PULLED = 'pulled, pulled, pulled'
const FAILS = Array<string>(4).fill('fails, fails, fails')

test.each<[string, Case, readonly string[]]>([
  ['only claimed', {}, FAILS],
  ['one of them proven', { proven: [BLOB] }, FAILS],
  ['proven', { proven: [BLOB, OTHER] }, [PROVEN, PROVEN, PROVEN, PULLED]],
  ['with an ordinary layer above that is proven, too', { proven: [BLOB, OTHER, PLAIN] }, Array(4).fill(PROVEN)],
  ['without chunks, which are read at once', { chunks: [] }, [PROVEN, PROVEN, PROVEN, PULLED]],
  ['small, which are read when they are listed', { waited: [BLOB, OTHER] }, [LISTED, LISTED, LISTED, PULLED]],
  ['one of them small, the other read at once', { waited: [BLOB], chunks: [BLOB] }, [LISTED, LISTED, LISTED, PULLED]],
  [
    'believed',
    { believed: 'guarded' },
    [...Array<string>(2).fill('layers guarded, images guarded, images guarded'), PROVEN, PULLED],
  ],
])('engines know layers of one tree by their DiffIDs, all or none, or their pull fails: %s', (_, of, expected) => {
  expect(rows(of)).toEqual(expected)
})

test.each<[string, Case, string, string]>([
  ['a layer is only claimed', {}, 'by their DiffIDs only, and the DiffID is nobody’s', 'Have it proven.'],
  ['its manifest is one of Docker’s', { mediaType: DOCKER_MANIFEST }, 'engines refuse Docker manifests', 'mount IMAGE'],
  ['its configuration is of a foreign type', { configType: 'application/vnd.x' }, 'for an artifact', 'mount IMAGE'],
  ['its format refuses it', { layers: [PLAIN, BLOB, TREE] }, 'an ordinary layer is below its bootstrap', 'Convert the'],
  ['its index cannot be used', { unusable: BLOB }, 'it is no good', 'Ask who made it.'],
  [
    'the DiffID of one is another’s',
    { believed: { ...UNBELIEVED, false: true }, proven: [BLOB, OTHER] },
    'nobody’s',
    'Have it',
  ],
])('where %s, that is the reason why no engine pulls any of it, with what to do', (_, of, why, fix) => {
  const [first, ...others] = waysIn(of)
  expect(first?.image).toEqual({
    door: undefined,
    why: expect.stringMatching(/, so the engine's pull fails$/),
    fix: expect.stringContaining(fix),
    fails: true,
  })
  expect(first?.image.why).toContain(why)
  for (const each of others) expect(each).toEqual(first)
})

test('what is believed does not help where engines refuse the image', () => {
  expect(rows({ believed: 'claimed', mediaType: DOCKER_MANIFEST })).toEqual(FAILS)
  expect(rows({ believed: 'claimed', proven: [BLOB, OTHER], configType: 'application/vnd.x' })).toEqual(FAILS)
})
