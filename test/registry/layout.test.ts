import { execFile } from 'node:child_process'
import { copyFile, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parsePlatform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { describeBytes, json, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, pattern } from '../fake/image.ts'
import { Settings } from '../fake/settings.ts'
import { fetchInto } from './whole.ts'

const AMD64 = parsePlatform('linux/amd64')
const LAYER = pattern(3_000_000)
const REF_NAME = 'org.opencontainers.image.ref.name'

let settings: Settings
let dir: string

beforeEach(async () => {
  settings = await Settings.make()
  dir = join(settings.dir, 'layout')
  await settings.write('layout/oci-layout', '{"imageLayoutVersion":"1.0.0"}')
})

afterEach(() => settings[Symbol.asyncDispose]())

async function add(document: unknown, mediaType: string): Promise<Descriptor> {
  const bytes = document instanceof Uint8Array ? document : json(document)
  const of = describeBytes(bytes, mediaType)
  await settings.write(`layout/blobs/sha256/${hex(of.digest)}`, '')
  await writeFile(path(of), bytes)
  return of
}

const path = (of: Descriptor) => join(dir, 'blobs', 'sha256', hex(of.digest))

async function image(architecture = 'amd64', layer: Uint8Array = LAYER): Promise<Descriptor> {
  const diffIds = [digestOf(layer)]
  const config = await add({ os: 'linux', architecture, rootfs: { diff_ids: diffIds } }, OCI_CONFIG)
  const layers = [await add(layer, OCI_LAYER)]
  return await add({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }, OCI_MANIFEST)
}

const index = (...manifests: unknown[]) => writeFile(join(dir, 'index.json'), json({ schemaVersion: 2, manifests }))
const tagged = (of: Descriptor, tag: string) => ({ ...of, annotations: { [REF_NAME]: tag } })
const source = (rest = '') => settings.registries().source(parseReference(`oci:${dir}${rest}`))
const resolve = (rest = '', platform = AMD64) => source(rest).resolve(platform)
const refuse = (rest: string, code: string) =>
  expect(resolve(rest), rest).rejects.toMatchObject({ name: 'Failure', code })

test('a tag names an image; without one there must be one image', async () => {
  const [one, two] = [await image('amd64', pattern(5)), await image('amd64', pattern(6))]
  await index(tagged(one, 'one'))
  expect((await resolve()).digest).toBe(one.digest)
  await index(tagged(one, 'one'), tagged(two, '1.0/with:any name'))
  expect((await resolve(':one')).digest).toBe(one.digest)
  expect((await resolve(`@${two.digest}`)).digest).toBe(two.digest)
  await expect(resolve()).rejects.toMatchObject({ code: 'usage', fix: 'Its tags are: "one", "1.0/with:any name".' })
  await refuse(':two', 'missing')
  await refuse(`@${digestOf(pattern(9))}`, 'missing')
})

test('nested indexes and images that share a tag are chosen by platform', async () => {
  const of = async (architecture: string) => ({
    ...(await image(architecture)),
    platform: { os: 'linux', architecture },
  })
  const [amd, arm] = [await of('amd64'), await of('arm64')]
  const nested = await add({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [amd, arm] }, OCI_INDEX)
  await index(tagged(nested, 'v1'))
  expect((await resolve(':v1', parsePlatform('linux/arm64'))).digest).toBe(arm.digest)
  await index({ ...amd, ...tagged(amd, 'v1') }, { ...arm, annotations: { [REF_NAME]: 'v1' } })
  expect((await resolve(':v1', parsePlatform('linux/arm64'))).digest).toBe(arm.digest)
  await expect(resolve(':v1', parsePlatform('linux/s390x'))).rejects.toMatchObject({ code: 'missing' })
})

test('blobs are read in ranges into memory of their own, and whole', async () => {
  await index(await image())
  const from = source()
  const { manifest } = await from.resolve(AMD64)
  const [layer] = manifest.layers
  if (!layer) throw new Error('no layer')
  const blob = from.blob(layer)
  expect(blob.origin).toBe(`oci:${dir}`)
  const bytes = await blob.read({ start: 1000, end: 2000 })
  expect(bytes).toEqual(LAYER.subarray(1000, 2000))
  expect(bytes.buffer).toBeInstanceOf(ArrayBuffer)
  await expect(blob.read({ start: 0, end: LAYER.length + 1 })).rejects.toMatchObject({ code: 'corrupt' })
  await expect(blob.read({ start: 0, end: 9 }, { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: 'aborted',
  })
  await fetchInto(join(settings.dir, 'whole'), blob)
  expect(Buffer.compare(await readFile(join(settings.dir, 'whole')), LAYER)).toBe(0)
})

test('the size of a blob without a descriptor is that of its file', async () => {
  const from = source()
  expect(await from.sizeOf((await add(LAYER, OCI_LAYER)).digest)).toBe(LAYER.length)
  expect(await from.sizeOf(digestOf(new Uint8Array()))).toBeUndefined()
})

test('a blob that changed, shrank or is no file is refused', async () => {
  const of = await image()
  await index(of)
  const from = source()
  const { manifest } = await from.resolve(AMD64)
  const [layer] = manifest.layers
  if (!layer) throw new Error('no layer')
  const whole = () => fetchInto(join(settings.dir, 'whole'), from.blob(layer))
  await writeFile(path(layer), pattern(LAYER.length, 7))
  await expect(whole()).rejects.toMatchObject({ code: 'corrupt' })
  await truncate(path(layer), 100)
  await expect(whole()).rejects.toMatchObject({ code: 'corrupt' })
  const read = () => source().blob(layer).read({ start: 0, end: 1 })
  await expect(read()).rejects.toMatchObject({ code: 'corrupt' })
  await rm(path(layer))
  await expect(read()).rejects.toMatchObject({ code: 'missing' })
  await promisify(execFile)('mkfifo', [path(layer)])
  await expect(read()).rejects.toMatchObject({ code: 'corrupt' })
  await rm(path(layer))
  await symlink('/dev/zero', path(layer))
  await expect(read()).rejects.toMatchObject({ code: 'corrupt' })
  // what this layout's disk fails at, another source may have
  await rm(path(layer))
  await symlink(path(layer), path(layer))
  await expect(read()).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining(path(layer)) })
})

