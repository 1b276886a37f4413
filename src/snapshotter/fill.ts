// Brings the layers that a lazy pull left out into containerd's content store, so that an image can be exported, converted, and pushed to
// other registries. containerd keeps what a manifest's labels refer to; so these are there before a layer is.
import type { FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { choosePlatform, type Platform } from '../image/manifest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import { mapLimited } from '../limit.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Contents } from './content-store.ts'
import type { ContentSink } from './content-writer.ts'
import type { ImageTarget } from './image-events.ts'
import { type FoundImage, type ImageFinder, SOURCE } from './image-finder.ts'

export interface FillParts {
  finder: Pick<ImageFinder, 'manifestOf' | 'open'>
  contents: Pick<Contents, 'labels'>
  sink: ContentSink
  platform: Platform
  /** @throws Failure */
  resolve(found: Omit<FoundImage, 'place'>): Promise<ResolvedImage>
  /** Its exact bytes in a file, which the caller closes. @throws Failure */
  wholeBlob(blob: StoredBlob): Promise<FileHandle>
}

export interface FilledImage {
  namespace: string
  /** As its client calls it. */
  name: string
  /** Different ones. */
  layers: number
  /** Those that were missing, and their bytes. */
  written: number
  bytes: number
}

/** Labels by which containerd's collector gets from content to content. */
const REFERS = 'containerd.io/gc.ref.content'
/** A few, so that one is fetched while another is written. */
const AT_ONCE = 3

/** @throws Failure missing: no manifest of it is for this platform, or there; as ContentSink, and what its parts throw */
export async function fillImage(target: ImageTarget, parts: FillParts, signal: AbortSignal): Promise<FilledImage> {
  const { namespace, name, digest } = target
  const { finder, contents, sink, platform } = parts
  const known = await finder.manifestOf(namespace, digest, (index) => choosePlatform(index, platform, name).digest)
  if (known === undefined) throw Failure.missing(`containerd has no manifest of ${name} for this machine`)
  const layers = known.manifest.layers.filter(
    (each, i, all) => all.findIndex((one) => one.digest === each.digest) === i,
  )
  const labels = (await contents.labels(namespace, known.digest)) ?? {}
  await sink.label(namespace, known.digest, missingReferences(known.manifest.layers, labels))
  const absent = []
  for (const layer of layers) if ((await contents.labels(namespace, layer.digest)) === undefined) absent.push(layer)
  if (absent.length === 0) return { namespace, name, layers: layers.length, written: 0, bytes: 0 }
  const image = await parts.resolve(await finder.open(namespace, known.digest, name))
  // whoever pushes to where it came from needs none of its bytes
  const source = Object.fromEntries(Object.entries(labels).filter(([key]) => key.startsWith(SOURCE)))
  await mapLimited(absent, AT_ONCE, async (layer) => {
    const file = await parts.wholeBlob(image.blob(layer))
    try {
      await sink.write(namespace, { digest: layer.digest, size: layer.size, labels: source }, file, signal)
    } finally {
      await file.close()
    }
  })
  const bytes = absent.reduce((sum, { size }) => sum + size, 0)
  return { namespace, name, layers: layers.length, written: absent.length, bytes }
}

/** What a manifest's labels lack to lead to each of its layers, named as containerd's clients name them. */
function missingReferences(
  layers: readonly { digest: Digest }[],
  labels: Readonly<Record<string, string>>,
): Record<string, string> {
  const referred = new Set(Object.entries(labels).flatMap(([key, value]) => (key.startsWith(REFERS) ? [value] : [])))
  return Object.fromEntries(
    layers.flatMap(({ digest }, i) => (referred.has(digest) ? [] : [[`${REFERS}.l.${i}`, digest]])),
  )
}
