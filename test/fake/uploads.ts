// The pushing half of a fake registry (distribution specification, "push"): what arrives is put on a shelf.
import { memoryContent, type RegistryAnswer, refusal } from '../../src/build/registry.ts'
import { type Digest, digestOf, isDigest } from '../../src/image/digest.ts'
import { json, type MemoryShelf, OCI_INDEX } from './image.ts'
import type { Seen } from './registry.ts'

export interface UploadOptions {
  /** Larger requests get 413. */
  requestMaxBytes?: number
  /** Blobs of these repositories can be mounted. */
  mountable?: ReadonlyMap<string, readonly Digest[]>
  /** Where uploads go instead: another server, or '' for what a relative location leads to. */
  storage?: string
  /** It lists what refers to a manifest by itself. */
  lists?: boolean
}

/** Answers what would change something; undefined: it is no such request. */
export class Uploads {
  readonly #shelf: MemoryShelf
  readonly #options: UploadOptions
  readonly #begun = new Map<string, Uint8Array>()
  /** By subject. */
  readonly #referrers = new Map<string, object[]>()

  constructor(shelf: MemoryShelf, options: UploadOptions = {}) {
    this.#shelf = shelf
    this.#options = options
  }

  answer({ method, path, header }: Seen, body: Uint8Array): RegistryAnswer | undefined {
    if (method === 'GET' || method === 'HEAD') return this.#list(path)
    const url = new URL(path, 'http://x')
    if (body.length > (this.#options.requestMaxBytes ?? Number.POSITIVE_INFINITY)) return refusal(413, 'SIZE', 'large')
    const [, repository = '', rest = ''] = /^\/v2\/(.+)\/(blobs\/uploads\/.*|manifests\/.+)$/.exec(url.pathname) ?? []
    if (rest.startsWith('manifests/')) return this.#manifest(rest.slice('manifests/'.length), header, body)
    const session = rest.slice('blobs/uploads/'.length)
    if (method === 'POST') return this.#begin(repository, url.searchParams)
    const before = this.#begun.get(session)
    if (before === undefined) return refusal(404, 'BLOB_UPLOAD_UNKNOWN', 'no such upload')
    const bytes = Buffer.concat([before, body])
    if (method === 'PATCH') {
      if (header('content-range') !== `${before.length}-${bytes.length - 1}`)
        return refusal(416, 'RANGE', 'not the next')
      this.#begun.set(session, bytes)
      return this.#location(repository, session)
    }
    this.#begun.delete(session)
    const digest = url.searchParams.get('digest')
    if (digest !== digestOf(bytes)) return refusal(400, 'DIGEST_INVALID', 'provided digest did not match')
    this.#shelf.blobs.set(digest, memoryContent(bytes))
    return created(digest)
  }

  #begin(repository: string, query: URLSearchParams): RegistryAnswer {
    const mount = query.get('mount')
    const from = this.#options.mountable?.get(query.get('from') ?? '') ?? []
    if (isDigest(mount) && from.includes(mount)) return created(mount)
    const session = `${this.#begun.size + 1}`
    this.#begun.set(session, new Uint8Array())
    return this.#location(repository, session)
  }

  #location(repository: string, session: string): RegistryAnswer {
    const location = `${this.#options.storage ?? ''}/v2/${repository}/blobs/uploads/${session}?state=of-it`
    return empty(202, { location })
  }

  #list(path: string): RegistryAnswer | undefined {
    const [, subject] = /[/]referrers[/]([^/?]+)/.exec(path) ?? []
    if (subject === undefined || this.#options.lists !== true) return undefined
    const bytes = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: this.#referrers.get(subject) ?? [] })
    const headers = { 'content-type': OCI_INDEX, 'content-length': `${bytes.length}` }
    return { status: 200, headers, body: memoryContent(bytes).read(0, bytes.length) }
  }

  #manifest(version: string, header: Seen['header'], body: Uint8Array): RegistryAnswer {
    const document = JSON.parse(Buffer.from(body).toString('utf8')) as {
      config?: { digest: Digest }
      layers?: { digest: Digest }[]
      subject?: { digest: Digest }
      artifactType?: string
      annotations?: Record<string, string>
    }
    const { config, layers = [], subject, artifactType, annotations } = document
    const absent = [...(config ? [config] : []), ...layers].find(({ digest }) => !this.#shelf.blobs.has(digest))
    if (absent) return refusal(404, 'MANIFEST_BLOB_UNKNOWN', `${absent.digest} is unknown`)
    const content = memoryContent(body, header('content-type'))
    for (const each of [version, content.digest]) this.#shelf.manifests.set(each, content)
    if (subject === undefined || this.#options.lists !== true) return created(content.digest)
    const listed = {
      mediaType: content.mediaType,
      digest: content.digest,
      size: content.size,
      artifactType,
      annotations,
    }
    this.#referrers.set(subject.digest, [...(this.#referrers.get(subject.digest) ?? []), listed])
    return empty(201, { 'docker-content-digest': content.digest, 'oci-subject': subject.digest })
  }
}

function created(digest: string): RegistryAnswer {
  return empty(201, { 'docker-content-digest': digest })
}

function empty(status: number, headers: Record<string, string>): RegistryAnswer {
  return { status, headers: { 'content-length': '0', ...headers }, body: (async function* () {})() }
}
