import { expect, test } from 'vitest'
import {
  choosePlatform,
  hostPlatform,
  MANIFEST_MAX_BYTES,
  type Platform,
  parseConfig,
  parseManifest,
  parsePlatform,
  platformText,
} from '../../src/image/manifest.ts'
import { json, OCI_INDEX, OCI_MANIFEST } from '../fake/image.ts'

const DIGEST = `sha256:${'ab'.repeat(32)}`
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
const descriptor = { mediaType: 'application/x', digest: DIGEST, size: 7 }
const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: descriptor, layers: [descriptor] }
const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [descriptor] }

function refuse(document: unknown, code: string): void {
  const bytes = document instanceof Uint8Array ? document : json(document)
  expect(() => parseManifest(bytes, 'x')).toThrow(expect.objectContaining({ code }))
}

test('manifests and indexes are told apart by their bodies', () => {
  expect(parseManifest(json(manifest), 'x')).toMatchObject({ mediaType: OCI_MANIFEST, layers: [{ size: 7 }] })
  expect(parseManifest(json(index), 'x')).toMatchObject({ mediaType: OCI_INDEX, manifests: [{ digest: DIGEST }] })
  const { mediaType: _, ...silent } = manifest
  expect(parseManifest(json(silent), 'x').mediaType).toBe(OCI_MANIFEST)
})

test('a document that can be read as manifest and as index is refused (CVE-2021-41190)', () => {
  refuse({ ...manifest, manifests: [] }, 'corrupt')
  refuse({ ...manifest, mediaType: OCI_INDEX }, 'corrupt')
  refuse({ ...index, mediaType: OCI_MANIFEST }, 'corrupt')
  refuse({ schemaVersion: 2 }, 'corrupt')
  // what engines know other documents by
  for (const key of ['fsLayers', 'history', 'manifests']) refuse({ ...manifest, [key]: [] }, 'corrupt')
  for (const key of ['config', 'fsLayers', 'history', 'layers']) refuse({ ...index, [key]: [] }, 'corrupt')
})

test('a key that engines, written in Go, would read in spite of its case is refused', () => {
  const inIndex = (member: object) => ({ ...index, manifests: [{ ...descriptor, ...member }] })
  refuse({ ...manifest, Layers: [] }, 'corrupt')
  refuse({ ...manifest, mediatype: OCI_MANIFEST }, 'corrupt')
  refuse({ ...manifest, layer\u017f: [] }, 'corrupt')
  refuse({ ...manifest, fslayers: [] }, 'corrupt')
  refuse({ ...manifest, config: { ...descriptor, Digest: DIGEST } }, 'corrupt')
  refuse({ ...manifest, layers: [{ ...descriptor, annotation\u017f: {} }] }, 'corrupt')
  refuse({ ...index, MANIFESTS: [] }, 'corrupt')
  refuse(inIndex({ Annotations: {} }), 'corrupt')
  refuse(inIndex({ Platform: {} }), 'corrupt')
  refuse(inIndex({ platform: { OS: 'linux' } }), 'corrupt')
  expect(() => parseManifest(json({ ...manifest, Layers: [] }), 'x')).toThrow(/key "Layers"/)
  // free to be chosen, or known to nobody
  const free = { annotations: { Layers: '', layers: '' }, 'Layers ': 1, layer\u0131: 1, stra\u00dfe: 1 }
  expect(parseManifest(json({ ...manifest, layers: [{ ...descriptor, ...free }] }), 'x')).toMatchObject({
    layers: [{ annotations: free.annotations }],
  })
})

