import { describe, expect, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import type { Contents } from '../../src/snapshotter/content-store.ts'
import { ImageFinder } from '../../src/snapshotter/image-finder.ts'
import type { Labels } from '../../src/snapshotter/snapshot.ts'
import { chainOf } from '../../src/snapshotter/targets.ts'

const digest = (digit: string) => `sha256:${digit.repeat(64)}` as Digest
const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
const SOURCE = 'containerd.io/distribution.source.registry.example.com'
const CRI = 'containerd.io/snapshot/cri.'

/** A content store with one namespace, `k8s.io`. */
class Fake implements Contents {
  readonly all = new Map<Digest, { bytes: Uint8Array; labels: Labels; isManifest: boolean }>()
  reads = 0

  async manifests(namespace: string) {
    return namespace === 'k8s.io' ? [...this.all].flatMap(([key, { isManifest }]) => (isManifest ? [key] : [])) : []
  }
  async labels(namespace: string, of: Digest) {
    return namespace === 'k8s.io' ? this.all.get(of)?.labels : undefined
  }
  async read(_: string, of: Digest) {
    this.reads++
    return this.all.get(of)?.bytes
  }

  add(value: unknown, labels: Labels, isManifest: boolean): Digest {
    const of = digestOf(bytes(value))
    this.all.set(of, { bytes: bytes(value), labels, isManifest })
    return of
  }

  /** @param tocs of layers that have one */
  image(
    layers: string[],
    diffIds: string[],
    labels: Labels = { [SOURCE]: 'team/app,team/other' },
    tocs: Readonly<Record<string, string>> = {},
  ): Digest {
    const rootfs = { type: 'layers', diff_ids: diffIds.map(digest) }
    const config = { os: 'linux', architecture: 'amd64', rootfs, made: layers.join() }
    const of = this.add(config, {}, false)
    const descriptor = (each: Digest, size: number) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: each,
      size,
    })
    const manifest = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { ...descriptor(of, 1), mediaType: 'application/vnd.oci.image.config.v1+json' },
      layers: layers.map((each) => {
        const toc = tocs[each]
        const annotations = toc === undefined ? {} : { annotations: { [TOC_DIGEST]: digest(toc) } }
        return { ...descriptor(digest(each), 10), ...annotations }
      }),
    }
    return this.add(manifest, labels, true)
  }
}

/** Registries are where they are by default, but for one. */
const finderOf = (store: Contents) =>
  new ImageFinder(store, { hostOf: async (host) => (host === 'ported.example.com' ? `${host}:5000` : host) })

const [base, top] = chainOf([digest('a'), digest('b')]) as [Digest, Digest]

