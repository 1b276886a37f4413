// explain as a user types it, with signatures as this user's policy.json wants them.
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { socketFor } from '../../src/agent/agent-places.ts'
import { listen, type Status } from '../../src/agent/socket.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { layoutShelf } from '../../src/build/registry.ts'
import { explain as explainCommand } from '../../src/cli/explain.ts'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { type Descriptor, DOCKER_MANIFEST } from '../../src/image/manifest.ts'
import { ContestedNames } from '../../src/store/contested.ts'
import { encodeRecord } from '../../src/store/record.ts'
import { Store } from '../../src/store/store.ts'
import { CACHE_VERSION } from '../../src/store/version.ts'
import { nydusLayers, writeLayers } from '../e2e/nydus-image.ts'
import { startRegistry } from '../fake/registry.ts'
import { unitOf } from '../format/unit.ts'
import { simpleSignature } from '../policy/simple-signature.ts'
import { folder } from '../store/folder.ts'
import { inProcess } from './in-process.ts'

const PLATFORM = { os: 'linux', architecture: 'amd64' }

/** A registry with one image, its top layer lazy, under two names, of which `app` alone is signed, and a user whose policy wants signatures. */
async function machine(kinds: readonly ('estargz' | 'gzip')[] = ['estargz']) {
  const home = await folder()
  const entries = [{ path: 'a', type: 'file' as const, content: new TextEncoder().encode('one') }]
  const layout = join(home, 'layout')
  const layers = kinds.map((kind) => ({ kind, entries }))
  const { manifestDigest, layers: written } = await writeImage({ dir: layout, tag: '1', layers, platform: PLATFORM })
  const top = written.at(-1) as Descriptor
  const registry = await startRegistry({ shelf: layoutShelf(layout) })
  onTestFinished(() => registry.close())
  const put = async (path: string, content: string | Uint8Array) => {
    await mkdir(dirname(join(home, path)), { recursive: true })
    await writeFile(join(home, path), content)
  }
  const { key, place, signature } = await simpleSignature('app', `${registry.host}/app:1`, manifestDigest)
  await put('certs/ca.crt', registry.cert)
  await put('key', key)
  await put(`lookaside/${place}`, signature)
  await put('.config/containers/registries.d/all.yaml', `default-docker:\n  lookaside: file://${home}/lookaside\n`)
  const signedBy = { type: 'signedBy', keyType: 'GPGKeys', keyPath: join(home, 'key') }
  await put('.config/containers/policy.json', JSON.stringify({ default: [signedBy] }))
  const env = {
    PATH: process.env.PATH,
    HOME: home,
    XDG_CONFIG_HOME: join(home, '.config'),
    RUNTIME_DIRECTORY: join(home, 'run'),
    STATE_DIRECTORY: join(home, 'state'),
  }
  const explain = async (repository: string, ...flags: string[]) => {
    const reach = ['--cert-dir', join(home, 'certs'), '--cache', join(home, 'cache'), '--platform', 'linux/amd64']
    return await inProcess(explainCommand, ['explain', `${registry.host}/${repository}:1`, ...reach, ...flags], env)
  }
  /** An agent of this user, with a store, that was told that of DiffIDs. */
  const answerAs = async (diffid: Status['diffid']) => {
    const path = socketFor(env.RUNTIME_DIRECTORY, join(env.STATE_DIRECTORY, 'store'))
    return await listen(path, async () => ({ ok: true, status: { diffid } as Status })) // what explain asks for
  }
  return {
    explain,
    answerAs,
    put,
    layout,
    cache: join(home, 'cache'),
    blob: top.digest,
    index: unitOf(top).index,
  }
}

test('with --diffid signed, an image is judged as serve does: its layers bear the DiffIDs that a key of the policy signed', async () => {
  const { explain } = await machine()
  const { code, stdout } = await explain('app', '--diffid', 'signed')
  expect(code).toBe(0)
  expect(stdout).toMatch(/ layers \(signed\) +layers \(index\) +images \(signed\)\n/)
  expect(stdout).toContain('--diffid signed: the image is signed, so its DiffIDs are believed\n')
  const { layers, diffid } = JSON.parse((await explain('app', '--diffid', 'signed', '--format', 'json')).stdout)
  expect(diffid).toEqual({ policy: 'signed', trust: [], only: false, why: null })
  expect(layers[0].ways.layer).toEqual({ door: 'layers', identity: 'signed', lazy: true })
  const proven = JSON.parse((await explain('app', '--format', 'json')).stdout)
  expect(proven).toMatchObject({ diffid: { policy: 'proven', why: expect.stringContaining('--prove') } })
  expect(proven.layers[0].ways.layer).not.toHaveProperty('identity')
})

