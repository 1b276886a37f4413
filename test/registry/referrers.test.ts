import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { addReferrer, referrersTag, writeArtifact } from '../../src/image/artifact.ts'
import { digestOf } from '../../src/image/digest.ts'
import { parseReference, type RegistryReference } from '../../src/image/reference.ts'
import { pushReferrer } from '../../src/registry/push-referrer.ts'
import { json, MemoryShelf, OCI_INDEX, OCI_MANIFEST } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'
import { type UploadOptions, Uploads } from '../fake/uploads.ts'

const TYPE = 'application/vnd.example.note.v1+json'
const NOTE = json({ note: 1 })
const NEWER = json({ note: 2 })
const never = new AbortController().signal

let settings: Settings
const open: FakeRegistry[] = []

beforeEach(async () => {
  settings = await Settings.make()
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await Promise.all(open.splice(0).map((each) => each.close()))
})

/** A registry with an image, whoever asks it. */
async function world(uploads: UploadOptions = {}) {
  const shelf = new MemoryShelf()
  const subject = shelf.addImage([Uint8Array.of(1)])
  const registry = await startRegistry({ shelf, uploads: new Uploads(shelf, uploads) })
  open.push(registry)
  await settings.trust(registry.host, registry.cert)
  const registries = settings.registries({})
  const reference = parseReference(`${registry.host}/team/app:1`) as RegistryReference
  const push = async (document: Uint8Array, created: number) => {
    const tagged = async (tag: string) => {
      const found = await shelf.manifest('', tag)
      return found && (await bytesOf(found.read(0, found.size)))
    }
    const { mediaType, digest, size } = subject
    const of = { type: TYPE, document, subject: { mediaType, digest, size }, created }
    return await pushReferrer(registries.target(reference), tagged, of, never)
  }
  const referrers = registries.referrers(reference)
  const find = (parse = (bytes: Uint8Array): unknown => JSON.parse(Buffer.from(bytes).toString())) =>
    referrers.newest({ subject: subject.digest, type: TYPE, maxBytes: 100, parse }, never)
  const asked = () => {
    const ofApp = registry.seen.splice(0).filter(({ path }) => path.startsWith('/v2/team/app/'))
    return ofApp.map(({ method, path }) => `${method} ${path.split('/')[4]}`)
  }
  return { shelf, subject, registry, registries, push, find, asked }
}

function fail(): never {
  throw new Error('there is no list')
}

async function bytesOf(parts: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = []
  for await (const each of parts) all.push(each)
  return new Uint8Array(Buffer.concat(all))
}

describe.each([{ lists: true }, { lists: false }])('where the registry lists referrers: $lists', (uploads) => {
  test('the newest that was pushed is found', async () => {
    const { push, find } = await world(uploads)
    await push(NEWER, 2_000)
    await push(NOTE, 1_000)
    expect(await find()).toEqual({ note: 2 })
  })

  test('one that is of no use is passed over, and not asked for again', async () => {
    const { push, find, registry } = await world(uploads)
    await push(NOTE, 1_000)
    const bad = await push(NEWER, 2_000)
    const parse = (bytes: Uint8Array) => {
      if (Buffer.compare(bytes, NEWER) === 0) throw Failure.corrupt('it says nothing')
      return 'old'
    }
    expect(await find(parse)).toBe('old')
    registry.seen.splice(0)
    expect(await find(parse)).toBe('old')
    expect(registry.seen.filter(({ path }) => path.includes(bad))).toEqual([])
  })

  test('where there is none, that is remembered', async () => {
    const { find, asked } = await world(uploads)
    expect(await find()).toBeUndefined()
    expect(asked().sort()).toEqual(['GET manifests', 'GET referrers'])
    expect(await find()).toBeUndefined()
    expect(asked()).toEqual([])
  })

  test('of another type, or about another image, none is found', async () => {
    const { push, registries, registry, find } = await world(uploads)
    await push(NOTE, 1_000)
    const others = registries.referrers(parseReference(`${registry.host}/team/app`) as RegistryReference)
    const wanted = { maxBytes: 100, parse: () => 1 }
    const other = digestOf(Uint8Array.of(9))
    expect(await others.newest({ subject: other, type: TYPE, ...wanted }, never)).toBeUndefined()
    expect(await find()).toEqual({ note: 1 })
  })
})

test('a document that stands in its manifest costs two requests, once it is known that the registry lists referrers', async () => {
  const { push, find, asked } = await world({ lists: true })
  await push(NOTE, 1_000)
  asked()
  await find()
  expect(asked()).toEqual(['GET manifests', 'GET referrers', 'GET manifests']) // the first for a list under a tag, at once
  await find()
  expect(asked()).toEqual(['GET referrers', 'GET manifests'])
})

