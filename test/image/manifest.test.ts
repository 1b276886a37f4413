import { expect, test } from 'vitest'
import {
  choosePlatform,
  type ImageIndex,
  MANIFEST_MAX_BYTES,
  type Platform,
  parseConfig,
  parseManifest,
  parsePlatform,
} from '../../src/image/manifest.ts'
import { json, OCI_INDEX, OCI_MANIFEST } from '../fake/image.ts'

const DIGEST = `sha256:${'ab'.repeat(32)}`
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

test('a config has a platform and a DiffID for each layer', () => {
  const config = { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [DIGEST] } }
  expect(parseConfig(json(config), 1, 'x')).toEqual({ platform: parsePlatform('linux/amd64'), diffIds: [DIGEST] })
  const refused = (document: unknown) =>
    expect(() => parseConfig(json(document), 1, 'x')).toThrow(expect.objectContaining({ code: 'corrupt' }))
  refused({ ...config, rootfs: { diff_ids: [] } })
  refused({ ...config, rootfs: { diff_ids: ['x'] } })
  refused({ ...config, rootfs: null })
  refused({ rootfs: config.rootfs })
})

test('the platform chosen is the one wanted, an exact variant first', () => {
  const platforms = ['linux/amd64', 'linux/arm64/v8', 'linux/arm/v7', 'linux/arm/v6', 'windows/amd64']
  const offered: ImageIndex = {
    mediaType: OCI_INDEX,
    manifests: platforms.map((text, i) => ({
      mediaType: '',
      digest: `sha256:${String(i).repeat(64)}`,
      size: i,
      annotations: {},
      platform: parsePlatform(text),
    })),
  }
  const check = (wanted: string, at: number) =>
    expect(choosePlatform(offered, parsePlatform(wanted), 'x').size, wanted).toBe(at)
  check('linux/amd64', 0)
  check('linux/arm64', 1)
  check('linux/arm64/v8', 1)
  check('linux/arm', 2)
  check('linux/arm/v6', 3)
  check('windows/amd64', 4)
  const missing = (wanted: Platform) =>
    expect(() => choosePlatform(offered, wanted, 'x')).toThrow(expect.objectContaining({ code: 'missing' }))
  missing(parsePlatform('linux/s390x'))
  missing(parsePlatform('linux/arm/v5'))
  missing({ os: 'linux', architecture: 'arm64', variant: 'v9' })
})

test('platforms are written OS/ARCHITECTURE/VARIANT', () => {
  expect(parsePlatform('linux/arm/v7')).toEqual({ os: 'linux', architecture: 'arm', variant: 'v7' })
  for (const text of ['', 'linux', 'linux/', '/amd64', 'linux/arm/', 'linux/arm/v7/x']) {
    expect(() => parsePlatform(text), text).toThrow(expect.objectContaining({ code: 'usage' }))
  }
})
