// containerd's images as they come: what it has now, and what it is given from then on.
import { connect } from 'node:net'
import { fromBinary } from '@bufbuild/protobuf'
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { type Digest, isDigest } from '../image/digest.ts'
import { Events, ImageNamedSchema } from './generated/events_pb.ts'
import { Images } from './generated/images_pb.ts'

/** A manifest, or an index of several, that an image means. */
export interface ImageTarget {
  namespace: string
  /** What the client calls the image: a reference, as a rule. */
  name: string
  digest: Digest
}

/** Throws whatever ends the connection. */
export interface ImageSource {
  /** In a namespace. */
  all(namespace: string): Promise<ImageTarget[]>
  /** The one of a name; undefined: there is none. */
  named(namespace: string, name: string): Promise<ImageTarget | undefined>
  /** Those that are new, or mean something else, from the moment that `begun` is called, until `signal` aborts. */
  changes(begun: () => void, signal: AbortSignal): AsyncIterable<ImageTarget>
}

const CALL_MS = 10_000
const NAMESPACE = 'containerd-namespace'
/** The server answers only when it has something to say: by then it has subscribed. */
const SUBSCRIBED_AFTER_MS = 500

export class ImageEvents implements ImageSource {
  readonly #images: Client<typeof Images>
  readonly #events: Client<typeof Events>

  /** @param address of containerd's socket; nothing is connected yet */
  constructor(address: string) {
    const nodeOptions = { createConnection: () => connect(address) }
    const transport = createGrpcTransport({ baseUrl: 'http://localhost', nodeOptions })
    this.#images = createClient(Images, transport)
    this.#events = createClient(Events, transport)
  }

  async all(namespace: string): Promise<ImageTarget[]> {
    const { images } = await this.#images.list({}, optionsOf(namespace))
    return images.flatMap(({ name, target }) =>
      isDigest(target?.digest) ? [{ namespace, name, digest: target.digest }] : [],
    )
  }

  async *changes(begun: () => void, signal: AbortSignal): AsyncGenerator<ImageTarget> {
    const filters = ['topic=="/images/create"', 'topic=="/images/update"']
    const timer = setTimeout(begun, SUBSCRIBED_AFTER_MS)
    try {
      for await (const { namespace, event } of this.#events.subscribe({ filters }, { signal })) {
        const { name } = fromBinary(ImageNamedSchema, event?.value ?? new Uint8Array())
        const target = await this.named(namespace, name)
        if (target !== undefined) yield target
      }
    } finally {
      clearTimeout(timer)
    }
  }

  async named(namespace: string, name: string): Promise<ImageTarget | undefined> {
    try {
      const digest = (await this.#images.get({ name }, optionsOf(namespace))).image?.target?.digest
      return isDigest(digest) ? { namespace, name, digest } : undefined
    } catch (error) {
      if (error instanceof ConnectError && error.code === Code.NotFound) return undefined // removed meanwhile
      throw error
    }
  }
}

function optionsOf(namespace: string) {
  return { headers: { [NAMESPACE]: namespace }, timeoutMs: CALL_MS }
}