test('a key that stands twice in one object is refused: Go joins what JSON.parse replaces', () => {
  const document = (member: string) =>
    new TextEncoder().encode(
      `{"schemaVersion":2,"config":${JSON.stringify(descriptor)},"layers":[{"digest":"${DIGEST}","size":1,${member}}]}`,
    )
  refuse(document('"annotations":{"a":"b"},"annotations":{}'), 'corrupt')
  refuse(document('"annotations":{"a":"b","\\u0061":"c"}'), 'corrupt')
  refuse(document('"annotations" :{},"\\u0061nnotations"\n: {}'), 'corrupt')
  refuse(document('"x":[1,{"":0,"":0}]'), 'corrupt')
  refuse(document('"__proto__":1,"__proto__":1'), 'corrupt')
  expect(() => parseManifest(document('"a\\"":1,"a\\"":1'), 'x')).toThrow(/key "a\\"" twice/)
  const once =
    '"a":"a","b":["a","a",{"a":"{\\"a\\":1,\\"a\\":1}"},{"a":1}],"\\\\":{"a":{"a":1}},"annotations":{"a":"}\\\\"}'
  expect(parseManifest(document(once), 'x')).toMatchObject({ layers: [{ annotations: { a: '}\\' } }] })
})

test('nothing is too long or too deep to be refused', () => {
  const size = (text: string) =>
    new TextEncoder().encode(JSON.stringify(manifest).replaceAll('"size":7', `"size":${text}`))
  refuse(size(`${'['.repeat(100_000)}${']'.repeat(100_000)}`), 'limit')
  refuse(size(`${'{"":'.repeat(100_000)}0${'}'.repeat(100_000)}`), 'limit')
  const long = { annotations: { a: 'a'.repeat(3 << 20) } }
  expect(parseManifest(json({ ...manifest, ...long }), 'x')).toMatchObject({ mediaType: OCI_MANIFEST })
})

test('hostile manifests are refused', () => {
  refuse(new Uint8Array(), 'corrupt')
  refuse(new TextEncoder().encode('{"schemaVersion":2'), 'corrupt')
  refuse(Uint8Array.of(0xff, 0xfe), 'corrupt')
  refuse([], 'corrupt')
  refuse(null, 'corrupt')
  refuse({ ...manifest, schemaVersion: 1 }, 'unsupported')
  refuse({ ...manifest, layers: {} }, 'corrupt')
  refuse({ ...manifest, layers: [null] }, 'corrupt')
  refuse({ ...manifest, config: undefined }, 'corrupt')
  for (const size of [-1, 1.5, '7', 2 ** 53, null])
    refuse({ ...manifest, layers: [{ ...descriptor, size }] }, 'corrupt')
  for (const digest of ['sha256:../../etc', 'md5:00', '', null]) {
    refuse({ ...manifest, layers: [{ ...descriptor, digest }] }, 'corrupt')
  }
  for (const platform of [[], 'linux', { os: 1 }, { os: 'linux', architecture: [] }, { variant: {} }]) {
    refuse({ ...index, manifests: [{ ...descriptor, platform }] }, 'corrupt')
  }
  refuse({ ...manifest, mediaType: 1 }, 'corrupt')
  refuse({ ...manifest, layers: [{ ...descriptor, mediaType: {} }] }, 'corrupt')
  refuse(new TextEncoder().encode(`\ufeff${JSON.stringify(manifest)}`), 'corrupt')
  refuse({ ...manifest, layers: Array(1025).fill(descriptor) }, 'limit')
  refuse({ ...index, manifests: Array(4097).fill(descriptor) }, 'limit')
  refuse(new Uint8Array(MANIFEST_MAX_BYTES + 1).fill(0x20), 'limit')
})

test('annotations have no prototype to reach', () => {
  const text = `{"schemaVersion":2,"config":${JSON.stringify(descriptor)},"layers":[{"digest":"${DIGEST}","size":1,"annotations":{"__proto__":"x","a":"b","n":1}}]}`
  const parsed = parseManifest(new TextEncoder().encode(text), 'x')
  if (!('layers' in parsed)) throw new Error('no manifest')
  expect(Object.entries(parsed.layers[0]?.annotations ?? {})).toEqual([
    ['__proto__', 'x'],
    ['a', 'b'],
  ])
})

test('an annotation of null is an empty one, as engines have it', () => {
  const parsed = parseManifest(json({ ...index, manifests: [{ ...descriptor, annotations: { a: null } }] }), 'x')
  expect(parsed).toMatchObject({ manifests: [{ annotations: { a: '' } }] })
})

test('a config has a platform and a DiffID for each layer', () => {
  const config = { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [DIGEST] } }
  expect(parseConfig(json(config), 1, 'x')).toEqual({ platform: parsePlatform('linux/amd64'), diffIds: [DIGEST] })
  const refused = (document: unknown) =>
    expect(() => parseConfig(json(document), 1, 'x')).toThrow(expect.objectContaining({ code: 'corrupt' }))
  refused({ ...config, rootfs: { diff_ids: [] } })
  refused({ ...config, rootfs: { diff_ids: ['x'] } })
  refused({ ...config, rootfs: null })
  refused({ ...config, rootfs: [] })
  refused({ ...config, rootfs: { diff_ids: {} } })
  refused({ ...config, os: 1 })
  refused({ ...config, RootFS: { diff_ids: [] } })
  refused({ ...config, rootf\u017f: { diff_ids: [] } })
  refused({ ...config, rootfs: { ...config.rootfs, Diff_IDs: [] } })
  const twice = json(config).subarray(0, -1)
  const refusedText = (text: string) =>
    expect(() => parseConfig(Buffer.concat([twice, Buffer.from(text)]), 1, 'x')).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    )
  refusedText(',"rootfs":{"diff_ids":[]}}')
  // containers are described by whatever keys they like
  expect(parseConfig(json({ ...config, Size: 1, config: { OS: 'x', Labels: { RootFS: 'x' } } }), 1, 'x')).toBeDefined()
})

