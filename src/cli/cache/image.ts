// Which trees of the cache an image's layers have.
import { Failure } from '../../errors.ts'
import type { Digest } from '../../image/digest.ts'
import { type Platform, parseManifest, platformText } from '../../image/manifest.ts'
import { type Reference, referenceText } from '../../image/reference.ts'
import { keptTrees } from '../../store/contents.ts'
import type { Store } from '../../store/store.ts'

/** The layers that a manifest in the cache names; undefined: it is not there. @throws Failure system */
export async function layersOf(store: Store, manifest: Digest): Promise<Digest[] | undefined> {
  const bytes = await store.getObject(manifest)
  const parsed = bytes && parseManifest(bytes, `manifest ${manifest}`)
  return parsed !== undefined && 'layers' in parsed ? parsed.layers.map(({ digest }) => digest) : undefined
}

/** @throws Failure missing: the cache knows no such image; system */
export async function pinnedLayers(
  store: Store,
  reference: Reference,
  platform: Platform,
): Promise<{ layers: number; trees: Digest[] }> {
  const name = referenceText(reference)
  const manifest = (await store.tags.of(name, platformText(platform)))?.manifest ?? reference.digest
  const layers = manifest && (await layersOf(store, manifest))
  if (layers === undefined) {
    throw Failure.missing(`the cache has no image ${name}`, {
      fix: 'Mount it, or run lazylayer pull, and pin it then.',
    })
  }
  const trees: Digest[] = []
  for await (const { tree, chunks } of keptTrees(store)) {
    if (chunks.blobs.some(({ digest }) => layers.includes(digest))) trees.push(tree)
  }
  return { layers: layers.length, trees }
}