test('of an image that nobody signed it says why no signature vouches for it', async () => {
  const { explain } = await machine()
  const { code, stdout } = await explain('other', '--diffid', 'signed')
  expect(code).toBe(0)
  expect(stdout).toMatch(/ pulled +layers \(index\) +images \(index\)\n/)
  expect(stdout).toMatch(/--diffid signed: they are not believed: .*\/other:1: .*it has no simple signature/)
  expect(stdout).toMatch(/no signature vouches for it, so the engine pulls it\. Have the image signed/)
})

test('without a policy that is valid it fails as serve does', async () => {
  const { explain, put } = await machine()
  await put('.config/containers/policy.json', '{"default": []}')
  expect(await explain('app', '--diffid', 'signed')).toMatchObject({ code: 2, stdout: '' })
  expect(await explain('app', '--diffid', 'claimed')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('layers (claimed)'),
  })
})

test('with --diffid guarded, DiffIDs are believed in the repositories of --trust, and where no other image says otherwise', async () => {
  const { explain, cache, blob, layout } = await machine()
  const guarded = await explain('app', '--diffid', 'guarded')
  expect(guarded.stdout).toMatch(/ layers \(guarded\) +layers \(index\) +images \(guarded\)\n/)
  expect(guarded.stdout).toContain('--diffid guarded: its DiffIDs are believed until they are proven, unless another')
  const narrowed = ['--diffid', 'guarded', '--trust', 'registry.example.com/team/*']
  const { stdout } = await explain('app', ...narrowed)
  expect(stdout).toMatch(/ pulled +layers \(index\) +images \(index\)\n/)
  expect(stdout).toContain('--trust registry.example.com/team/*: they are not believed: its DiffIDs are only claimed')
  expect(stdout).toMatch(/no --trust covers it, so the engine pulls it\. Have it proven/)
  expect(await explain('app', '--diffid', 'proven', '--trust', 'a.b/c')).toMatchObject({ code: 2, stdout: '' })

  const store = await Store.open(cache, { tryLock: () => true }, () => {})
  const names = await ContestedNames.open(cache, () => {})
  await names.keep({ diffId: await diffIdIn(layout), blob, tree: other('a'), together: false })
  await store.close()
  const lost = (await explain('app', '--diffid', 'guarded')).stdout
  expect(lost).toMatch(/another image says otherwise of its DiffID .* so the engine pulls it\. Have it proven/)
})

/** The first DiffID of a layout's only image. */
async function diffIdIn(layout: string): Promise<Digest> {
  const read = async (path: string) => JSON.parse(await readFile(join(layout, path), 'utf8')) // of our own making
  const blobAt = (digest: Digest) => join('blobs/sha256', hex(digest))
  const { manifests } = await read('index.json')
  const { config } = await read(blobAt(manifests[0].digest))
  return (await read(blobAt(config.digest))).rootfs.diff_ids[0]
}

test('a DiffID that is known to be false is no name for a layer, whatever is believed', async () => {
  const { explain, cache, blob } = await machine()
  const store = await Store.open(cache, { tryLock: () => true }, () => {})
  const other = `sha256:${'1'.repeat(64)}` as const
  await store.proofs.keep({ blob, tree: other }, { verdict: 'proven', diffId: other, tarSize: 1, split: other })
  await store.close()
  for (const policy of ['claimed', 'signed']) {
    const { stdout } = await explain('app', '--diffid', policy)
    expect(stdout).toMatch(/ pulled +layers \(index\) +pulled\n/)
    expect(stdout).toMatch(
      /the image claims DiffID sha256:.* its bytes have sha256:1{64}, so the engine pulls it\. Find out/,
    )
  }
})

test('with --diffid-only, no engine finds a layer by its index: it is fetched when the image is listed, unless it is believed', async () => {
  const { explain } = await machine()
  const { code, stdout } = await explain('app', '--diffid-only')
  expect(code).toBe(0)
  expect(stdout).toMatch(/ images \(proven\) +images \(proven\) +images \(proven\)\n/)
  expect(stdout).toContain(': no layer is named by its index, so the agent fetches it whole when the image is listed\n')
  const flags = ['--diffid-only', '--diffid', 'claimed', '--format', 'json']
  const { diffid, layers } = JSON.parse((await explain('app', ...flags)).stdout)
  expect(diffid).toMatchObject({ policy: 'claimed', trust: [], only: true })
  const claimed = { door: 'images', identity: 'claimed', lazy: true }
  expect(layers[0].ways).toEqual({ layer: { ...claimed, door: 'layers' }, index: claimed, image: claimed })
})

