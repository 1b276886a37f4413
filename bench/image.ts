// Images in a registry: a tree, written as one eStargz layer, or what lies in a layout; served over TLS and HTTP/2 from this process,
// behind a link.
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { selfSigned } from '../src/build/certificate.ts'
import { folderEntries } from '../src/build/folder.ts'
import { writeImage } from '../src/build/layout-writer.ts'
import { answer, layoutShelf, listen, send } from '../src/build/registry.ts'
import { hex } from '../src/image/digest.ts'
import { type Descriptor, parseManifest } from '../src/image/manifest.ts'
import type { Context, LinkShape } from './case.ts'
import { openLink } from './link.ts'

export interface Served {
  /** As the command takes it. */
  reference: string
  /** `https://HOST:PORT`, repository and tag, for clients that speak to the registry themselves. */
  origin: string
  repository: string
  tag: string
  /** The lowest first; as the manifest says, so that a client that only mounts need not ask for it. */
  layers: readonly Descriptor[]
  /** PEM; it is its own authority, for 127.0.0.1 and for NAMED. */
  certificate: string
  /** Both may take a moment. */
  link: { cut(): void | Promise<void>; mend(): void | Promise<void> }
  /** Requests that reached the registry; bytes that it sent to the client. Over a link those that entered it, TLS and all. */
  counters(): { requests: number; bytesDown: number }
}

export interface Serving {
  source: string
  /** For the OCI layout. */
  dir: string
  /** Paths that the image says a start needs. */
  prioritized?: readonly string[]
  /** Decoded bytes of a chunk; default: the writer's. */
  chunkSize?: number
  /** Default: one that delays nothing. */
  link?: LinkShape
  defer: Context['defer']
}

/** A name for 127.0.0.1, for clients that speak TLS to no address of the loopback. Only what is told so knows that it is here. */
export const NAMED = 'registry.example.com'

export const REPOSITORY = 'bench/tree'
/** Of a tree's image. */
export const TAG = 'one'
export const NO_DELAY: LinkShape = { roundTripMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY }

export async function serveTree({ link, defer, ...written }: Serving): Promise<Served> {
  await writeTreeImage(written)
  return await serveLayout(written.dir, TAG, defer, link)
}

/** The layout that `serveTree` serves, tagged TAG. */
export async function writeTreeImage({
  source,
  dir,
  prioritized = [],
  chunkSize,
}: Omit<Serving, 'link' | 'defer'>): Promise<void> {
  await mkdir(dir)
  // gzip's fastest level: how well the layer compresses is not what is measured
  const options = { prioritized, level: 1, ...(chunkSize === undefined ? {} : { chunkSize }) }
  await writeImage({ dir, tag: TAG, layers: [{ kind: 'estargz', entries: folderEntries(source), options }] })
}

/** An image that lies in an OCI layout. @param link default: one that delays nothing */
export async function serveLayout(
  dir: string,
  tag: string,
  defer: Context['defer'],
  link: LinkShape = NO_DELAY,
): Promise<Served> {
  const shelf = layoutShelf(dir)
  let requests = 0
  const layers = await layersOf(dir, tag)
  const certificate = await selfSigned(['127.0.0.1', NAMED])
  const registry = await listen(async (request, response) => {
    requests += 1
    const header = (name: string) => {
      const value = request.headers[name]
      return typeof value === 'string' ? value : undefined
    }
    await send(await answer(shelf, request.method ?? '', request.url ?? '', header), response)
  }, certificate)
  defer(() => registry.close())
  const [host = '', port] = registry.host.split(':')
  const over = await openLink({ target: { host, port: Number(port) }, ...link })
  defer(() => over.close())
  const at = `127.0.0.1:${over.port}`
  return {
    reference: `docker://${at}/${REPOSITORY}:${tag}`,
    origin: `https://${at}`,
    repository: REPOSITORY,
    tag,
    layers,
    certificate: certificate.cert,
    link: over,
    counters: () => ({ requests, bytesDown: over.counters().bytesDown }),
  }
}

/** The lowest first. */
export async function layersOf(dir: string, tag: string): Promise<readonly Descriptor[]> {
  const found = await layoutShelf(dir).manifest(REPOSITORY, tag)
  if (found === undefined) throw new Error(`no image in ${dir} is tagged ${tag}`)
  const manifest = parseManifest(await readFile(join(dir, 'blobs/sha256', hex(found.digest))), tag)
  return 'layers' in manifest ? manifest.layers : []
}
