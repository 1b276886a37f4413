// Writes blobs into containerd's content store, where a pull that was lazy left them out. containerd checks size and digest, and goes on where
// somebody stopped before.
import type { FileHandle } from 'node:fs/promises'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { callIn, containerdAt, NAMESPACE } from './containerd-calls.ts'
import { converse } from './conversation.ts'
import { Content, type WriteContentRequestSchema } from './generated/content_pb.ts'
import type { Labels } from './snapshot.ts'

export interface WrittenBlob {
  digest: Digest
  size: number
  /** Of its content in the store. */
  labels: Labels
}

/** What filling an image needs of the store. */
export interface ContentSink {
  /** Adds to the labels of what is there. @throws Failure unavailable */
  label(namespace: string, digest: Digest, labels: Labels): Promise<void>
  /**
   * Nothing is written where the blob is there.
   * @param file its bytes
   * @throws Failure corrupt (they have another digest), unavailable, aborted, system
   */
  write(namespace: string, blob: WrittenBlob, file: Pick<FileHandle, 'read'>, signal: AbortSignal): Promise<void>
}

type Request = MessageInitShape<typeof WriteContentRequestSchema>

/** As containerd's enum of actions has them. */
const STAT = 0
const WRITE = 1
const COMMIT = 2
/** containerd takes messages of up to 16 MiB, and answers each before the next is sent. */
const PART_BYTES = 1 << 20
/** containerd syncs what it commits: of a layer, on a busy disk. */
const ANSWER_MS = 180_000

export class ContentWriter implements ContentSink {
  readonly #address: string
  readonly #client: Client<typeof Content>

  /** @param address of containerd's socket; nothing is connected yet */
  constructor(address: string) {
    this.#address = address
    this.#client = createClient(Content, containerdAt(address))
  }

  async label(namespace: string, digest: Digest, labels: Labels): Promise<void> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`)
    if (paths.length === 0) return
    const request = { info: { digest, labels: { ...labels } }, updateMask: { paths } }
    try {
      await this.#client.update(request, callIn(namespace))
    } catch (cause) {
      throw this.#failure(`content ${digest} gets no labels`, cause)
    }
  }

  async write(...of: Parameters<ContentSink['write']>): Promise<void> {
    const [namespace, { digest }, , signal] = of
    try {
      await this.#write(...of).catch(async (error) => {
        if (!isCode(error, Code.FailedPrecondition)) throw error
        // what somebody began there is no part of it: from the beginning, once
        await this.#client.abort({ ref: refOf(digest) }, { ...callIn(namespace), signal })
        await this.#write(...of)
      })
    } catch (cause) {
      if (isCode(cause, Code.AlreadyExists)) return
      throw this.#failure(`blob ${digest} is not written`, cause)
    }
  }

  async #write(...[namespace, blob, file, signal]: Parameters<ContentSink['write']>): Promise<void> {
    const { digest: expected, size, labels } = blob
    const over = new AbortController()
    const options = { headers: { [NAMESPACE]: namespace }, signal: AbortSignal.any([signal, over.signal]) }
    const talk = converse((requests: AsyncIterable<Request>) => this.#client.write(requests, options))
    const of = { ref: refOf(expected), total: BigInt(size), expected }
    const ask = async (request: Request) => {
      const timer = setTimeout(() => over.abort(), ANSWER_MS)
      return await talk.ask(request).finally(() => clearTimeout(timer))
    }
    try {
      const { offset } = await ask({ action: STAT, ...of })
      for (let at = Number(offset); at < size; ) {
        const room = new Uint8Array(Math.min(PART_BYTES, size - at))
        const { bytesRead } = await file.read(room, 0, room.length, at)
        if (bytesRead === 0) throw Failure.corrupt(`blob ${expected} has ${at} bytes, not ${size}`)
        await ask({ action: WRITE, ref: of.ref, offset: BigInt(at), data: room.subarray(0, bytesRead) })
        at += bytesRead
      }
      await ask({ action: COMMIT, ...of, offset: BigInt(size), labels: { ...labels } })
    } finally {
      talk.end()
      over.abort()
    }
  }

  #failure(what: string, cause: unknown): Failure {
    if (cause instanceof Failure) return cause
    if (isCode(cause, Code.FailedPrecondition)) return Failure.corrupt(what, { why: describe(cause) })
    if (isCode(cause, Code.Canceled)) return Failure.aborted(what, { why: describe(cause) })
    return Failure.unavailable(`${what}: containerd at ${this.#address}`, { why: describe(cause) })
  }
}

/** What containerd's own clients call it: so a download of theirs that was stopped is gone on with, and none runs beside. */
function refOf(digest: Digest): string {
  return `layer-${digest}`
}

function isCode(error: unknown, code: Code): boolean {
  return error instanceof ConnectError && error.code === code
}
