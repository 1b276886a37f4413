// Uploads an image from an OCI layout to a registry that listens on a socket: blobs, then manifests from the leaves up.
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { type IncomingHttpHeaders, request } from 'node:http'
import { join } from 'node:path'

interface Descriptor {
  mediaType: string
  digest: string
  size: number
  annotations?: Record<string, string>
}

interface Manifest {
  mediaType?: string
  config?: Descriptor
  layers?: Descriptor[]
  manifests?: Descriptor[]
}

export interface PushOptions {
  layout: string
  tag: string
  name: string
  socket: string
}

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: string
}

type Body = Uint8Array | { file: string; size: number }

/** @returns the digest of the manifest (or index) that the tag names; the registry checked every digest */
export async function push({ layout, tag, name, socket }: PushOptions): Promise<string> {
  const index = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as { manifests: Descriptor[] } // a fixture of ours
  const top = index.manifests.find(({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === tag)
  if (top === undefined) throw new Error(`${layout} has no image tagged ${tag}`)
  const file = (digest: string) => join(layout, 'blobs', digest.replace(':', '/'))

  const expect = async (status: number, method: string, path: string, type = '', body?: Body): Promise<Answer> => {
    const answer = await send(socket, method, path, type, body)
    if (answer.status !== status) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`)
    return answer
  }
  const pushBlob = async ({ digest, size }: Descriptor): Promise<void> => {
    if ((await send(socket, 'HEAD', `/v2/${name}/blobs/${digest}`, '')).status === 200) return
    const { headers } = await expect(202, 'POST', `/v2/${name}/blobs/uploads/`)
    const place = `${headers.location}${headers.location?.includes('?') ? '&' : '?'}digest=${digest}`
    await expect(201, 'PUT', place, 'application/octet-stream', { file: file(digest), size })
  }
  const pushManifest = async (descriptor: Descriptor, reference: string): Promise<void> => {
    const bytes = await readFile(file(descriptor.digest))
    const manifest = JSON.parse(bytes.toString()) as Manifest // a fixture of ours
    for (const child of manifest.manifests ?? []) await pushManifest(child, child.digest)
    for (const blob of [manifest.config ?? [], manifest.layers ?? []].flat()) await pushBlob(blob)
    await expect(201, 'PUT', `/v2/${name}/manifests/${reference}`, descriptor.mediaType, bytes)
  }
  await pushManifest(top, tag)
  return top.digest
}

function send(socketPath: string, method: string, path: string, type: string, body?: Body): Promise<Answer> {
  const length = body === undefined ? 0 : 'file' in body ? body.size : body.byteLength
  const headers = { host: 'localhost', 'content-length': length, ...(type === '' ? {} : { 'content-type': type }) }
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, method, path, headers, agent: false }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (more: string) => {
        text += more
      })
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }))
    })
    asked.once('error', reject)
    if (body === undefined) asked.end()
    else if ('file' in body) createReadStream(body.file).once('error', reject).pipe(asked)
    else asked.end(body)
  })
}
