// An additional image store on fakes: images that are known or not, layers whose tars are known or not, and a mount that holds the rule
// between directories and entries at each version of the list.

import { expect } from 'vitest'
import { LeftLayers } from '../../src/agent/left-layers.ts'
import { Failure } from '../../src/errors.ts'
import { TAR_SIZE, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { Digest } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference, referenceText } from '../../src/image/reference.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import type { LayerLease, OpenLayer, Verdict } from '../../src/layer/layer.ts'
import { ROOT_NODE } from '../../src/mount/native.ts'
import { Quarantine } from '../../src/proof/quarantine.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import type { ContestedName } from '../../src/store/contested.ts'
import { trustNone } from '../../src/stores/identity.ts'
import type { ListedImage } from '../../src/stores/image-chain.ts'
import type { ImageStoreMount } from '../../src/stores/image-root.ts'
import { AdditionalImageStore, type ImageStoreParts } from '../../src/stores/image-store.ts'
import { type Left, readBack } from '../../src/stores/read-back.ts'
import type { Prove } from '../../src/stores/read-whole.ts'
import { type Guarded, guarded } from './guarded.ts'
import { config as configOf, digest, FakeLeases, image, proven, refuted } from './store.ts'

export interface Entry {
  id: string
  parent?: string
  'toc-digest'?: string
  'diff-digest'?: string
  'compressed-diff-digest'?: string
}

/** The store on fakes; a mount that holds the rule between directories and entries at each version of the list. */
export class World {
  readonly known = new Map<string, ResolvedImage>()
  readonly resolved: string[] = []
  readonly covered: string[] = []
  readonly uncovered: string[] = []
  readonly quarantine = new Quarantine()
  readonly messages: string[] = []
  readonly listed: ListedImage[] = []
  readonly forgotten: string[] = []
  readonly broken = new Set<Digest>()
  readonly sources = new Map<string, StoredBlob>()
  /** What reading a blob whole finds, and of which blobs that was done. */
  readonly tars = new Map<Digest, Verdict>()
  readonly verdicts = new Map<Digest, Verdict>()
  readonly fetched: Digest[] = []
  readonly leases = new FakeLeases()
  /** By path. */
  readonly slots = new Map<string, number>()
  /** By slot: how often, less how often it was released. */
  readonly attached = new Map<number, number>()
  readonly files = new Map<string, Uint8Array | string | number>()
  /** Of layers.json. */
  readonly versions: { node: bigint; mtime: bigint }[] = []
  /** The same, as it is kept for the next process. */
  readonly kept: [version: bigint, bytes: Uint8Array][] = []
  /** What could not be read back. */
  left: readonly Left[] = []
  /** By tree: what it was made from. */
  readonly #built = new Map<Digest, Digest>()
  readonly #names = new Map<bigint, string>([[ROOT_NODE, '']])
  readonly #nodes = new Map<string, bigint>()
  /** Of each directory. */
  readonly #paths = new Map<string, Set<string>>()
  readonly parts: ImageStoreParts
  readonly guarded: Guarded