test('what Go leaves out, or writes as null, is none', () => {
  const { config, mediaType } = manifest
  const layerless: object[] = [
    { schemaVersion: 2, mediaType, config, layers: null },
    { schemaVersion: 2, mediaType, config },
    { schemaVersion: 2, config, layers: null, annotations: null, subject: null, manifests: null, history: null },
    { schemaVersion: 2, config },
    { mediaType, config, layers: [] },
    { schemaVersion: null, mediaType, config, layers: [] },
  ]
  for (const each of layerless) {
    expect(parseManifest(json(each), 'x'), JSON.stringify(each)).toMatchObject({ mediaType: OCI_MANIFEST, layers: [] })
  }
  for (const manifests of [null, undefined, []]) {
    const empty = parseManifest(json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests, layers: null }), 'x')
    expect(empty).toEqual({ mediaType: OCI_INDEX, manifests: [] })
  }
  const bare = { ...descriptor, annotations: null, urls: null, data: null, platform: null }
  expect(parseManifest(json({ ...manifest, layers: [bare] }), 'x')).toMatchObject({ layers: [{ annotations: {} }] })
  expect(parseManifest(json({ ...index, manifests: [bare] }), 'x')).toMatchObject({ manifests: [{ digest: DIGEST }] })
  // nothing says what these are, and these are something else
  for (const manifests of [null, undefined]) refuse({ schemaVersion: 2, manifests, layers: null }, 'corrupt')
  refuse({ schemaVersion: 2, mediaType: 'application/json', layers: [], config: descriptor }, 'corrupt')
  refuse({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [] }, 'corrupt')
})

test('a config may name no platform, and no layers', () => {
  const named = (document: object, layers = 0) => parseConfig(json(document), layers, 'x')
  const nothing = { os: '', architecture: '' }
  for (const rootfs of [undefined, null, {}, { diff_ids: null }, { type: 'layers', diff_ids: [] }]) {
    expect(named({ rootfs, history: null, config: null })).toEqual({ platform: nothing, diffIds: [] })
  }
  const rootfs = { diff_ids: [DIGEST] }
  expect(named({ rootfs }, 1)).toEqual({ platform: nothing, diffIds: [DIGEST] })
  expect(named({ os: 'linux', architecture: null, variant: null, rootfs }, 1).platform).toEqual({
    os: 'linux',
    architecture: '',
  })
  expect(platformText(nothing)).toBe('unknown/unknown')
  expect(platformText({ os: 'linux', architecture: '', variant: 'v7' })).toBe('linux/unknown/v7')
})

/** An index as it comes from a registry; `wanted` leads to its manifest `at`, or to none. */
function choosing(mediaType: string, ...manifests: (string | { platform?: unknown; annotations?: object })[]) {
  const members = manifests.map((each, size) => ({
    digest: DIGEST,
    size,
    ...(typeof each === 'string' ? { platform: parsePlatform(each) } : each),
  }))
  const offered = parseManifest(json({ schemaVersion: 2, mediaType, manifests: members }), 'x')
  if (!('manifests' in offered)) throw new Error('no index')
  return (wanted: string | Platform, at: number | undefined) => {
    const choose = () => choosePlatform(offered, typeof wanted === 'string' ? parsePlatform(wanted) : wanted, 'x').size
    if (at === undefined) expect(choose, String(wanted)).toThrow(expect.objectContaining({ code: 'missing' }))
    else expect(choose(), String(wanted)).toBe(at)
  }
}

