// Whose layers containerd's containers get, by what is known of them.
import { describe, expect, test } from 'vitest'
import { ContainerdNames } from '../../src/agent/containerd-names.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { Digest } from '../../src/image/digest.ts'
import type { OpenLayer, Verdict } from '../../src/layer/layer.ts'
import { Quarantine } from '../../src/proof/quarantine.ts'
import { trustAll, trustNone } from '../../src/stores/identity.ts'
import type { NameClaim } from '../../src/stores/name-claim.ts'
import { digest, image, lazy } from '../stores/store.ts'

const PULLED = image('app', [lazy('layer')])
const DIFF_ID = PULLED.config.diffIds[0] as Digest
const TREE = digest('tree')

function world({ trusted = true, contested }: { trusted?: boolean; contested?: string } = {}) {
  const quarantine = new Quarantine()
  const shown: [Digest, boolean][] = []
  const pulled = PULLED
  const names = new ContainerdNames({
    guard: {
      meet: async () => ({ isNews: false, left: [] }),
      whyNot: () => contested,
      whyHidden: () => undefined,
      isBelieved: () => true,
      hurry: async () => {},
      shown: ({ claim }: { claim: NameClaim }, isProven) => void shown.push([claim.diffId, isProven]),
    },
    quarantine,
    trustsDiffIds: trusted ? trustAll : trustNone,
    layers: { plan: planUnits, prove: () => Promise.reject(new Error('a test needs it')) },
    log: () => {},
  })
  const descriptor = pulled.manifest.layers[0]
  const layerWith = (verdict: Verdict | undefined) =>
    ({ descriptor, tree: TREE, together: undefined, verdict: async () => verdict }) as OpenLayer // what is used of it
  const open = () => Promise.reject(new Error('it has a tree of its own'))
  return { names, quarantine, shown, pulled, layerWith, take: (layer: OpenLayer) => names.take(pulled, 0, layer, open) }
}

const verdict = (of: 'proven' | 'refuted', diffId = DIFF_ID) =>
  ({ verdict: of, diffId, tarSize: 1, why: 'other files' }) as Verdict

describe('a layer', () => {
  test('that is proven bears its DiffID, whoever is believed', async () => {
    const { take, layerWith, shown } = world({ trusted: false })
    expect(await take(layerWith(verdict('proven')))).toBeUndefined()
    expect(shown).toEqual([[DIFF_ID, true]])
  })

  test('that is only claimed bears it where its image is believed, and nobody says otherwise', async () => {
    const { take, layerWith, shown } = world()
    expect(await take(layerWith(undefined))).toBeUndefined()
    expect(shown).toEqual([[DIFF_ID, false]])
    expect(await world({ trusted: false }).take(layerWith(undefined))).toMatch(/only claimed/)
    expect(await world({ contested: 'another image' }).take(layerWith(undefined))).toBe('another image')
  })

  test('that lies, or has another DiffID, never does', async () => {
    const { take, layerWith, shown } = world()
    expect(await take(layerWith(verdict('refuted')))).toMatch(/quarantined/)
    expect(await take(layerWith(verdict('proven', digest('other'))))).toMatch(/its bytes have/)
    expect(shown).toEqual([])
  })

  test('of an earlier life that was found to have another DiffID since is given to no container', async () => {
    const { names, pulled, layerWith } = world()
    const layer = layerWith(verdict('proven', digest('other')))
    await names.restore(pulled, 0, layer)
    const record = {
      reference: 'registry.example.com/app:1',
      manifest: pulled.digest,
      place: 0,
      diffId: DIFF_ID,
      blob: layer.descriptor.digest,
      tree: TREE,
      together: false,
    }
    expect(names.whyHidden(record)).toMatch(/not to have the DiffID/)
    expect(names.whyHidden({ ...record, blob: digest('fine') })).toBeUndefined()
  })

  test('that is found to lie while it is shown is given to no container from then on', async () => {
    const { names, quarantine, pulled } = world()
    const blob = pulled.manifest.layers[0]?.digest as Digest
    const record = {
      reference: 'x',
      manifest: pulled.digest,
      place: 0,
      diffId: DIFF_ID,
      blob,
      tree: TREE,
      together: false,
    }
    expect(names.whyHidden(record)).toBeUndefined()
    quarantine.add({ blob, tree: TREE }, verdict('refuted') as Parameters<Quarantine['add']>[1])
    expect(names.whyHidden(record)).toBe('other files')
  })
})