test('where lists are under tags one request brings the list, the manifest and the document', async () => {
  const { push, find, asked } = await world({ lists: false })
  await push(NOTE, 1_000)
  asked()
  await find()
  expect(asked().sort()).toEqual(['GET manifests', 'GET referrers']) // at once
  const again = async () => {
    asked()
    expect(await find()).toEqual({ note: 1 })
    return asked()
  }
  await expect.poll(again).toEqual(['GET manifests']) // when the other was answered
})

test('what stands in a list for a manifest and is not, is of no use', async () => {
  const { shelf, subject, push, find } = await world({ lists: false })
  await push(NOTE, 1_000)
  const tag = referrersTag(subject.digest)
  const found = await shelf.manifest('', tag)
  const list = JSON.parse(Buffer.from(await bytesOf(found?.read(0, found.size) ?? fail())).toString())
  const other = writeArtifact(TYPE, NEWER, subject, 1_000)
  list.manifests[0].data = Buffer.from(other).toString('base64')
  shelf.addManifest(list, OCI_INDEX, tag)
  expect(await find()).toBeUndefined()
})

test('one that stands in no manifest is fetched as a blob, and checked', async () => {
  const { shelf, subject, find } = await world()
  const document = shelf.addBlob(NOTE, TYPE)
  const config = shelf.addBlob(json({}))
  const manifest = shelf.addManifest(
    { schemaVersion: 2, mediaType: OCI_MANIFEST, artifactType: TYPE, config, layers: [document], subject },
    OCI_MANIFEST,
  )
  const list = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [{ ...manifest, artifactType: TYPE }] }
  shelf.addManifest(list, OCI_INDEX, referrersTag(subject.digest))
  expect(await find()).toEqual({ note: 1 })
})

describe('refused is', () => {
  const check = (title: string, artifact: (subject: object, document: Uint8Array) => object) =>
    test(title, async () => {
      const { shelf, subject, find } = await world()
      shelf.addBlob(NOTE, TYPE)
      const manifest = shelf.addManifest(artifact(subject, NOTE), OCI_MANIFEST)
      const list = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [{ ...manifest, artifactType: TYPE }] }
      shelf.addManifest(list, OCI_INDEX, referrersTag(subject.digest))
      expect(await find()).toBeUndefined()
    })
  const written = (subject: object, change: object) => {
    const bytes = writeArtifact(TYPE, NOTE, subject as Parameters<typeof writeArtifact>[2], 0)
    return { ...JSON.parse(Buffer.from(bytes).toString()), ...change }
  }
  check('one that is about another image', (subject) => written(subject, { subject: { digest: digestOf(NOTE) } }))
  check('one without a subject', (subject) => written(subject, { subject: null }))
  check('one of another type than the list says', (subject) => written(subject, { artifactType: 'other' }))
  check('one of several documents', (subject) => {
    const { layers } = written(subject, {})
    return written(subject, { layers: [...layers, ...layers] })
  })
  check('one whose document differs from its digest', (subject) => {
    const { layers } = written(subject, {})
    return written(subject, { layers: [{ ...layers[0], data: Buffer.from(NEWER).toString('base64') }] })
  })
  check('one with a document that is too large', (subject) => {
    const { layers } = written(subject, {})
    return written(subject, { layers: [{ ...layers[0], size: 101, data: undefined }] })
  })
})

test('a list keeps what others have in it, and of one type the last few', () => {
  const subject = { mediaType: OCI_MANIFEST, digest: digestOf(Uint8Array.of(1)), size: 1 }
  const signature = { mediaType: OCI_MANIFEST, digest: digestOf(Uint8Array.of(2)), size: 9, artifactType: 'signature' }
  let list: Uint8Array = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [signature] })
  const digests = Array.from({ length: 6 }, (_, i) => {
    const manifest = writeArtifact(TYPE, Uint8Array.of(i), subject, i * 1000)
    list = addReferrer(list, manifest, 'list')
    return digestOf(manifest)
  })
  const { manifests } = JSON.parse(Buffer.from(list).toString()) as { manifests: { digest: string; data?: string }[] }
  expect(manifests.map(({ digest }) => digest)).toEqual([...digests.slice(2).reverse(), signature.digest])
  expect(manifests.map(({ data }) => data !== undefined)).toEqual([true, false, false, false, false])
})

test('a registry that does not answer is asked again the next time', async () => {
  const { push, find, registry } = await world({ lists: true })
  await push(NOTE, 1_000)
  registry.faults = [{ match: /referrers/, status: 503 }]
  await expect(find()).rejects.toMatchObject({ code: 'unavailable' })
  registry.faults = []
  expect(await find()).toEqual({ note: 1 })
})
