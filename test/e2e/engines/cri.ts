// What kubelet asks of a container runtime (CRI, runtime.v1), as far as tests do: messages written and read field by field.
import { connect } from 'node:http2'
import { createConnection } from 'node:net'

type Value = string | number | Message | readonly (string | Message)[]
/** By number of the field; what has none of a kind is left out. */
type Message = { readonly [field: number]: Value }

export interface CriAnswer {
  /** Of gRPC; 0 is fine. */
  status: number
  message: string
  /** Texts and bytes of the answer, by the number of their fields; the last of each. */
  fields: ReadonlyMap<number, string>
}

/** One that runs. */
export interface Pod {
  /** What a program in it prints. */
  exec(...argv: readonly string[]): Promise<string>
  remove(): Promise<void>
}

/** Of a pod whose containers are in the host's network. */
const NODE = 2
/** Of a pod that has its own. */
const POD = 0
/** Of a user namespace. */
const USERS = 65_536

export class Cri {
  readonly #address: string

  /** @param address of the runtime's socket */
  constructor(address: string) {
    this.#address = address
  }

  pullImage(image: string): Promise<CriAnswer> {
    return this.#call('ImageService/PullImage', { 1: { 1: image } })
  }

  /**
   * Runs one container in a pod of its own.
   * @param of with `users` in a user namespace: its root is the host's user of that number, and 65,535 more follow
   */
  async runPod(
    name: string,
    of: { image: string; command: readonly string[]; volume?: { image: string; path: string }; users?: number },
  ): Promise<Pod> {
    const { image, command, volume, users } = of
    const mapping = users === undefined ? undefined : { 1: users, 3: USERS }
    const userNamespace: Message = mapping === undefined ? {} : { 5: { 2: mapping, 3: mapping } }
    // a user namespace has no right to the host's network and queues
    const shared = users === undefined ? NODE : POD
    const namespaces: Message = { 1: shared, 2: 1, 3: shared, ...userNamespace }
    const pod: Message = {
      1: { 1: name, 2: `uid-of-${name}`, 3: 'default' },
      8: { 2: { 1: namespaces } },
    }
    const sandbox = await this.#id('RuntimeService/RunPodSandbox', { 1: pod })
    // kubelet says the mapping of each mount, too
    const mapped: Message = mapping === undefined ? {} : { 6: mapping, 7: mapping }
    const mounts = volume === undefined ? [] : [{ 1: volume.path, 3: 1, ...mapped, 9: { 1: volume.image } }]
    const inside: Message = mapping === undefined ? {} : { 15: { 2: { 3: namespaces } } }
    const config: Message = { 1: { 1: 'main' }, 2: { 1: image }, 3: command, 7: mounts, ...inside }
    const container = await this.#id('RuntimeService/CreateContainer', { 1: sandbox, 2: config, 3: pod })
    await this.#answer('RuntimeService/StartContainer', { 1: container })
    return {
      exec: async (...argv) => {
        const { fields } = await this.#answer('RuntimeService/ExecSync', { 1: container, 2: argv, 3: 60 })
        return fields.get(1) ?? ''
      },
      remove: async () => {
        await this.#answer('RuntimeService/StopPodSandbox', { 1: sandbox })
        await this.#answer('RuntimeService/RemovePodSandbox', { 1: sandbox })
      },
    }
  }

  async #id(method: string, message: Message): Promise<string> {
    return (await this.#answer(method, message)).fields.get(1) ?? ''
  }

  async #answer(method: string, message: Message): Promise<CriAnswer> {
    const answer = await this.#call(method, message)
    if (answer.status !== 0) throw new Error(`${method}: ${decodeURIComponent(answer.message)}`)
    return answer
  }

  #call(method: string, message: Message): Promise<CriAnswer> {
    return new Promise((resolve, reject) => {
      const session = connect('http://localhost', { createConnection: () => createConnection(this.#address) })
      session.once('error', reject)
      const stream = session.request({
        ':method': 'POST',
        ':path': `/runtime.v1.${method}`,
        'content-type': 'application/grpc',
        te: 'trailers',
      })
      const parts: Buffer[] = []
      let told: Record<string, unknown> = {}
      const tell = (headers: Record<string, unknown>) => {
        told = { ...told, ...headers }
      }
      stream.on('data', (part: Buffer) => parts.push(part))
      stream.once('response', tell)
      stream.once('trailers', tell)
      stream.once('error', reject)
      stream.once('close', () => {
        session.close()
        const fields = fieldsOf(Buffer.concat(parts).subarray(5))
        resolve({ status: Number(told['grpc-status']), message: String(told['grpc-message'] ?? ''), fields })
      })
      const body = encoded(message)
      const head = Buffer.alloc(5)
      head.writeUInt32BE(body.length, 1)
      stream.end(Buffer.concat([head, body]))
    })
  }
}

function encoded(message: Message): Buffer {
  const field = (number: number, value: string | number | Message): Buffer => {
    if (typeof value === 'number') return Buffer.concat([varint(number << 3), varint(value)])
    const bytes = typeof value === 'string' ? Buffer.from(value) : encoded(value)
    return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes])
  }
  return Buffer.concat(
    Object.entries(message).flatMap(([number, value]: [string, Value]) => {
      return Array.isArray(value)
        ? value.map((each) => field(Number(number), each))
        : [field(Number(number), value as Exclude<Value, readonly unknown[]>)]
    }),
  )
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) return Buffer.from([...bytes, left])
    bytes.push((left % 128) | 128)
  }
}

function fieldsOf(bytes: Buffer): Map<number, string> {
  const fields = new Map<number, string>()
  let at = 0
  const take = () => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++] ?? 0
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
  }
  while (at < bytes.length) {
    const tag = take()
    if ((tag & 7) === 0) take()
    else if ((tag & 7) === 2) {
      const length = take()
      fields.set(tag >> 3, bytes.subarray(at, at + length).toString())
      at += length
    } else throw new Error(`a field of wire type ${tag & 7}`)
  }
  return fields
}
