import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import type { Content } from '../../src/build/registry.ts'
import { Failure } from '../../src/errors.ts'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseRegistryReference } from '../../src/image/reference.ts'
import { named } from '../../src/policy/signed-identity.ts'
import { type Sources, signatureUrl, storedSignatures } from '../../src/policy/stored-signatures.ts'
import { json, MemoryShelf, OCI_CONFIG, OCI_MANIFEST } from '../fake/image.ts'

const MANIFEST: Digest = `sha256:${'0123456789abcdef'.repeat(4)}`
const TAG = `sha256-${hex(MANIFEST)}.sig`
const TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json'
const image = named(parseRegistryReference('registry.example.com:5000/a/b:1'))
const signal = new AbortController().signal
const bytes = (text: string) => new Uint8Array(Buffer.from(text))

/** A repository and a web, in memory; `asked` are the URLs. */
function world(shelf = new MemoryShelf(), web = new Map<string, Uint8Array>()) {
  const asked: string[] = []
  const read = async (content: Content | undefined) => {
    if (content === undefined) return undefined
    const parts: Uint8Array[] = []
    for await (const part of content.read(0, content.size)) parts.push(part)
    return new Uint8Array(Buffer.concat(parts))
  }
  const sources: Sources = {
    manifest: async (tag) => read(await shelf.manifest('a/b', tag)),
    async blob({ digest }) {
      const found = await read(await shelf.blob('a/b', digest))
      if (found === undefined) throw Failure.missing(digest)
      return found
    },
    async file(url) {
      asked.push(url.href)
      return web.get(url.href)
    },
  }
  return { sources, asked }
}

const find = (sources: Sources, home: { lookaside?: string; attachments?: boolean }) =>
  storedSignatures(image, MANIFEST, { lookaside: undefined, attachments: false, ...home }, sources, signal)

function attach(shelf: MemoryShelf, layers: Descriptor[], mediaType = OCI_MANIFEST): void {
  const config = shelf.addBlob(json({}), OCI_CONFIG)
  shelf.addManifest({ schemaVersion: 2, mediaType, config, layers }, mediaType, TAG)
}

test('the lookaside is read from the first signature to the first that is not there', async () => {
  const base = `https://signatures.example.com/x/a/b@sha256=${hex(MANIFEST)}`
  const web = new Map([1, 2, 4].map((number) => [`${base}/signature-${number}`, bytes(`${number}`)]))
  const { sources, asked } = world(undefined, web)
  const found = await find(sources, { lookaside: 'https://signatures.example.com/x' })
  expect(found).toEqual(
    [1, 2].map((number) => ({ kind: 'simple', at: `${base}/signature-${number}`, bytes: bytes(`${number}`) })),
  )
  expect(asked).toEqual([1, 2, 3].map((number) => `${base}/signature-${number}`))
})

test('a lookaside of files needs no network', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'lazylayer lookaside-'))
  try {
    const file = join(dir, `a/b@sha256=${hex(MANIFEST)}/signature-1`)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, 'one')
    const { sources, asked } = world()
    await expect(find(sources, { lookaside: `file://${dir}` })).resolves.toMatchObject([{ bytes: bytes('one') }])
    await writeFile(file, Buffer.alloc((64 << 10) + 1))
    await expect(find(sources, { lookaside: `file://${dir}` })).rejects.toMatchObject({ code: 'limit' })
    expect(asked).toEqual([])
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
})

test('a lookaside without end is given up', async () => {
  const { sources, asked } = world()
  const endless: Sources = {
    ...sources,
    async file(url) {
      asked.push(url.href)
      return bytes('one more')
    },
  }
  await expect(find(endless, { lookaside: 'https://signatures.example.com' })).rejects.toMatchObject({
    code: 'limit',
    message: expect.stringContaining('more than 128 signatures'),
  })
  expect(asked).toHaveLength(128)
})

test('the URL of a signature is that of the engines', () => {
  const of = (lookaside: string) => signatureUrl(lookaside, image, MANIFEST, 3).href
  const end = `a/b@sha256=${hex(MANIFEST)}/signature-3`
  expect(of('https://signatures.example.com')).toBe(`https://signatures.example.com/${end}`)
  expect(of('https://signatures.example.com:8443/x?y=z')).toBe(`https://signatures.example.com:8443/x/${end}?y=z`)
  expect(of('http://signatures.example.com/x')).toBe(`http://signatures.example.com/x/${end}`)
  expect(of('file:///var/lib/containers/sigstore')).toBe(`file:///var/lib/containers/sigstore/${end}`)
})

test('a lookaside that is no such URL is refused', () => {
  for (const lookaside of [
    '',
    'x',
    '/var/lib',
    'ftp://example.com',
    'file://host/x',
    'https://user:secret@example.com',
    'file:///a%2Fb',
    'file:///a%00',
    'file:///a%2Fb',
    'file:///a%00',
  ]) {
    expect(() => signatureUrl(lookaside, image, MANIFEST, 1), lookaside).toThrow(
      expect.objectContaining({ code: 'usage', fix: 'Correct it in registries.d.' }),
    )
  }
})

test('attached signatures are found, other attachments are left', async () => {
  const shelf = new MemoryShelf()
  const one = { ...shelf.addBlob(bytes('payload'), TYPE), annotations: { a: 'b' } }
  attach(shelf, [shelf.addBlob(bytes('attestation'), 'application/vnd.dsse.envelope.v1+json'), one])
  await expect(find(world(shelf).sources, { attachments: true })).resolves.toEqual([
    { kind: 'sigstore', at: `${TAG}, layer 1`, payload: bytes('payload'), annotations: { a: 'b' } },
  ])
  await expect(find(world(shelf).sources, { attachments: false })).resolves.toEqual([])
  await expect(find(world().sources, { attachments: true })).resolves.toEqual([])
})

test('an attachment that is none is refused', async () => {
  const refuse = async (prepare: (shelf: MemoryShelf) => void, code: string) => {
    const shelf = new MemoryShelf()
    prepare(shelf)
    await expect(find(world(shelf).sources, { attachments: true })).rejects.toMatchObject({ code })
  }
  await refuse((shelf) => attach(shelf, [], 'application/vnd.docker.distribution.manifest.v2+json'), 'corrupt')
  await refuse((shelf) => shelf.addManifest(bytes('no JSON'), OCI_MANIFEST, TAG), 'corrupt')
  await refuse((shelf) => {
    const index = 'application/vnd.oci.image.index.v1+json'
    shelf.addManifest({ schemaVersion: 2, mediaType: index, manifests: [] }, index, TAG)
  }, 'corrupt')
  // a manifest names what it likes
  const descriptor = { mediaType: TYPE, digest: digestOf(bytes('x')), annotations: {} }
  await refuse((shelf) => attach(shelf, [{ ...descriptor, size: (64 << 10) + 1 }]), 'limit')
  await refuse(
    (shelf) =>
      attach(
        shelf,
        Array.from({ length: 129 }, () => ({ ...descriptor, size: 1 })),
      ),
    'limit',
  )
  await refuse((shelf) => {
    const { digest } = shelf.addBlob(bytes('y'))
    const content = shelf.blobs.get(digest)
    if (content !== undefined) shelf.blobs.set(descriptor.digest, content)
    attach(shelf, [{ ...descriptor, size: 1 }])
  }, 'corrupt')
})