test('a manifest that is another image is refused, whatever names it', async () => {
  const [one, two] = [await image('amd64', pattern(100, 1)), await image('amd64', pattern(100, 2))]
  expect(one.size).toBe(two.size)
  await index(tagged(one, 'one'))
  await resolve(':one')
  await copyFile(path(two), path(one))
  await refuse('', 'corrupt')
  await refuse(':one', 'corrupt')
  await refuse(`@${one.digest}`, 'corrupt')
})

test('hostile layouts are refused', async () => {
  const of = await image()
  await refuse('', 'missing')
  for (const [text, code] of [
    ['{', 'corrupt'],
    ['[]', 'corrupt'],
    ['{"schemaVersion":2}', 'corrupt'],
    ['{"schemaVersion":2,"manifests":[{"digest":"sha256:../../../../etc/passwd","size":1}]}', 'corrupt'],
    [`{"schemaVersion":2,"manifests":[{"digest":"${of.digest}","size":${5 << 20}}]}`, 'limit'],
    [`{"schemaVersion":2,"manifests":[{"digest":"${of.digest}","size":5}]}`, 'corrupt'],
    [' '.repeat(5 << 20), 'limit'],
  ] as const) {
    await writeFile(join(dir, 'index.json'), text)
    await refuse('', code)
  }
  await index({ ...of, mediaType: OCI_INDEX })
  await refuse('', 'corrupt')
  await writeFile(path(of), pattern(of.size))
  await index(of)
  await refuse('', 'corrupt')
  await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"2.0.0"}')
  await refuse('', 'unsupported')
  await rm(join(dir, 'index.json'))
  await promisify(execFile)('mkfifo', [join(dir, 'index.json')])
  await refuse('', 'usage')
})

const samples = process.env.LAZYLAYER_SAMPLES
if (samples === undefined) {
  test.skip('sample layouts resolve (LAZYLAYER_SAMPLES is not set)', () => {})
} else {
  describe('sample layouts', () => {
    test.each(['plain', 'esgz', 'esgz-min', 'esgz-ext', 'zstd', 'zstd-podman', 'nydus', 'nydus-zran'])(
      '%s resolves, and its layers have the digests that its manifest names',
      async (tag) => {
        const from = settings.registries().source(parseReference(`oci:${samples}/samples/oci:${tag}`))
        const { manifest, config } = await from.resolve(AMD64)
        expect(config.platform).toMatchObject({ os: 'linux', architecture: 'amd64' })
        const out = await mkdtemp(join(tmpdir(), 'lazylayer-layout-'))
        for (const layer of manifest.layers) await fetchInto(join(out, 'blob'), from.blob(layer))
        await rm(out, { recursive: true })
      },
    )

    test('py-esgz resolves by its tag', async () => {
      const from = settings.registries().source(parseReference(`oci:${samples}/images/py-esgz:py`))
      expect((await from.resolve(AMD64)).manifest.layers).toHaveLength(2)
    })
  })
}