  /** @param keepsApart whether images that are believed are kept apart */
  constructor(more: Partial<ImageStoreParts> = {}, keepsApart = false, contested: ContestedName[] = []) {
    this.guarded = guarded(
      (blob, tree) => this.#read(blob, tree),
      keepsApart,
      (message) => this.messages.push(message),
      contested,
    )
    this.parts = {
      images: {
        kept: async (reference) => [...this.known.values()].find((each) => each.digest === reference.digest),
        resolve: async (reference) => {
          this.resolved.push(referenceText(reference))
          const found = this.known.get(referenceText(reference))
          if (found === undefined) throw Failure.missing('no such image')
          return { ...found, reference }
        },
      },
      layers: {
        plan: planOnce(),
        openEmpty: async () => {
          throw new Error('a test needs it')
        },
        open: async ({ shown: descriptor }) => {
          if (this.broken.has(descriptor.digest)) throw Failure.corrupt('the index is damaged')
          return this.#layer(descriptor)
        },
        openWhole: async (descriptor, _, fetch) => {
          if (fetch) this.fetched.push(descriptor.digest)
          else if (!this.verdicts.has(descriptor.digest)) return undefined
          return this.#layer(descriptor)
        },
        keep: async () => {},
        everProven: async (blob) => this.verdicts.get(blob)?.verdict === 'proven',
        everRefuted: async (blob) => this.verdicts.get(blob)?.verdict === 'refuted',
        prove: async ({ descriptor }) => {
          const verdict = this.tars.get(descriptor.digest)
          if (verdict === undefined) throw Failure.unavailable('the registry is away')
          this.verdicts.set(descriptor.digest, verdict)
          return verdict
        },
      },
      listings: {
        keep: async (listed) => void this.listed.push(listed),
        all: async () => this.listed,
        forget: async (image) => {
          this.forgotten.push(image.reference)
          const kept = this.listed.filter((each) => JSON.stringify(each) !== JSON.stringify(image))
          this.listed.splice(0, Number.POSITIVE_INFINITY, ...kept)
        },
      },
      inUse: async () => undefined,
      pause: async () => {},
      versions: { restored: undefined, keep: (...shown) => void this.kept.push(shown), close: async () => {} },
      attach: async (_, path) => {
        const name = path.join('/')
        const slot = this.slots.get(name) ?? this.slots.size + 1
        this.slots.set(name, slot)
        this.attached.set(slot, (this.attached.get(slot) ?? 0) + 1)
        return slot
      },
      release: (slot) => {
        const left = (this.attached.get(slot) ?? 0) - 1
        if (left < 0) throw new Error(`slot ${slot} is released once too often`)
        if (left === 0) this.attached.delete(slot)
        else this.attached.set(slot, left)
      },
      cover: async (_, path) => void this.covered.push(path.join('/')),
      uncover: (path) => void this.uncovered.push(path.join('/')),
      quarantine: this.quarantine,
      prefetch: async (_, layer) => void (await layer.prefetch()),
      guard: this.guarded.guard,
      trustsDiffIds: trustNone,
      byIndex: true,
      now: () => 0,
      split: async ({ descriptor }) => ({ fd: descriptor.size, close: async () => {} }),
      left: new LeftLayers((message) => void this.messages.push(message)),
      log: (message) => void this.messages.push(message),
      ...more,
    }
  }

  /** The next process, over what this one kept. */
  restarted(more: Partial<ImageStoreParts> = {}, keepsApart = false): World {
    const next = new World(more, keepsApart, [...this.guarded.contested])
    for (const [reference, each] of this.known) next.known.set(reference, each)
    for (const each of this.broken) next.broken.add(each)
    for (const [blob, each] of this.verdicts) next.verdicts.set(blob, each)
    next.listed.push(...this.listed)
    return next
  }

  /** Reads a blob whole, which does not fit another's tree. */
  #read(blob: Digest, tree: Digest): Verdict | undefined {
    const tar = this.tars.get(blob)
    if (tar === undefined) return undefined
    const verdict = tree === treeOf(blob) ? tar : refuted(tar.diffId)
    this.verdicts.set(this.#built.get(tree) ?? blob, verdict)
    return verdict
  }

  async show(): Promise<AdditionalImageStore> {
    const { chains, left } = await readBack({ ...this.parts, signal: new AbortController().signal })
    this.left = left
    return await AdditionalImageStore.show(this.parts, this.#mount(), chains)
  }

  /**
   * Makes an image known to the registry, as `example.com/app:TAG`.
   * @param shared DiffIDs of its lowest layers; the others are its own
   * @param config tags of one config are of one image
   */
  push(tag: string, layers: readonly Descriptor[], shared: readonly Digest[] = [], config = tag): string {
    const reference = `example.com/app:${tag}`
    const made = image(tag, layers, reference)
    const diffIds = [...shared, ...made.config.diffIds.slice(shared.length)]
    const manifest = { ...made.manifest, config: configOf(`config of ${config}`) }
    this.known.set(reference, { ...made, manifest, config: { ...made.config, diffIds } })
    return reference
  }

  /** The verdict on a layer falls: it lies. */
  refute({ digest: blob }: Descriptor): void {
    this.verdicts.set(blob, refuted(digest('DiffID of its tar')))
    this.quarantine.add(
      { blob, tree: treeOf(blob) },
      { ...proven(digest('its tar')), verdict: 'refuted', why: 'bin/sh' },
    )
  }

  get entries(): Entry[] {
    return JSON.parse(new TextDecoder().decode(this.files.get('/images/overlay-layers/layers.json') as Uint8Array))
  }

  text(path: string): string | undefined {
    const found = this.files.get(`/images/${path}`)
    return found instanceof Uint8Array ? new TextDecoder().decode(found) : found?.toString()
  }

  nodeOf(path: string): bigint {
    return this.#nodes.get(path) as bigint
  }

  #layer(descriptor: Descriptor): LayerLease {
    this.#built.set(treeOf(builtOf(descriptor)), builtOf(descriptor))
    return this.leases.hold(descriptor.digest, {
      descriptor,
      tree: treeOf(builtOf(descriptor)),
      claimedTarSize: Number(descriptor.annotations[TAR_SIZE]) || undefined,
      indexDigest: descriptor.annotations[TOC_DIGEST] as Digest | undefined,
      chunks: { deviceSize: 8192 },
      verdict: async () => this.verdicts.get(builtOf(descriptor)),
      prefetch: async () => ({ ready: 0, failed: 0 }),
    } as unknown as OpenLayer) // what the store uses of it
  }

