// containerd's content store, as far as the agent reads it: manifests and configs, which clients fetched themselves, by namespace. What is
// read is compared with its digest here.
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect'
import { describe, Failure } from '../errors.ts'
import { type Digest, digestOf, isDigest } from '../image/digest.ts'
import { callIn, containerdAt } from './containerd-calls.ts'
import { Content } from './generated/content_pb.ts'
import type { Labels } from './snapshot.ts'

/** What finding images needs of it. Called in Prepare, where containerd holds no lock that it would take; never in Commit, Update, Remove. */
export interface Contents {
  /** Digests of the manifests in a namespace. @throws Failure unavailable, limit */
  manifests(namespace: string): Promise<Digest[]>
  /** Undefined: it is not there. @throws Failure unavailable */
  labels(namespace: string, digest: Digest): Promise<Labels | undefined>
  /** All of it; undefined: it is not there. @throws Failure corrupt, limit, unavailable */
  read(namespace: string, digest: Digest, maxBytes: number): Promise<Uint8Array | undefined>
}

/** Of a node with some thousand images. */
const MANIFESTS_MAX = 20_000
/** containerd's clients put this label on each manifest, before they ask for its layers. */
const REFERS_TO_CONFIG = 'labels."containerd.io/gc.ref.content.config"'

export class ContentStore implements Contents {
  readonly #address: string
  readonly #client: Client<typeof Content>

  /** @param address of containerd's socket; nothing is connected yet */
  constructor(address: string) {
    this.#address = address
    this.#client = createClient(Content, containerdAt(address))
  }

  async manifests(namespace: string): Promise<Digest[]> {
    const found: Digest[] = []
    await this.#call(async () => {
      const filters = [REFERS_TO_CONFIG]
      for await (const { info } of this.#client.list({ filters }, callIn(namespace))) {
        for (const { digest } of info) if (isDigest(digest)) found.push(digest)
        if (found.length > MANIFESTS_MAX)
          throw Failure.limit(`namespace ${namespace} has over ${MANIFESTS_MAX} manifests`)
      }
    })
    return found
  }

  async labels(namespace: string, digest: Digest): Promise<Labels | undefined> {
    return await this.#call(async () => (await this.#client.info({ digest }, callIn(namespace))).info?.labels ?? {})
  }

  async read(namespace: string, digest: Digest, maxBytes: number): Promise<Uint8Array | undefined> {
    const parts: Uint8Array[] = []
    let size = 0
    const read = await this.#call(async () => {
      for await (const { data } of this.#client.read({ digest }, callIn(namespace))) {
        size += data.length
        if (size > maxBytes) throw Failure.limit(`content ${digest} has over ${maxBytes} bytes`)
        parts.push(data)
      }
      return true
    })
    if (read === undefined) return undefined
    const bytes = new Uint8Array(Buffer.concat(parts))
    if (digestOf(bytes) !== digest) throw Failure.corrupt(`content ${digest} has another digest: ${digestOf(bytes)}`)
    return bytes
  }

  /** @returns undefined: there is no such thing */
  async #call<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work()
    } catch (cause) {
      if (cause instanceof Failure) throw cause
      if (cause instanceof ConnectError && cause.code === Code.NotFound) return undefined
      throw Failure.unavailable(`containerd does not answer at ${this.#address}`, {
        why: describe(cause),
        fix: 'Name its socket with --containerd-address.',
      })
    }
  }
}
