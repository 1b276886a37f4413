// containerd's images as they come and go: what it has now, and what happens to it from then on.
import { randomBytes } from 'node:crypto'
import { fromBinary } from '@bufbuild/protobuf'
import { anyPack, EmptySchema } from '@bufbuild/protobuf/wkt'
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect'
import { Failure } from '../errors.ts'
import { type Digest, isDigest } from '../image/digest.ts'
import { callIn, containerdAt } from './containerd-calls.ts'
import { type Envelope, Events, ImageNamedSchema } from './generated/events_pb.ts'
import { Images } from './generated/images_pb.ts'

/** A manifest, or an index of several, that an image means. */
export interface ImageTarget {
  namespace: string
  /** What the client calls the image: a reference, as a rule. */
  name: string
  digest: Digest
}

/** `mark`: somebody put it there with `mark`. */
export type ImageChange =
  | { is: 'there'; target: ImageTarget }
  | { is: 'gone'; namespace: string; name: string }
  | { is: 'mark'; mark: string }

/** Throws whatever ends the connection. */
export interface ImageSource {
  /** In a namespace. */
  all(namespace: string): Promise<ImageTarget[]>
  /**
   * What happens from a moment on that is not known, until `signal` aborts: in the order in which it happens.
   * @throws Failure unsupported: whoever answers has no images, as BuildKit
   */
  changes(signal: AbortSignal): AsyncIterable<ImageChange>
  /** Puts a mark behind all that has happened. @param mark letters and digits */
  mark(mark: string): Promise<void>
  /** The one of a name; undefined: there is none. */
  named(namespace: string, name: string): Promise<ImageTarget | undefined>
}

/** That of the marks: nobody has images there. */
const MARKS = 'lazylayer'
const GONE = '/images/delete'

export class ImageEvents implements ImageSource {
  readonly #images: Client<typeof Images>
  readonly #events: Client<typeof Events>
  /** Marks of other agents are not looked at. */
  readonly #topic = `/lazylayer/${randomBytes(8).toString('hex')}/`

  /** @param address of containerd's socket; nothing is connected yet */
  constructor(address: string) {
    const transport = containerdAt(address)
    this.#images = createClient(Images, transport)
    this.#events = createClient(Events, transport)
  }

  async all(namespace: string): Promise<ImageTarget[]> {
    const { images } = await this.#images.list({}, callIn(namespace))
    return images.flatMap(({ name, target }) =>
      isDigest(target?.digest) ? [{ namespace, name, digest: target.digest }] : [],
    )
  }

  async *changes(signal: AbortSignal): AsyncGenerator<ImageChange> {
    const topics = ['/images/create', '/images/update', GONE].map((topic) => `topic=="${topic}"`)
    const filters = [...topics, `topic~="^${this.#topic}"`]
    for await (const { namespace, topic, event } of this.#subscribed(filters, signal)) {
      if (topic.startsWith(this.#topic)) {
        yield { is: 'mark', mark: topic.slice(this.#topic.length) }
        continue
      }
      const { name } = fromBinary(ImageNamedSchema, event?.value ?? new Uint8Array())
      const target = topic === GONE ? undefined : await this.named(namespace, name)
      yield target === undefined ? { is: 'gone', namespace, name } : { is: 'there', target }
    }
  }

  async *#subscribed(filters: string[], signal: AbortSignal): AsyncGenerator<Envelope> {
    try {
      yield* this.#events.subscribe({ filters }, { signal })
    } catch (error) {
      if (error instanceof ConnectError && error.code === Code.Unimplemented)
        throw Failure.unsupported('it tells of no images', { cause: error })
      throw error
    }
  }

  async mark(mark: string): Promise<void> {
    // of a type that every subscriber knows
    await this.#events.publish({ topic: this.#topic + mark, event: anyPack(EmptySchema, {} as never) }, callIn(MARKS))
  }

  async named(namespace: string, name: string): Promise<ImageTarget | undefined> {
    try {
      const digest = (await this.#images.get({ name }, callIn(namespace))).image?.target?.digest
      return isDigest(digest) ? { namespace, name, digest } : undefined
    } catch (error) {
      // removed meanwhile, or at a client that names none, as buildkitd
      if (error instanceof ConnectError && [Code.NotFound, Code.Unimplemented].includes(error.code)) return undefined
      throw error
    }
  }
}