describe('an image is found', () => {
  test('without any label but the target, by the chain of its DiffIDs', async () => {
    const store = new Fake()
    store.image(['7'], ['c'])
    const manifest = store.image(['1', '2'], ['a', 'b'])
    const found = await finderOf(store).find('k8s.io', top, {})
    expect(found).toMatchObject({ place: 1, chain: [base, top] })
    expect(found.reference).toEqual({
      transport: 'docker',
      host: 'registry.example.com',
      repository: 'team/app',
      digest: manifest,
    })
    expect(digestOf(found.manifestBytes)).toBe(manifest)
  })

  test('by the reference of a label, if the client fetched it from that repository', async () => {
    const store = new Fake()
    const manifest = store.image(['1', '2'], ['a', 'b'])
    const finder = finderOf(store)
    const referenceBy = async (text: string) => {
      const labels = { [`${CRI}image-ref`]: text, [`${CRI}manifest-digest`]: manifest }
      const { host, repository } = (await finder.find('k8s.io', base, labels)).reference
      return `${host}/${repository}`
    }
    expect(await referenceBy('registry.example.com:5000/team/other:1')).toBe('registry.example.com:5000/team/other')
    // an image wrote that: it would have the agent ask with the node's credentials
    expect(await referenceBy('registry.example.com/private/secret:1')).toBe('registry.example.com/team/app')
    expect(await referenceBy('other.example.com/team/app:1')).toBe('registry.example.com/team/app')
    expect(await referenceBy('@@@')).toBe('registry.example.com/team/app')
  })

  test('by what BuildKit calls its layers, and the image or the index that its reference means', async () => {
    const store = new Fake()
    const named = (manifest: Digest) => ({ [`${CRI}image-ref`]: `registry.example.com/team/app:1@${manifest}` })
    const manifest = store.image(['1', '2'], ['a', 'b'], undefined, { 1: 'd' })
    store.image(['3', '2'], ['a', 'b'], undefined, { 3: 'd' })
    const sum = (...of: string[]) => digestOf(new TextEncoder().encode(of.join(' ')))
    const chain = sum(sum(digest('a'), digest('d')), digest('b'))
    const target = `buildkit-layer-snapshot-v1-${chain.replace(':', '-')}`
    const finder = finderOf(store)
    expect(await finder.find('k8s.io', target, named(manifest))).toMatchObject({
      place: 1,
      chain: [expect.stringMatching(/^buildkit-layer-snapshot-v1-sha256-/), target],
      reference: { repository: 'team/app', tag: '1', digest: manifest },
      toProve: new Set([1]), // it has no table of contents, so that BuildKit knows it by its DiffID alone
    })
    expect((await finder.find('k8s.io', top, named(manifest))).chain).toEqual([base, top]) // an older one
    const mediaType = 'application/vnd.oci.image.manifest.v1+json'
    const manifests = [digest('f'), manifest].map((each) => ({ mediaType, digest: each, size: 1 }))
    const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }
    const labels = named(store.add(index, {}, true))
    expect((await finder.find('k8s.io', target, labels)).reference.digest).toBe(manifest)
  })

  test('is not found where', async () => {
    const store = new Fake()
    const manifest = store.image(['1', '2'], ['a', 'b'])
    const finder = finderOf(store)
    const refused = (namespace: string, target: string, labels: Labels) =>
      expect(finder.find(namespace, target, labels)).rejects.toMatchObject({ code: 'missing' })
    await refused('other', top, { [`${CRI}manifest-digest`]: manifest })
    await refused('k8s.io', digest('9'), { [`${CRI}manifest-digest`]: manifest })
    await refused('k8s.io', 'not-a-chain', {})
    // a victim's layer under a hostile name
    await refused('k8s.io', top, { [`${CRI}manifest-digest`]: manifest, [`${CRI}layer-digest`]: digest('1') })
  })

  test('by no manifest that the namespace does not have, whatever a label says', async () => {
    const store = new Fake()
    const manifest = store.image(['1'], ['a'])
    const labels = { [`${CRI}manifest-digest`]: digest('f') }
    expect((await finderOf(store).find('k8s.io', base, labels)).reference.digest).toBe(manifest)
  })

  test('but for the layers that images differ in', async () => {
    const store = new Fake()
    store.image(['1', '2'], ['a', 'b'])
    store.image(['1', '3'], ['a', 'b'])
    const finder = finderOf(store)
    expect((await finder.find('k8s.io', base, {})).place).toBe(0)
    await expect(finder.find('k8s.io', top, {})).rejects.toMatchObject({ code: 'unsupported' })
  })

  test('among things that are no images, and are read once', async () => {
    const store = new Fake()
    store.add('nonsense', {}, true)
    store.add({ schemaVersion: 2, layers: [], config: {} }, {}, true)
    store.image(['1'], ['a', 'b']) // one layer, two DiffIDs
    store.image(['1'], ['a'])
    const finder = finderOf(store)
    await finder.find('k8s.io', base, {})
    const before = store.reads
    await finder.find('k8s.io', base, {})
    expect(store.reads - before).toBe(2) // the manifest and the config that it gives back
  })

  test('once it is there, though it was looked for before all of it was', async () => {
    const store = new Fake()
    const manifest = store.image(['1'], ['a'])
    const [config] = [...store.all].filter(([, { isManifest }]) => !isManifest)
    const finder = finderOf(store)
    store.all.delete(config?.[0] as Digest)
    await expect(finder.find('k8s.io', base, {})).rejects.toMatchObject({ code: 'missing' })
    store.all.set(...(config as NonNullable<typeof config>))
    expect((await finder.find('k8s.io', base, {})).reference.digest).toBe(manifest)
  })

  test('at the port of its registry, which its source does not tell', async () => {
    const store = new Fake()
    store.image(['1'], ['a'], { 'containerd.io/distribution.source.ported.example.com': 'team/app' })
    const { reference } = await finderOf(store).find('k8s.io', base, {})
    expect(reference).toMatchObject({ host: 'ported.example.com:5000', repository: 'team/app' })
  })

  test('but not where it was fetched from nowhere', async () => {
    const store = new Fake()
    store.image(['1'], ['a'], {})
    await expect(finderOf(store).find('k8s.io', base, {})).rejects.toMatchObject({ code: 'missing' })
  })
})
