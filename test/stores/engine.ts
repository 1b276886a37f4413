// An engine of before Podman 6, as far as it matters for what it calls images: how it finds layers, what it calls them and the image,
// and when it refuses one (tryReusingBlobAsPending, layerID, computeID and CommitWithOptions of containers/image 5.39).
import { createHash } from 'node:crypto'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import { type Identity, layerId } from '../../src/stores/chain.ts'
import type { Entry } from './image-world.ts'

const ZSTD_CHUNKED_TOC = 'io.github.containers.zstd-chunked.manifest-checksum'

export class Engine {
  /** DiffIDs of the blobs that it pulled itself. */
  readonly #own = new Map<Digest, Digest>()
  readonly #images = new Map<string, { config: Digest; top: string | undefined; names: Set<string> }>()

  /** @param entries as it reads them in layers.json now @returns the ID. @throws Error what it refuses */
  pull(name: string, { manifest, config: { diffIds } }: ResolvedImage, entries: readonly Entry[]): string {
    let top: string | undefined
    const tocs: string[] = []
    for (const [i, descriptor] of manifest.layers.entries()) {
      const claimed = diffIds[i] as Digest // one a layer
      const identity = this.#identityOf(descriptor, claimed, entries)
      if (identity.by === 'diffid' && identity.digest !== claimed)
        throw new Error('does not match the DiffID of config')
      tocs.push(identity.by === 'index' ? identity.digest : '')
      top = layerId(top, identity)
    }
    const config = manifest.config.digest
    const id = tocs.some((each) => each !== '') ? sha256(`@With TOC:${tocs.join('|')}|`) : hex(config)
    const there = this.#images.get(id)
    if (there !== undefined && there.top !== top) throw new Error('already exists, but uses a different top layer')
    for (const { names } of this.#images.values()) names.delete(name)
    this.#images.set(id, { config, top, names: new Set([...(there?.names ?? []), name]) })
    return id
  }

  /** What runs under a name. */
  configOf(name: string): Digest | undefined {
    return [...this.#images.values()].find(({ names }) => names.has(name))?.config
  }

  #identityOf({ digest, annotations }: Descriptor, claimed: Digest, entries: readonly Entry[]): Identity {
    const listed = entries.find((each) => each['compressed-diff-digest'] === digest)?.['diff-digest']
    const known = this.#own.get(digest) ?? listed
    if (known !== undefined) return { by: 'diffid', digest: known as Digest }
    const index = annotations[TOC_DIGEST] ?? annotations[ZSTD_CHUNKED_TOC]
    if (index !== undefined && entries.some((each) => each['toc-digest'] === index)) {
      return { by: 'index', digest: index as Digest }
    }
    this.#own.set(digest, claimed) // what it pulls and does not have this DiffID it refuses
    return { by: 'diffid', digest: claimed }
  }
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