test.each([OCI_INDEX, DOCKER_LIST])('the platform chosen is the one that engines choose: %s', (mediaType) => {
  const check = choosing(mediaType, 'linux/amd64', 'linux/arm64/v8', 'linux/arm/v7', 'linux/arm/v6', 'windows/amd64')
  check('linux/amd64', 0)
  check('linux/arm64', 1)
  check('linux/arm64/v8', 1)
  check('linux/arm', 2)
  check('linux/arm/v6', 3)
  check('windows/amd64', 4)
  check('linux/s390x', undefined)
  check('linux/arm/v5', undefined)
  check({ os: 'linux', architecture: 'arm64', variant: 'v9' }, undefined)
  check('linux/constructor', undefined)
})

test.each([OCI_INDEX, DOCKER_LIST])('of several variants it is the most capable that may run: %s', (mediaType) => {
  const arm = choosing(mediaType, 'linux/arm/v5', 'linux/arm', 'linux/arm/v6', 'linux/arm/v7')
  arm('linux/arm/v8', 3)
  arm('linux/arm/v6', 2)
  arm('linux/arm/v9', 1)
  arm('linux/arm', 1)
  choosing(mediaType, 'linux/arm/v6', 'linux/arm/v7')('linux/arm', 1)
  const arm64 = choosing(mediaType, 'linux/arm64', 'linux/arm64/v8')
  arm64('linux/arm64', 0)
  arm64(hostPlatform('arm64'), 1)
  // of other architectures engines know no order
  const amd64 = choosing(mediaType, 'linux/amd64/v3', { platform: { os: 'linux', architecture: 'amd64', variant: '' } })
  amd64('linux/amd64', 1)
  amd64('linux/amd64/v3', 0)
  amd64('linux/amd64/v2', 1)
  choosing(mediaType, 'linux/amd64/v3')(hostPlatform('x64'), undefined)
})

test('of one platform the first that is marked as zstd is chosen, in OCI indexes alone', () => {
  const platform = parsePlatform('linux/arm64')
  const zstd = { annotations: { 'io.github.containers.compression.zstd': 'true' } }
  const not = { annotations: { 'io.github.containers.compression.zstd': 'True' } }
  const manifests = [{ platform }, { platform, ...not }, { platform, ...zstd }, { platform, ...zstd }]
  choosing(OCI_INDEX, ...manifests)('linux/arm64', 2)
  choosing(DOCKER_LIST, ...manifests)('linux/arm64', 0)
  const better = { platform: parsePlatform('linux/arm64/v8') }
  choosing(OCI_INDEX, { platform, ...zstd }, better)('linux/arm64/v8', 1)
})

test('what names no platform is the last resort, in OCI indexes alone', () => {
  const zstd = { annotations: { 'io.github.containers.compression.zstd': 'true' } }
  const check = choosing(OCI_INDEX, {}, { platform: null }, 'linux/arm64/v8', zstd)
  check('linux/arm64', 2)
  check('linux/amd64', 3)
  choosing(OCI_INDEX, { platform: null }, {})('linux/amd64', 0)
  choosing(DOCKER_LIST, {}, 'linux/amd64')('linux/amd64', 1)
  choosing(DOCKER_LIST, {}, { platform: null })('linux/amd64', undefined)
  // an empty platform is one that nobody has
  for (const platform of [{}, { os: 'linux' }, { os: null, architecture: 'amd64' }]) {
    choosing(OCI_INDEX, { platform, ...zstd })('linux/amd64', undefined)
  }
})

test('platforms are written OS/ARCHITECTURE/VARIANT', () => {
  expect(parsePlatform('linux/arm/v7')).toEqual({ os: 'linux', architecture: 'arm', variant: 'v7' })
  for (const text of ['', 'linux', 'linux/', '/amd64', 'linux/arm/', 'linux/arm/v7/x']) {
    expect(() => parsePlatform(text), text).toThrow(expect.objectContaining({ code: 'usage' }))
  }
})