  #put(path: string, what: Uint8Array | string | number): void {
    this.files.set(path, what)
    const directory = path.slice(0, path.lastIndexOf('/'))
    this.#paths.set(directory, (this.#paths.get(directory) ?? new Set()).add(path))
  }

  /** A name, and what is below it, as the native side does it. */
  #forget(path: string): void {
    this.files.delete(path)
    this.#names.delete(this.#nodes.get(path) ?? 0n)
    this.#nodes.delete(path)
    this.#paths.get(path.slice(0, path.lastIndexOf('/')))?.delete(path)
    for (const each of [...(this.#paths.get(path) ?? [])]) this.#forget(each)
    this.#paths.delete(path)
  }

  #mount(): ImageStoreMount {
    const add = (node: bigint, parent: bigint, name: string, what: Uint8Array | string | number) => {
      const path = `${this.#names.get(parent)}/${name}`
      if (this.files.has(path) || this.#names.has(node)) throw new Error(`${path} is there`)
      this.#names.set(node, path)
      this.#nodes.set(path, node)
      this.#put(path, what)
    }
    return {
      addDirectory: (node, parent, name) => add(node, parent, name, 'directory'),
      addFile: (node, parent, name, _, bytes) => add(node, parent, name, bytes),
      addLate: (node, parent, name, _, size) => add(node, parent, name, size),
      addSymlink: (node, parent, name, _, target) => add(node, parent, name, target),
      graft: (parent, name, slot) => {
        const path = `${this.#names.get(parent)}/${name}`
        if (this.files.has(path)) throw new Error(`${path} is there`)
        this.#put(path, slot)
      },
      remove: (parent, name) => {
        const path = `${this.#names.get(parent)}/${name}`
        if (!this.files.has(path)) throw new Error(`there is no ${path}`)
        this.#forget(path)
      },
      replaceFile: (node, parent, name, { mtime }, bytes) => {
        this.versions.push({ node, mtime })
        this.files.set(`${this.#names.get(parent)}/${name}`, bytes)
        const directories = [...this.files.keys()].flatMap(
          (each) => each.match(/^\/images\/overlay\/([0-9a-f]{64})$/)?.[1] ?? [],
        )
        expect(directories.sort()).toEqual(this.entries.map(({ id }) => id).sort())
      },
    }
  }
}

/** As Layers.plan: made once of each manifest. */
function planOnce(): ImageStoreParts['layers']['plan'] {
  const plans = new WeakMap<object, ReturnType<typeof planUnits>>()
  return (manifest) => {
    const plan = plans.get(manifest) ?? planUnits(manifest)
    plans.set(manifest, plan)
    return plan
  }
}

export const treeOf = (blob: Digest) => digest(`tree of ${blob}`)
/** What a layer's tree is made from: its blob, unless another index of that blob says otherwise. */
export const BUILT_OF = 'test.built-of'
export const builtOf = ({ digest: blob, annotations }: Descriptor) =>
  (annotations[BUILT_OF] as Digest | undefined) ?? blob
export const toc = (name: string) => ({ by: 'index' as const, digest: digest(`index of ${name}`) })
/** One byte more than an engine waits for. */
export const LARGE = (8 << 20) + 1

export const list = (store: AdditionalImageStore, reference: string, prove?: Prove) =>
  store.list(parseReference(reference), prove)
export const diffId = (i: number, tag: string) => ({ by: 'diffid' as const, digest: digest(`DiffID ${i} of ${tag}`) })
