import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { selfSigned } from '../../src/build/certificate.ts'
import { answer, layoutShelf, memoryContent, serveShelf } from '../../src/build/registry.ts'
import { hex } from '../../src/image/digest.ts'
import { parsePlatform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { json, MemoryShelf, OCI_MANIFEST, pattern } from '../fake/image.ts'
import { Settings } from '../fake/settings.ts'

test('a certificate names its hosts, signs itself and ends in time', async () => {
  const { cert, key } = await selfSigned(['localhost', '127.0.0.1', '::1'], 3)
  const parsed = new X509Certificate(cert)
  expect(parsed.checkHost('localhost')).toBe('localhost')
  expect(parsed.checkIP('127.0.0.1')).toBe('127.0.0.1')
  expect(parsed.checkIP('::1')).toBe('::1')
  expect(parsed.checkHost('example.com')).toBeUndefined()
  expect(parsed.verify(parsed.publicKey)).toBe(true)
  expect(parsed.ca).toBe(true)
  const days = (Date.parse(parsed.validTo) - Date.parse(parsed.validFrom)) / 86_400_000
  expect(days).toBe(4)
  expect(key).toContain('BEGIN PRIVATE KEY')
})

test('ranges are answered as RFC 9110 says', async () => {
  const shelf = new MemoryShelf()
  const bytes = pattern(1000)
  const { digest } = shelf.addBlob(bytes)
  const check = async (range: string | undefined, want: [number, number] | number) => {
    const reply = await answer(shelf, 'GET', `/v2/a/b/blobs/${digest}`, (name) =>
      name === 'range' ? range : undefined,
    )
    const body: Uint8Array[] = []
    for await (const part of reply.body) body.push(part)
    if (typeof want === 'number') return expect(reply.status, range).toBe(want)
    expect(reply.status, range).toBe(206)
    expect(reply.headers['content-range']).toBe(`bytes ${want[0]}-${want[1] - 1}/1000`)
    return expect(Buffer.concat(body)).toEqual(Buffer.from(bytes.subarray(...want)))
  }
  await check('bytes=0-9', [0, 10])
  await check('bytes=990-', [990, 1000])
  await check('bytes=-5', [995, 1000])
  await check('bytes=-5000', [0, 1000])
  await check('bytes=900-5000', [900, 1000])
  await check('bytes=1000-1001', 416)
  await check('bytes=-0', 416)
  await check('bytes=5-9,1000-1001', [5, 10])
  for (const range of [undefined, 'bytes=', 'bytes=-', 'bytes=5-2', 'items=0-1', 'bytes=0-1,', 'bytes=0-1,4-3'])
    await check(range, 200)
})

test('what is not there, or not allowed, is refused with an error of the specification', async () => {
  const shelf = new MemoryShelf()
  const status = async (method: string, path: string) => (await answer(shelf, method, path, () => undefined)).status
  expect(await status('GET', '/v2/')).toBe(200)
  expect(await status('GET', '/')).toBe(404)
  expect(await status('GET', '/v2/a/manifests/v1')).toBe(404)
  expect(await status('GET', '/v2/a/blobs/sha256:..%2f..')).toBe(404)
  expect(await status('PUT', '/v2/a/manifests/v1')).toBe(405)
})

test('an OCI layout is served over plain HTTP too, tags as they are now', async () => {
  await using settings = await Settings.make()
  const shelf = new MemoryShelf()
  const layer = pattern(500_000)
  const manifest = shelf.addImage([layer])
  const dir = join(settings.dir, 'layout')
  const contents = [...shelf.blobs.values(), ...shelf.manifests.values()]
  for (const content of contents) {
    const parts: Uint8Array[] = []
    for await (const part of content.read(0, content.size)) parts.push(part)
    await settings.write(`layout/blobs/sha256/${hex(content.digest)}`, '')
    await writeFile(join(dir, 'blobs/sha256', hex(content.digest)), Buffer.concat(parts))
  }
  const tag = (name: string) =>
    writeFile(
      join(dir, 'index.json'),
      json({
        schemaVersion: 2,
        manifests: [{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': name } }],
      }),
    )
  await tag('one')
  const server = await serveShelf(layoutShelf(dir))
  try {
    const registries = settings.registries({ tlsVerify: false })
    const resolve = (version: string) => {
      const source = registries.source(parseReference(`${server.host}/any${version}`))
      return source.resolve(parsePlatform('linux/amd64')).then((image) => ({ image, source }))
    }
    const { image, source } = await resolve(':one')
    expect(image.digest).toBe(manifest.digest)
    expect(image.manifest.mediaType).toBe(OCI_MANIFEST)
    const [first] = image.manifest.layers
    if (!first) throw new Error('no layer')
    expect(Buffer.compare(await source.blob(first).read({ start: 7, end: 499_999 }), layer.subarray(7, 499_999))).toBe(
      0,
    )
    await expect(resolve(':two')).rejects.toMatchObject({ code: 'missing' })
    await tag('two')
    await resolve(':two')
    await resolve(`@${manifest.digest}`)
  } finally {
    await server.close()
  }
})

test('what a curl of this machine makes of it agrees', async ({ skip }) => {
  const run = promisify(execFile)
  const curl = await run('curl', ['--version']).catch(() => undefined)
  if (curl === undefined) return skip('not installed: curl')
  await using settings = await Settings.make()
  const certificate = await selfSigned(['127.0.0.1'])
  const ca = await settings.write('ca.crt', certificate.cert)
  const shelf = new MemoryShelf()
  const { digest } = shelf.addBlob(new TextEncoder().encode('0123456789'))
  shelf.manifests.set('x', memoryContent(json({}), OCI_MANIFEST))
  const server = await serveShelf(shelf, certificate)
  try {
    const url = `${server.url}/v2/a/blobs/${digest}`
    const { stdout } = await run('curl', ['-sS', '--cacert', ca, '-r', '2-4', '-w', ' %{http_code}', url])
    expect(stdout).toBe('234 206')
  } finally {
    await server.close()
  }
  return undefined
})
