// Pushing to a repository (distribution specification, "push"): blobs, then the manifest that names them.
//
//   HEAD blob ──▶ there                                    nothing is sent
//   POST uploads?mount=DIGEST&from=REPOSITORY ──▶ 201      the registry has it elsewhere
//                                  └──▶ 202, Location
//   PUT Location?digest=DIGEST, all of it ──▶ 201
//                 └──▶ 413: PATCH Location, a piece at a time; PUT Location?digest=DIGEST
//
// It is asked at the location that registries.conf names, never at a mirror. A location that leads to another host gets no credentials.
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import { OCI_MANIFEST } from '../image/manifest.ts'
import type { Answer } from './client.ts'
import type { PushRequests } from './push-requests.ts'
import { redirectTarget } from './redirect.ts'
import { refusalOf } from './refusal.ts'
import { isPassing } from './retry.ts'

/** Where one request may not be larger: proxies in front of registries allow 100 MB and more. */
const PIECE_BYTES = 32 << 20

/** What is pushed. */
export interface Pushed {
  digest: Digest
  size: number
  /** Its bytes from `start` on; called again for each try. */
  open(start: number): AsyncIterable<Uint8Array>
}

/** How a blob got there. */
export type Arrival = 'there' | 'mounted' | 'pushed'

/** One repository, made by `Registries.target`. */
export class RegistryTarget {
  readonly #name: string
  readonly #find: () => Promise<PushRequests>
  readonly #from: string | undefined
  #requests: Promise<PushRequests> | undefined

  /** @param from a repository of the same registry that may have the blobs */
  constructor(name: string, find: () => Promise<PushRequests>, from: string | undefined) {
    this.#name = name
    this.#find = find
    this.#from = from
  }

