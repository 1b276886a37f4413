// The comparator of a cold start: fetches every layer of an image and unpacks it, as an engine does without lazy pulling.
//
//   node bench/full-pull.ts https://HOST:PORT REPOSITORY TAG DIR
//
// A connection a layer (HTTP/1.1: no window but the link's own holds it back), all layers at once, each checked against its digest and unpacked by GNU tar while it arrives; layers
// are unpacked side by side, which no engine may do for real images: to its favour. No whiteouts, no storage driver.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Agent, type Dispatcher, request } from 'undici'
import { parseManifest } from '../src/image/manifest.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

const [origin, repository, tag, dir] = process.argv.slice(2)
if (origin === undefined || repository === undefined || tag === undefined || dir === undefined) {
  process.stderr.write('usage: full-pull.ts ORIGIN REPOSITORY TAG DIR\n')
  process.exit(2)
}

const dispatcher = new Agent({ allowH2: false, connect: { rejectUnauthorized: false } })

async function get(path: string, accept: string): Promise<Dispatcher.ResponseData['body']> {
  const url = `${origin}/v2/${repository}/${path}`
  const { statusCode, body } = await request(url, { dispatcher, headers: { accept } })
  if (statusCode !== 200) throw new Error(`${path}: status ${statusCode}`)
  return body
}

const manifest = parseManifest(await (await get(`manifests/${tag}`, MANIFEST)).bytes(), `${repository}:${tag}`)
if (!('layers' in manifest)) throw new Error('the benchmark serves a plain manifest')
await Promise.all(
  manifest.layers.map(async ({ digest }) => {
    const tar = spawn('tar', ['-xzf', '-', '-C', dir], { stdio: ['pipe', 'inherit', 'inherit'] })
    const ended = once(tar, 'exit')
    const hash = createHash('sha256')
    const hashing = new Transform({
      transform(chunk, _, done) {
        hash.update(chunk)
        done(null, chunk)
      },
    })
    await pipeline(await get(`blobs/${digest}`, '*/*'), hashing, tar.stdin)
    const [code] = await ended
    if (code !== 0) throw new Error(`tar exited with ${code}`)
    if (`sha256:${hash.digest('hex')}` !== digest) throw new Error(`${digest} is not what came`)
  }),
)
await dispatcher.close()
