// An additional layer store on fakes: images that are known or not, layers that open or not, and a mount that writes down what it is
// told and answers lookups as the native side would: names that are there are not asked for.
import { LeftLayers } from '../../src/agent/left-layers.ts'
import { Failure } from '../../src/errors.ts'
import { TAR_SIZE, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { planUnits } from '../../src/format/formats.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { type Reference, referenceText } from '../../src/image/reference.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import type { LayerLease, OpenLayer, Verdict } from '../../src/layer/layer.ts'
import { ROOT_NODE } from '../../src/mount/native.ts'
import { Quarantine } from '../../src/proof/quarantine.ts'
import { trustNone } from '../../src/stores/identity.ts'
import { AdditionalLayerStore, type StoreParts } from '../../src/stores/layer-store.ts'
import type { StoreMount } from '../../src/stores/shown-layers.ts'
import { OCI_LAYER, OCI_MANIFEST } from '../fake/image.ts'
import { type Guarded, guarded } from './guarded.ts'

export const digest = (of: string): Digest => digestOf(new TextEncoder().encode(of))

export function lazy(name: string, more: Partial<Descriptor> = {}): Descriptor {
  const annotations = { [TOC_DIGEST]: digest(`index of ${name}`), [TAR_SIZE]: '5000' }
  return { mediaType: OCI_LAYER, digest: digest(name), size: 1234, annotations, ...more }
}

export function plain(name: string, size = 1234): Descriptor {
  return { mediaType: OCI_LAYER, digest: digest(name), size, annotations: {} }
}

/** An image's. */
export function config(name: string): Descriptor {
  return { ...plain(name), mediaType: 'application/vnd.oci.image.config.v1+json' }
}

export const REFERENCE = 'example.com/app:1'

export function image(name: string, layers: readonly Descriptor[], reference = REFERENCE): ResolvedImage {
  const diffIds = layers.map((_, i) => digest(`DiffID ${i} of ${name}`))
  return {
    reference: { transport: 'docker', host: 'example.com', repository: 'app', tag: reference.split(':')[1] },
    digest: digest(name),
    manifest: { mediaType: OCI_MANIFEST, config: config(`config of ${name}`), layers },
    config: { platform: { os: 'linux', architecture: 'amd64' }, diffIds },
    blob: (descriptor: Descriptor) => ({ digest: descriptor.digest, size: descriptor.size }),
    repository: 'registry.example.com/app',
    companion: async () => undefined,
  } as unknown as ResolvedImage // what the store uses of it
}

/** As reading a blob whole would find it, of a tar of that DiffID. */
export function proven(diffId: Digest): Verdict {
  return { verdict: 'proven', diffId, tarSize: 7000, split: digest('split') }
}

export function refuted(diffId: Digest): Verdict {
  return { ...proven(diffId), verdict: 'refuted', why: 'bin/sh differs' }
}

/** As engines write it. */
export const encoded = (reference: string) => Buffer.from(reference).toString('base64')

/** Layers that are held, and how often. */
export class FakeLeases {
  readonly held = new Map<Digest, number>()

  hold(name: Digest, layer: OpenLayer): LayerLease {
    this.held.set(name, (this.held.get(name) ?? 0) + 1)
    let open = true
    const close = async () => {
      if (!open) return
      open = false
      const left = (this.held.get(name) as number) - 1
      if (left === 0) this.held.delete(name)
      else this.held.set(name, left)
    }
    return { ...layer, again: () => this.hold(name, layer), close, [Symbol.asyncDispose]: close }
  }
}

export class FakeWorld {
  kept: ResolvedImage | undefined
  /** What the registry says now; a Failure: that. */
  registry: ResolvedImage | Error | Promise<ResolvedImage> = Failure.unavailable('the registry is away')
  readonly resolved: string[] = []
  readonly opened: Digest[] = []
  /** Layers that do not open at once. */
  readonly opening = new Map<Digest, () => Promise<LayerLease>>()
  readonly prefetched: Digest[] = []
  /** What came of reading blobs whole. */
  readonly verdicts = new Map<Digest, Verdict>()
  /** What reading a blob whole would find. */
  readonly tars = new Map<Digest, Verdict>()
  readonly messages: string[] = []
  readonly attached: string[] = []
  readonly released: number[] = []
  readonly leases = new FakeLeases()
  /** Paths that overlays are made of. */
  readonly used = new Set<string>()
  /** Slots that somebody else uses. */
  readonly busy = new Set<number>()
  now = 0
  readonly standIns: string[] = []
  readonly hints: string[] = []
  readonly uncovered: string[] = []
  readonly quarantine = new Quarantine()
  /** Who looks. */
  uid = 1
  /** Those that are not root's. */
  readonly askers = new Map<number, 'user' | 'refused'>([
    [1000, 'refused'],
    [1001, 'user'],
  ])
  progress = 0
  readonly files = new Map<string, { node: bigint; bytes?: Uint8Array; size?: number; slot?: number }>()
  /** Of all that were ever there. */
  readonly nodes = new Map<string, bigint>()
  readonly #names = new Map<bigint, string>([[ROOT_NODE, '']])
  readonly #children = new Map<string, Set<string>>()
  readonly store: AdditionalLayerStore
  readonly guarded: Guarded

  /** @param keepsApart whether images that are believed are kept apart */
  constructor(more: Partial<StoreParts> = {}, shownMax?: number, keepsApart = false) {
    this.guarded = guarded(
      (blob) => this.#read(blob),
      keepsApart,
      (message) => this.messages.push(message),
    )
    const layers: StoreParts['layers'] = {
      plan: planUnits,
      openEmpty: async () => {
        throw new Error('a test needs it')
      },
      open: async ({ shown: descriptor }) => {
        this.opened.push(descriptor.digest)
        return (await this.opening.get(descriptor.digest)?.()) ?? this.layer(descriptor)
      },
      openWhole: async (descriptor, _, fetch) =>
        fetch || this.verdicts.has(descriptor.digest) ? this.layer(descriptor) : undefined,
      prove: async ({ descriptor }) => {
        const found = this.tars.get(descriptor.digest)
        if (found === undefined) throw Failure.unavailable('the registry is away')
        this.verdicts.set(descriptor.digest, found)
        return found
      },
      everProven: async (blob) => this.verdicts.get(blob)?.verdict === 'proven',
      everRefuted: async (blob) => this.verdicts.get(blob)?.verdict === 'refuted',
    }
    const parts: StoreParts = {
      images: {
        kept: async () => this.kept,
        resolve: async (reference: Reference) => {
          this.resolved.push(referenceText(reference))
          const found = await this.registry
          if (found instanceof Error) throw found
          return found
        },
      },
      layers,
      attach: async (_, path) => {
        this.attached.push(path.join('/'))
        return 100 + this.attached.length
      },
      wholeBlob: async () => ({ fd: 5, close: async () => {} }),
      quarantine: this.quarantine,
      prefetch: async (_, layer) => void (await layer.prefetch()),
      guard: this.guarded.guard,
      release: (slot) => void this.released.push(slot),
      inUse: async () => this.used,
      isFree: async (slot) => !this.busy.has(slot),
      now: () => this.now,
      cover: undefined,
      uncover: (path) => void this.uncovered.push(path.join('/')),
      fileOf: async () => ({ fd: 6, close: async () => {} }),
      hint: (op, path) => void this.hints.push(`${op} ${path.join('/')}`),
      standIn: async (path) => void this.standIns.push(path.join('/')),
      hasStandIn: async (path) => this.standIns.includes(path.join('/')),
      asker: (uid) => this.askers.get(uid) ?? 'root',
      progress: () => this.progress,
      trustsDiffIds: trustNone,
      byIndex: true,
      left: new LeftLayers((message) => void this.messages.push(message)),
      log: (message) => void this.messages.push(message),
      ...more,
    }
    this.store = new AdditionalLayerStore(parts, shownMax)
    this.store.show(this.#mount())
  }

  #read(blob: Digest): Verdict | undefined {
    const verdict = this.tars.get(blob)
    if (verdict !== undefined) this.verdicts.set(blob, verdict)
    return verdict
  }

  /** The verdict on a layer falls: it lies. */
  refute({ digest: blob }: Descriptor): void {
    const verdict = { ...proven(digest('its tar')), verdict: 'refuted' as const, why: 'bin/sh differs' }
    this.verdicts.set(blob, verdict)
    this.quarantine.add({ blob, tree: digest('tree') }, verdict)
  }

  layer(descriptor: Descriptor): LayerLease {
    return this.leases.hold(descriptor.digest, {
      descriptor,
      format: 'estargz',
      claimedTarSize: Number(descriptor.annotations[TAR_SIZE]) || undefined,
      indexDigest: descriptor.annotations[TOC_DIGEST] as Digest,
      tree: digest('tree'),
      chunks: { deviceSize: 8192 },
      verdict: async () => this.verdicts.get(descriptor.digest),
      prefetch: async () => {
        this.prefetched.push(descriptor.digest)
        return { ready: 0, failed: 0 }
      },
    } as unknown as OpenLayer) // what the store uses of it
  }

  #mount(): StoreMount {
    const add = (
      node: bigint,
      parent: bigint,
      name: string,
      what: { bytes?: Uint8Array; size?: number; slot?: number },
    ) => {
      const above = this.#names.get(parent)
      if (above === undefined) throw new Error(`node ${parent}: no such directory`)
      const path = `${above}/${name}`
      if (this.files.has(path)) throw new Error(`${path} is there`)
      this.#names.set(node, path)
      this.files.set(path, { node, ...what })
      const beside = this.#children.get(above) ?? new Set()
      this.#children.set(above, beside.add(path))
      this.nodes.set(path, node)
    }
    return {
      addDirectory: (node, parent, name) => add(node, parent, name, {}),
      addFile: (node, parent, name, _, bytes) => add(node, parent, name, { bytes }),
      addLate: (node, parent, name, _, size) => add(node, parent, name, { size }),
      graft: (parent, name, slot) => add(0n, parent, name, { slot }),
      remove: (parent, name) => {
        const path = `${this.#names.get(parent)}/${name}`
        if (!this.files.has(path)) throw new Error(`there is no ${path}`)
        this.#remove(path)
      },
    }
  }

  #remove(path: string): void {
    for (const each of this.#children.get(path) ?? []) this.#remove(each)
    this.#children.delete(path)
    this.#children.get(path.slice(0, path.lastIndexOf('/')))?.delete(path)
    this.#names.delete(this.files.get(path)?.node as bigint)
    this.files.delete(path)
  }

  /** stat(2) of a path below the root: resolves when it is there. @throws Failure missing, or what the store throws */
  async stat(path: string): Promise<void> {
    let at = ''
    for (const name of path.split('/')) {
      const parent = at === '' ? ROOT_NODE : (this.files.get(at)?.node as bigint)
      at = `${at}/${name}`
      if (this.files.has(at)) continue
      await this.store.lookup(parent, name, this.uid)
      if (!this.files.has(at)) throw Failure.missing(`no ${at}`)
    }
  }

  /** What an engine asks first of a layer. */
  async look(layer: Digest, reference = REFERENCE): Promise<void> {
    await this.stat(`layers/${encoded(reference)}/${layer}/diff`)
  }

  info(layer: Digest, reference = REFERENCE): unknown {
    const file = this.files.get(`/layers/${encoded(reference)}/${layer}/info`)
    return JSON.parse(new TextDecoder().decode(file?.bytes))
  }
}