  /**
   * Brings a blob there, unless it is.
   * @throws Failure denied, missing (no such repository), corrupt (the registry got other bytes), limit (too large for it), unavailable,
   * timeout, aborted; or what `open` throws
   */
  async pushBlob(blob: Pushed, { signal }: { signal?: AbortSignal } = {}): Promise<Arrival> {
    const requests = await this.#ready()
    const what = `${this.#name}: blob ${blob.digest}`
    if (await this.#has(requests, `blobs/${blob.digest}`, what, signal)) return 'there'
    const step = async () => {
      const begun = await this.#begin(requests, what, blob, signal)
      if (begun === 'mounted') return begun
      await this.#upload(requests, what, begun, blob, signal)
      return 'pushed'
    }
    return await requests.retry<Arrival>(step, signal)
  }

  /**
   * Has the registry keep a manifest under its digest, and under `tag`; what it names must be there.
   * @throws Failure as pushBlob
   */
  async pushManifest(
    bytes: Uint8Array,
    mediaType: string,
    { tag, signal }: { tag?: string; signal?: AbortSignal } = {},
  ): Promise<Digest> {
    await this.#put(bytes, mediaType, tag, signal)
    return digestOf(bytes)
  }

  /**
   * The same of one that has a subject, under its digest.
   * @returns whether the registry lists it among what refers to the subject; else the list is the pusher's to keep
   * @throws Failure as pushBlob
   */
  async pushReferrer(bytes: Uint8Array, subject: Digest, { signal }: { signal?: AbortSignal } = {}): Promise<boolean> {
    return (await this.#put(bytes, OCI_MANIFEST, undefined, signal)) === subject
  }

  /** @returns the subject that the registry says it has understood */
  async #put(
    bytes: Uint8Array,
    mediaType: string,
    tag: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string | undefined> {
    const requests = await this.#ready()
    const digest = digestOf(bytes)
    const what = `${this.#name}: manifest ${tag ?? digest}`
    const headers = { 'content-type': mediaType, 'content-length': `${bytes.length}` }
    const step = async () => {
      const url = await requests.url(`manifests/${tag ?? digest}`, signal)
      const request = { method: 'PUT', url, headers, body: () => once(bytes), what, signal } as const
      return await requests.send(request, async (answer) => {
        if (answer.status !== 201) throw await refusal(what, answer)
        const kept = answer.header('docker-content-digest')
        if (kept === undefined || kept === digest) return answer.header('oci-subject')
        throw Failure.corrupt(`${what}: the registry keeps other bytes`, {
          why: `want ${digest}, got ${kept.slice(0, 100)}`,
        })
      })
    }
    return await requests.retry(step, signal)
  }

  #ready(): Promise<PushRequests> {
    this.#requests ??= this.#find().catch((error) => {
      this.#requests = undefined // a file that is repaired counts at once
      throw error
    })
    return this.#requests
  }

  async #has(requests: PushRequests, path: string, what: string, signal: AbortSignal | undefined): Promise<boolean> {
    const ask = async () =>
      await requests.send({ method: 'HEAD', url: await requests.url(path, signal), what, signal }, async (answer) => {
        if (answer.status === 200 || answer.status === 404) return answer.status === 200
        throw await refusal(what, answer)
      })
    return await requests.retry(ask, signal)
  }

  /** Where the bytes go, unless another repository of the registry had them. */
  async #begin(
    requests: PushRequests,
    what: string,
    { digest }: Pushed,
    signal: AbortSignal | undefined,
  ): Promise<URL | 'mounted'> {
    const post = async (query: string) => {
      const url = await requests.url(`blobs/uploads/${query}`, signal)
      const headers = { 'content-length': '0' }
      return await requests.send<URL | 'mounted'>({ method: 'POST', url, headers, what, signal }, async (answer) => {
        if (answer.status === 201 && query !== '') return 'mounted'
        if (answer.status === 202) return redirectTarget(answer.url, answer.header('location'))
        throw await refusal(what, answer)
      })
    }
    if (this.#from === undefined) return await post('')
    try {
      return await post(`?mount=${digest}&from=${encodeURIComponent(this.#from)}`)
    } catch (error) {
      // what it does not let us mount, or does not know how to, it may take all the same
      if (signal?.aborted || isPassing(error)) throw error
      return await post('')
    }
  }

  async #upload(
    requests: PushRequests,
    what: string,
    location: URL,
    blob: Pushed,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const headers = { 'content-type': 'application/octet-stream', 'content-length': `${blob.size}` }
    const body = () => exactly(blob, 0, blob.size)
    const request = { method: 'PUT', url: ending(location, blob), headers, body, what, signal } as const
    const done = await requests.send(request, async (answer) => {
      if (answer.status === 413 && blob.size > PIECE_BYTES) return false
      if (answer.status !== 201) throw await refusal(what, answer)
      return true
    })
    if (!done) await this.#uploadInPieces(requests, what, blob, signal)
  }

  async #uploadInPieces(
    requests: PushRequests,
    what: string,
    blob: Pushed,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const begun = await this.#begin(requests, what, blob, signal)
    if (begun === 'mounted') return
    let location = begun
    for (let start = 0; start < blob.size; ) {
      const end = Math.min(blob.size, start + PIECE_BYTES)
      const headers = {
        'content-type': 'application/octet-stream',
        'content-length': `${end - start}`,
        'content-range': `${start}-${end - 1}`,
      }
      const body = () => exactly(blob, start, end)
      const request = { method: 'PATCH', url: location, headers, body, what, signal } as const
      location = await requests.send(request, async (answer) => {
        if (answer.status !== 202) throw await refusal(what, answer)
        return redirectTarget(answer.url, answer.header('location'))
      })
      start = end
    }
    const headers = { 'content-length': '0' }
    await requests.send({ method: 'PUT', url: ending(location, blob), headers, what, signal }, async (answer) => {
      if (answer.status !== 201) throw await refusal(what, answer)
    })
  }
}

async function refusal(what: string, answer: Answer): Promise<Failure> {
  const { status } = answer
  const failure = await refusalOf(what, answer, true)
  if (status === 413) return Failure.limit(`${what}: ${answer.url.host} takes no request of that size`)
  // it has read all of it: DIGEST_INVALID, MANIFEST_INVALID
  if (status === 400) return Failure.corrupt(failure.message, failure.why === undefined ? {} : { why: failure.why })
  return failure
}

/** The specification has the digest in the query, beside what is there already. */
function ending(location: URL, { digest }: Pushed): URL {
  const url = new URL(location)
  url.searchParams.set('digest', digest)
  return url
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

/** The bytes from `start` up to `end`. @throws Failure corrupt: they are fewer; system */
async function* exactly(blob: Pushed, start: number, end: number): AsyncGenerator<Uint8Array> {
  let left = end - start
  if (left === 0) return
  try {
    for await (const bytes of blob.open(start)) {
      const part = bytes.subarray(0, left)
      left -= part.length
      yield part
      if (left === 0) return
    }
  } catch (cause) {
    throw cause instanceof Failure ? cause : Failure.system(`cannot read blob ${blob.digest}`, { cause })
  }
  throw Failure.corrupt(`blob ${blob.digest} ends ${left} bytes before its ${blob.size}`)
}