test('a layer whose index cannot be used is pulled, with the reason', async () => {
  const { explain, layout, blob } = await machine(['estargz', 'estargz'])
  // the end of an eStargz says where its index is
  const path = join(layout, 'blobs', 'sha256', hex(blob))
  const bytes = await readFile(path)
  await writeFile(path, bytes.fill(0, bytes.length - 51))
  const { code, stdout } = await explain('app')
  expect(code).toBe(0)
  expect(stdout).toMatch(/: its index cannot be used \(.*\), so the engine pulls it\. Have the image built anew: /)
  expect(stdout).not.toMatch(/layers \(index\)|images \(index\)/)
  expect(stdout).not.toContain('lazylayer pull IMAGE')
})

test('engines find no layer of a Docker manifest by its index, and newer ones are no better off', async () => {
  const { explain, layout } = await machine()
  await putDockerManifest(layout)
  const { code, stdout } = await explain('app')
  expect(code).toBe(0)
  expect(stdout).toMatch(/ estargz .* pulled +pulled +pulled\n/)
  expect(stdout).toMatch(
    / \(Podman 5\.1–5\.4, Podman ≥ 5\.5\): engines look for no index of a layer in a Docker manifest, so the engine pulls it\. Push/,
  )
  expect(stdout).not.toContain('newer engine')
  expect((await explain('app', '--diffid', 'claimed')).stdout).toMatch(
    / layers \(claimed\) +images \(claimed\) +images \(claimed\)\n/,
  )
})

test('of a nydus image it says by what engines know its layers, what they refuse, and why no engine pulls it from a Docker manifest', async () => {
  const layout = await folder()
  const layers = await nydusLayers([{ path: 'a', type: 'file', content: Buffer.from('one') }])
  await writeLayers(layout, 'oci', layers)
  await writeLayers(layout, 'docker', layers, { mediaType: DOCKER_MANIFEST })
  const explain = (tag: string) =>
    inProcess(explainCommand, ['explain', `oci:${layout}:${tag}`, '--cache', join(layout, 'cache')], process.env)
  const oci = await explain('oci')
  expect(oci).toMatchObject({ code: 0, stderr: '' })
  expect(oci.stdout.match(/ nydus .* images \(proven\)\n/g)).toHaveLength(3)
  expect(oci.stdout).toMatch(/save, push, commit and builds on it end in an error.*skopeo copy.*podman import/s)
  expect(oci.stdout).not.toContain('Docker manifest')
  const docker = await explain('docker')
  expect(docker.stdout.match(/ nydus .* fails +fails +fails\n/g)).toHaveLength(3)
  expect(docker.stdout).toContain('engines refuse Docker manifests with such layers, whatever a store does')
  expect(docker.stdout).not.toContain('skopeo copy')
})

test('a small layer below lazy ones is fetched for those that engines find, not for those of a Docker manifest', async () => {
  const { explain, layout } = await machine(['gzip', 'estargz'])
  const small = / - .* images \(proven\) +images \(proven\) +images \(proven\)\n/
  expect((await explain('app')).stdout).toMatch(small)
  await putDockerManifest(layout)
  const { stdout } = await explain('app')
  expect(stdout).not.toMatch(small)
  expect(stdout).toMatch(/ - .* pulled +pulled +pulled\n/)
})

/** Has the only image of a layout come with a manifest of Docker's. */
async function putDockerManifest(layout: string): Promise<void> {
  const blobs = join(layout, 'blobs', 'sha256')
  const index = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8'))
  const [descriptor] = index.manifests
  const manifest = JSON.parse(await readFile(join(blobs, hex(descriptor.digest)), 'utf8'))
  const bytes = new TextEncoder().encode(JSON.stringify({ ...manifest, mediaType: DOCKER_MANIFEST }))
  const digest = digestOf(bytes)
  await writeFile(join(blobs, hex(digest)), bytes)
  const manifests = [{ ...descriptor, mediaType: DOCKER_MANIFEST, digest, size: bytes.length }]
  await writeFile(join(layout, 'index.json'), JSON.stringify({ ...index, manifests }))
}

