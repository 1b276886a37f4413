// Who owns an ID, without a list, a disk or a mount.
import { expect, test } from 'vitest'
import type { Digest } from '../../src/image/digest.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { Quarantine } from '../../src/proof/quarantine.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import type { Refutation } from '../../src/store/proofs.ts'
import type { ChainLink } from '../../src/stores/image-chain.ts'
import { LayerOwners } from '../../src/stores/layer-owners.ts'
import { digest, lazy, refuted } from './store.ts'

/** A layer that claims an ID, as `blob`. */
function link(id: string, blob = id, more: Partial<ChainLink> = {}): ChainLink {
  const descriptor = lazy(blob)
  const tree = digest(`tree of ${blob}`)
  return {
    id,
    parent: undefined,
    identity: { by: 'diffid', digest: digest(`DiffID of ${id}`) },
    descriptor,
    diffId: digest(`DiffID of ${id}`),
    proven: false,
    size: 5000,
    tree,
    layer: { descriptor, tree } as LayerLease, // what owning uses of it
    blobs: [{ digest: descriptor.digest } as StoredBlob],
    below: [],
    index: digest(`index of ${blob}`),
    ...more,
  }
}

/** Nobody says otherwise of any layer. */
const anyName = { whyNot: () => undefined, whyHidden: () => undefined }

const attached = (...links: ChainLink[]) => ({
  chain: { image: {} as ResolvedImage, links, why: undefined, passing: false },
  slots: links.map((_, i) => i),
})

/** What the blob of an ID's owner is. */
const blobOf = (owners: LayerOwners, id: string): Digest | undefined => owners.of(id)?.link.descriptor.digest

test('a claim that cannot be kept gives an ID back to whoever had it, unless another claimed it since', () => {
  const owners = new LayerOwners(new Quarantine(), anyName)
  const thief = owners.claim(attached(link('x', 'thief')), false)
  owners.kept(thief.owners)
  const first = owners.claim(attached(link('x', 'first', { proven: true })), false)
  expect(blobOf(owners, 'x')).toBe(digest('first'))
  owners.giveBack(first.owners)
  expect(blobOf(owners, 'x')).toBe(digest('thief'))
  const second = owners.claim(attached(link('x', 'second', { proven: true })), false)
  const third = owners.claim(attached(link('x', 'second', { proven: true })), false)
  owners.giveBack(second.owners)
  expect(blobOf(owners, 'x')).toBe(digest('second'))
  // neither is kept: the first again
  owners.giveBack(third.owners)
  expect(blobOf(owners, 'x')).toBe(digest('thief'))
  const alone = owners.claim(attached(link('y')), false)
  owners.giveBack(alone.owners)
  expect(owners.of('y')).toBeUndefined()
})

test('a chain gets IDs up to the first that another image has otherwise, or for which there is no room', () => {
  const owners = new LayerOwners(new Quarantine(), anyName, 2)
  owners.kept(owners.claim(attached(link('base')), false).owners)
  const other = owners.claim(attached(link('base', 'another blob'), link('top')), false)
  expect([other.owners.length, other.why]).toEqual([0, expect.stringContaining('its blob is')])
  const full = owners.claim(attached(link('base'), link('middle'), link('top')), false)
  expect([full.owners.length, full.why]).toEqual([2, expect.stringContaining('2 layers are listed already')])
})

test('a layer that lies is given no ID, and keeps none', () => {
  const quarantine = new Quarantine()
  const owners = new LayerOwners(quarantine, anyName)
  owners.kept(owners.claim(attached(link('x', 'liar')), false).owners)
  quarantine.add({ blob: digest('liar'), tree: digest('tree of liar') }, refuted(digest('other')) as Refutation)
  expect(owners.claim(attached(link('y', 'liar')), false).why).toContain('it is quarantined')
  // but engines that were shown it are shown it again
  expect(owners.claim(attached(link('z', 'liar')), true).owners).toHaveLength(1)
  owners.kept(owners.claim(attached(link('x', 'honest')), false).owners)
  expect(blobOf(owners, 'x')).toBe(digest('honest'))
})

test('only what nobody is about to keep is settled, and dropped', () => {
  const owners = new LayerOwners(new Quarantine(), anyName)
  owners.kept(owners.claim(attached(link('a'), link('b'), link('c')), false).owners)
  const joining = owners.claim(attached(link('b')), false)
  const settled = owners.settled((id) => id !== 'c')
  expect([...settled.keys()]).toEqual(['a'])
  owners.kept(joining.owners)
  expect([...owners.settled(() => true).keys()]).toEqual(['a', 'b', 'c'])
  const [[, a] = []] = [...settled]
  if (a === undefined) throw new Error('it is settled')
  owners.kept(owners.claim(attached(link('a')), false).owners)
  owners.drop('a', a) // claimed again since
  expect(owners.of('a')).toBeDefined()
  const [[, again] = []] = [...owners.settled((id) => id === 'a')]
  if (again === undefined) throw new Error('it is settled')
  owners.drop('a', again)
  expect(owners.of('a')).toBeUndefined()
})

test('an entry for another blob, claimed again and again, remembers nobody before it', () => {
  const owners = new LayerOwners(new Quarantine(), anyName)
  owners.kept(owners.claim(attached(link('x', 'gzip', { proven: true })), false).owners)
  const zstd = link('x', 'zstd', { proven: true })
  const id = owners.otherBlobId(zstd) ?? ''
  for (let i = 0; i < 3; i++) {
    expect(owners.claimOtherBlob(zstd, 1, id)).toBe(true)
    expect(owners.of(id)).toMatchObject({ before: undefined, link: { id, descriptor: { digest: digest('zstd') } } })
  }
  expect(owners.otherBlobId(link('x', 'gzip', { proven: true }))).toBeUndefined()
})

test('layers that show one tree together get all of their IDs, or none', () => {
  const together = { unit: { layers: ['one', 'two', 'tree'] } } as unknown as LayerLease['together']
  const links = ['one', 'two', 'tree'].map((id) => {
    const made = link(id)
    return { ...made, layer: { ...made.layer, together } as LayerLease }
  })
  const three = attached(...links, link('above'))
  const full = new LayerOwners(new Quarantine(), anyName, 2)
  expect(full.claim(three, false)).toEqual({ owners: [], why: expect.stringContaining('2 layers are listed already') })
  expect(full.size).toBe(0)

  const taken = new LayerOwners(new Quarantine(), anyName)
  taken.kept(taken.claim(attached(link('tree', 'another')), false).owners)
  expect(taken.claim(three, false)).toEqual({ owners: [], why: expect.stringContaining('as another image claims it') })
  expect([taken.size, blobOf(taken, 'tree')]).toEqual([1, digest('another')])

  const above = new LayerOwners(new Quarantine(), anyName)
  above.kept(above.claim(attached(link('above', 'another')), false).owners)
  expect(above.claim(three, false).owners).toHaveLength(3)
})
