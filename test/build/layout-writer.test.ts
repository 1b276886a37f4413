import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { link, mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, expect, test } from 'vitest'
import { folderEntries } from '../../src/build/folder.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import { parseConfig, parseManifest } from '../../src/image/manifest.ts'
import { formatsOf } from '../format/unit.ts'

const dir = mkdtempSync(join(tmpdir(), 'lazylayer-layout-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const layout = join(dir, 'layout')
const read = (digest: Digest) => readFileSync(join(layout, 'blobs', 'sha256', digest.slice(7)))
const tags = () => {
  const index = parseManifest(readFileSync(join(layout, 'index.json')), 'index')
  if (!('manifests' in index)) throw new Error('no index')
  return index.manifests.map((each) => [each.annotations['org.opencontainers.image.ref.name'], each.digest])
}

const entries: SourceEntry[] = [{ path: 'hello', type: 'file', content: new TextEncoder().encode('hello\n') }]

test('an image can be read back from its layout, with digests that hold', async () => {
  const image = await writeImage({
    dir: layout,
    tag: 'one',
    layers: [
      { kind: 'estargz', entries },
      { kind: 'gzip', entries },
    ],
    config: { Cmd: ['/hello'] },
    platform: { os: 'linux', architecture: 'arm64', variant: 'v8' },
  })
  expect(JSON.parse(readFileSync(join(layout, 'oci-layout'), 'utf8'))).toEqual({ imageLayoutVersion: '1.0.0' })
  expect(tags()).toEqual([['one', image.manifestDigest]])
  const manifest = parseManifest(read(image.manifestDigest), 'manifest')
  if (!('layers' in manifest)) throw new Error('no manifest')
  expect(manifest.layers).toEqual(image.layers)
  const config = read(manifest.config.digest)
  expect(parseConfig(config, 2, 'config')).toEqual({
    platform: { os: 'linux', architecture: 'arm64', variant: 'v8' },
    diffIds: image.diffIds,
  })
  expect(JSON.parse(config.toString()).config).toEqual({ Cmd: ['/hello'] })
  for (const [i, layer] of manifest.layers.entries()) {
    const blob = read(layer.digest)
    expect([digestOf(blob), blob.length]).toEqual([layer.digest, layer.size])
    expect(digestOf(gunzipSync(blob))).toBe(image.diffIds[i])
  }
  expect(formatsOf(manifest.layers)).toEqual(['estargz', expect.stringContaining('plain gzip')])
})

test('a second tag joins the first, the same tag replaces it, and nothing unfinished stays', async () => {
  const one = tags()[0]
  const two = await writeImage({ dir: layout, tag: 'two', layers: [{ kind: 'gzip', entries }] })
  expect(tags()).toEqual([one, ['two', two.manifestDigest]])
  const again = await writeImage({ dir: layout, tag: 'two', layers: [{ kind: 'estargz', entries }] })
  expect(tags()).toEqual([one, ['two', again.manifestDigest]])
  const names = [...(await readdir(join(layout, 'blobs', 'sha256'))), ...(await readdir(layout))]
  expect(names.filter((name) => name.includes('making'))).toEqual([])
})

test('a folder becomes entries: parents first, further names as hard links', async () => {
  const folder = join(dir, 'folder')
  mkdirSync(join(folder, 'sub'), { recursive: true })
  await writeFile(join(folder, 'b'), 'two names')
  await link(join(folder, 'b'), join(folder, 'sub', 'c'))
  await symlink('../b', join(folder, 'sub', 'l'))
  await mkdir(join(folder, 'a'))
  const found: SourceEntry[] = []
  for await (const entry of folderEntries(folder, 'opt/x')) found.push(entry)
  expect(found.map(({ path, type, target, content }) => ({ path, type, target, content }))).toEqual([
    { path: 'opt/x', type: 'dir' },
    { path: 'opt/x/a', type: 'dir' },
    { path: 'opt/x/b', type: 'file', content: { file: join(folder, 'b'), size: 9 } },
    { path: 'opt/x/sub', type: 'dir' },
    { path: 'opt/x/sub/c', type: 'hardlink', target: 'opt/x/b' },
    { path: 'opt/x/sub/l', type: 'symlink', target: '../b' },
  ])
  expect(found[0]?.mode).toBe(0o755)
  expect(Number(found[2]?.mtime) / 1e9).toBeGreaterThan(1.6e9)
})