const other = (of: string): Digest => `sha256:${of.repeat(64)}`

/** A cache in which `tree` was built from `index`, and what was found out of a blob with the trees that are served for it. */
async function putCache(
  cache: string,
  index: Digest,
  tree: Digest,
  found: readonly { blob: Digest; tree: Digest; why?: string }[],
) {
  const store = await Store.open(cache, { tryLock: () => true }, () => {})
  for (const { why, ...claim } of found) {
    const seen = { diffId: other('1'), tarSize: 1, split: other('1') }
    await store.proofs.keep(
      claim,
      why === undefined ? { verdict: 'proven', ...seen } : { verdict: 'refuted', ...seen, why },
    )
  }
  await store.close()
  const folder = join(cache, 'layers', 'f'.repeat(64))
  await mkdir(folder, { recursive: true })
  const record = { format: 'x', indexDigest: index, tree, table: other('2') }
  await writeFile(join(folder, 'record.json'), encodeRecord(record))
}

test('a layer is quarantined whose own index lies, not one of the same bytes whose index does not', async () => {
  const { explain, cache, blob, index } = await machine()
  const [tree, lying] = [other('a'), other('b')]
  await putCache(cache, index, tree, [{ blob, tree: lying, why: 'bin/sh: it is a lie' }])
  const innocent = (await explain('app')).stdout
  expect(innocent).not.toContain('quarantined')
  expect(innocent).toMatch(/ layers \(index\) +images \(index\)\n/)
  await putCache(cache, index, lying, [])
  expect((await explain('app')).stdout).toContain('it is quarantined: bin/sh: it is a lie')
})

/** Every name and every content below a folder. */
async function contents(dir: string): Promise<unknown> {
  const names = (await readdir(dir, { recursive: true, withFileTypes: true })).map((each) => ({
    path: join(each.parentPath, each.name),
    isFile: each.isFile(),
  }))
  return await Promise.all(
    names.map(async ({ path, isFile }) => [path, isFile ? (await readFile(path)).toString('hex') : '']),
  )
}

test.each<[string, string, (cache: string) => Promise<unknown>]>([
  ['of this version', CACHE_VERSION, async () => {}],
  ['of another version', 'lazylayer cache 0\n', async () => {}],
  ['that is being written', CACHE_VERSION, (cache) => writeFile(join(cache, 'tmp', 'half'), 'x')],
  [
    'with damaged records',
    CACHE_VERSION,
    (cache) => writeFile(join(cache, 'layers', 'f'.repeat(64), 'record.json'), '{'),
  ],
  ['without what it needs', CACHE_VERSION, (cache) => rm(join(cache, 'slots'), { recursive: true })],
  ['that is no cache', CACHE_VERSION, (cache) => rm(join(cache, 'version'))],
])('it changes nothing in a cache %s', async (_, version, change) => {
  const { explain, cache, blob, index } = await machine()
  await putCache(cache, index, other('a'), [{ blob, tree: other('a'), why: 'a: it is a lie' }])
  await writeFile(join(cache, 'version'), version)
  await writeFile(join(cache, 'proofs', hex(blob), `${'e'.repeat(64)}.json`), 'damaged')
  await change(cache)
  const before = await contents(cache)
  expect((await explain('app', '--diffid', 'signed')).code).toBe(0)
  expect(await contents(cache)).toEqual(before)
})

test('a cache that cannot be read is no cache, and said to be none', async () => {
  const { explain, cache } = await machine()
  await writeFile(cache, 'a file')
  expect(await explain('app')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('layers (index)'),
    stderr: expect.stringMatching(/^lazylayer: what this machine knows of layers is left out: .*cache/),
  })
})

test('without flags an image is judged as the running agent judges it', async () => {
  const { explain, answerAs } = await machine()
  const agent = await answerAs({ policy: 'claimed', trust: [], only: true })
  const { diffid, layers } = JSON.parse((await explain('app', '--format', 'json')).stdout)
  expect(diffid).toEqual({ policy: 'claimed', trust: [], only: true, why: null })
  expect(layers[0].ways.layer).toMatchObject({ identity: 'claimed' })
  expect(JSON.parse((await explain('app', '--diffid', 'proven', '--format', 'json')).stdout).diffid).toMatchObject({
    policy: 'proven',
    only: false,
  })
  agent.close()
  expect(JSON.parse((await explain('app', '--format', 'json')).stdout).diffid).toMatchObject({
    policy: 'proven',
    only: false,
  })
})
