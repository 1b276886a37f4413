// Fetches what signatures are kept in: manifests and blobs beside an image in its repository, and files of a lookaside in the web.
import { Failure } from '../errors.ts'
import type { Descriptor } from '../image/manifest.ts'
import { readAll } from './body.ts'
import type { Answer, Client } from './client.ts'
import type { RegistrySource } from './registry-source.ts'
import { countRetry, passing, pauseAskedMs, retry } from './retry.ts'
import type { Trust } from './trust.ts'

/** Of one image. All of it is unverified. */
export interface SignatureSource {
  /** What the repository keeps under a tag; undefined where there is none. @throws Failure as ImageSource.resolve */
  manifest(tag: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined>
  /** A blob of the repository. @throws Failure as Blob.read */
  blob(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array>
  /**
   * A file of the web, asked for without any credentials and never over unverified TLS; undefined where there is none.
   * @throws Failure denied, unavailable, timeout, aborted, limit
   */
  file(url: URL, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined>
}

/** `trust` says how connections to the web are secured. */
export function signatureSource(
  source: RegistrySource,
  client: Client,
  trust: (host: string) => Promise<Trust>,
): SignatureSource {
  return {
    manifest: (tag, maxBytes, signal) => source.tagged(tag, maxBytes, signal),
    blob: (descriptor, signal) => source.blob(descriptor).read({ start: 0, end: descriptor.size }, { signal }),
    file: async (url, maxBytes, signal) => {
      client.named(url.host) // by whoever runs this machine
      const { limits } = client
      const query = { url, method: 'GET', headers: {}, kind: 'other', follow: true } as const
      return await retry(
        () =>
          client.send({ ...query, trust, priority: 'demand', signal }, (answer) => content(answer, url.href, maxBytes)),
        limits,
        signal,
        (failure) => countRetry(client.counters, failure),
      )
    },
  }
}

async function content(answer: Answer, what: string, maxBytes: number): Promise<Uint8Array | undefined> {
  const { status } = answer
  if (status === 200) return await readAll(answer, maxBytes, what)
  if (status === 404 || status === 410) return undefined
  const failure = `${what}: ${answer.url.host} answers with status ${status}`
  if (status === 401 || status === 403)
    throw Failure.denied(failure, { why: 'signatures are asked for without credentials' })
  if (status !== 429 && status < 500) throw Failure.unavailable(failure)
  throw passing(Failure.unavailable(failure), pauseAskedMs(answer.header))
}
