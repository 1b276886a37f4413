// The additional image store as containers/storage reads it, from Podman 4.3 to 5.8, without an engine: filled through the auth helper,
// looked at with code that shares nothing with ours.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { constants, createReadStream } from 'node:fs'
import { open, readdir, readFile, readlink, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createGunzip } from 'node:zlib'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { WrittenImage } from '../../src/build/layout-writer.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { type Agent, lazylayer } from './agent.ts'
import { claim } from './claim.ts'
import { command } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { codeOf, expectUnion, type Stage, setStage } from './stage.ts'

const TIMEOUT_MS = 300_000
const QUIET = { code: 0, stdout: '', stderr: '' }

/** What engines read of an entry. */
interface Entry {
  id: string
  parent?: string
  'diff-digest'?: string
  'toc-digest'?: string
  'diff-size'?: number
  'compressed-diff-digest'?: string
  flags?: Record<string, unknown>
}

suite('calls at the additional image store', lacking(['fusermount3', 'flock']), () => {
  let stage: Stage
  let agent: Agent
  let images: string

  beforeAll(async () => {
    stage = await setStage()
    images = join(stage.root, 'images')
  })
  afterEach(() => agent.stop())
  afterAll(() => stage?.close())

  const layersJson = () => join(images, 'overlay-layers/layers.json')
  const help = (reference = stage.reference) =>
    stage.help(JSON.stringify({ [reference]: { username: '', password: '', identityToken: '' } }))

  for (const flags of [[], ['--diffid', 'claimed']]) {
    test(`the helper lists an image; ids, directories and links fit; also after a restart and a kill (${flags.join(' ')})`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      agent = await stage.serve(`cache-${flags.length}`, ...flags)
      expect(await help()).toEqual(QUIET)
      const listed = await readStore(images)
      const chain = chainOf(listed)
      expect(chain).toHaveLength(3)
      for (const [at, { entry }] of chain.entries()) {
        const diffId = stage.image.diffIds[at]
        expect(entry['diff-digest'] ?? entry.flags?.['expected-layer-diffid']).toBe(diffId)
        expect(entry['diff-size']).toBeGreaterThan(0)
        // without a DiffID, an engine that finds a layer by its blob fails
        if (entry['diff-digest'] === undefined) expect(entry).not.toHaveProperty('compressed-diff-digest')
        else expect(entry['compressed-diff-digest']).toBe(stage.image.layers[at]?.digest)
      }
      if (flags.length > 0) expect(listed.map(({ entry }) => entry.id)).toEqual(chainIds(stage.image.diffIds))
      await expectContainer(chain.map(({ link }) => `l/${link}`).toReversed())
      const requests = stage.registry.seen.length

      expect(await agent.stop()).toBe(0)
      expect(await readFile(layersJson(), 'utf8')).toBe('[]\n') // beneath, for engines that run meanwhile
      agent = await stage.serve(`cache-${flags.length}`, ...flags)
      expect(await readStore(images)).toEqual(listed)
      // the first link alone is relative to the engine's directory, as engines have it whose lists grow too long
      await expectContainer(chain.map(({ link }) => join(images, 'overlay/l', link)).toReversed())

      process.kill(agent.pid, 'SIGKILL')
      await agent.ended
      agent = await stage.serve(`cache-${flags.length}`, ...flags)
      expect(await readStore(images)).toEqual(listed)
      await expectContainer(chain.map(({ link }) => `l/${link}`).toReversed())
      expect(stage.registry.seen.slice(requests)).toEqual([])
    })
  }

  test('a list that grows is another file with another time; whoever reads the old one reads it to its end', async () => {
    agent = await stage.serve('cache')
    await help()
    const before = await stat(layersJson(), { bigint: true })
    const old = await open(layersJson(), 'r')
    try {
      const text = await readFile(layersJson(), 'utf8')
      const { buffer } = await old.read(new Uint8Array(10), 0, 10, 0)
      const second = await stage.add('second')
      expect(await help(second.reference)).toEqual(QUIET)
      const after = await stat(layersJson(), { bigint: true })
      expect([after.ino === before.ino, after.mtimeNs > before.mtimeNs]).toEqual([false, true])
      expect(new TextDecoder().decode(buffer) + (await old.readFile('utf8')).slice(10)).toBe(text)
      const now = await readStore(images)
      expect(lists(now, second.image)).toBe(true)
      expect(now.length).toBeGreaterThan(JSON.parse(text).length)
      // an image that is there already changes nothing: no engine reads it all again
      await help()
      expect(await stat(layersJson(), { bigint: true })).toEqual(after)
    } finally {
      await old.close()
    }
  })

  test('twenty images listed at once, while others read: each version is whole and fits the directories', {
    timeout: TIMEOUT_MS,
  }, async () => {
    agent = await stage.serve('cache')
    const added: Awaited<ReturnType<typeof stage.add>>[] = []
    for (let i = 0; i < 20; i++) added.push(await stage.add(`many${i}`))
    let listing = true
    const versions = new Set<bigint>()
    const reader = (async () => {
      while (listing) {
        const entries = JSON.parse(await readFile(layersJson(), 'utf8')) as Entry[]
        for (const { id } of entries) await stat(join(images, 'overlay', id, 'diff'))
        versions.add((await stat(layersJson(), { bigint: true })).ino)
      }
    })()
    const outcomes = await Promise.all(added.map(({ reference }) => help(reference)))
    listing = false
    await reader
    expect(outcomes).toEqual(added.map(() => QUIET))
    // a helper that has waited as long as an engine may leaves its image to come
    const missing = async () => {
      const listed = await readStore(images)
      return added.filter(({ image }) => !lists(listed, image))
    }
    await expect.poll(missing).toEqual([])
    expect(versions.size).toBeGreaterThan(1)
  })

  test('locks are between processes and the kernel, shared with shared; who would write gets none', {
    timeout: TIMEOUT_MS,
  }, async () => {
    agent = await stage.serve('cache')
    for (const path of ['overlay-layers/layers.lock', 'overlay-images/images.lock'].map((each) => join(images, each))) {
      await using holder = await hold(path)
      expect(await tryLock(path, 'LOCK_SH')).toBe('locked')
      expect(await tryLock(path, 'LOCK_EX')).toBe('EROFS')
      await holder.end()
      expect(await tryLock(path, 'LOCK_SH')).toBe('locked')
      // flock(2), as the oldest and as scripts have it, does not know of the other kind
      const { code } = await command('flock', ['--nonblock', path, 'flock', '--nonblock', path, 'true'])
      expect(code).toBe(1)
      expect((await command('flock', ['--nonblock', path, 'true'])).code).toBe(0)
    }
  })

  test('tar-split files put each layer’s tar together again, from the files of its tree', async () => {
    agent = await stage.serve('cache')
    await help()
    for (const { entry } of chainOf(await readStore(images))) {
      const diffId = entry['diff-digest'] ?? entry.flags?.['expected-layer-diffid']
      expect(`sha256:${await tarDigest(images, entry.id)}`).toBe(diffId)
    }
  })

  test('images.json is empty, and nothing can be written', async () => {
    agent = await stage.serve('cache')
    await help()
    const before = await readStore(images)
    expect(await readFile(join(images, 'overlay-images/images.json'), 'utf8')).toBe('[]\n')
    for (const name of ['overlay-layers/layers.json', 'overlay-layers/layers.lock', 'overlay-images/images.json']) {
      const { O_APPEND, O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } = constants
      for (const writing of [O_WRONLY, O_RDWR, O_RDWR | O_CREAT, O_WRONLY | O_APPEND, O_RDWR | O_TRUNC]) {
        expect(await codeOf(() => open(join(images, name), writing, 0o644))).toBe('EROFS')
      }
      // as engines open the locks of stores that are not theirs
      await (await open(join(images, name), O_RDONLY | O_CREAT, 0o644)).close()
    }
    expect(await readStore(images)).toEqual(before)
  })

  test('the helper never fails and never prints: nonsense, nobody there, an image that is not there, a registry that hangs', {
    timeout: TIMEOUT_MS,
  }, async () => {
    agent = await stage.serve('cache')
    const before = await readStore(images)
    const none = `${stage.registry.host}/image:none`
    stage.registry.faults = [{ match: /manifests\/hangs/, stallAfter: 0 }]
    const inputs = [
      ...['', '{', 'null', '[]', '{"a":', '"text"', '{"": {}}', '\0', 'x'.repeat(200_000)],
      ...[none, 'Not A Reference', '../../etc/passwd', `${stage.registry.host}/image:hangs`].map((each) =>
        JSON.stringify({ [each]: { username: 'u', password: 'secret', identityToken: '' } }),
      ),
      JSON.stringify({ [stage.reference]: 7 }),
    ]
    for (const input of inputs)
      expect([input.slice(0, 20), await stage.help(input)]).toEqual([input.slice(0, 20), QUIET])
    stage.registry.faults = []
    expect(await readStore(images)).toEqual(expect.arrayContaining(before))
    expect(agent.log()).toContain(`${none}: its layers are not listed`)
    expect(agent.log()).not.toContain('secret')
    await agent.stop()
    expect(await help()).toEqual(QUIET)
    agent = await stage.serve('cache')
  })

  test('an image that claims the DiffIDs of another does not bear its name', async () => {
    agent = await stage.serve('cache')
    const { reference, image } = await stage.add('attacker')
    await claim(stage.layout, image.manifestDigest, stage.image.diffIds.slice(0, 1))
    expect(await help(reference)).toEqual(QUIET)
    const named = (await readStore(images)).filter(({ entry }) => entry['diff-digest'] === stage.image.diffIds[0])
    for (const { entry } of named) {
      expect(await codeOf(() => stat(join(images, 'overlay', entry.id, 'diff/name')))).toBe('ENOENT')
    }
    expect(await help()).toEqual(QUIET)
    const [lowest] = chainOf(await readStore(images))
    expect((await readdir(join(images, 'overlay', lowest?.entry.id ?? '', 'diff'))).includes('program')).toBe(true)
  })

  test('lazylayer pull lists as the helper does, for engines that have none', async () => {
    agent = await stage.serve('cache')
    const { reference, image } = await stage.add('pulled')
    const { code, stdout } = await lazylayer(stage.work.path, 'pull', reference, '--root', stage.root)
    expect([code, stdout]).toEqual([0, `${reference}: 1 of 1 layer listed (1 by index)\n`])
    expect(lists(await readStore(images), image)).toBe(true)
  })

  /** Mounted from the store's directory, by the short names there. */
  async function expectContainer(lower: readonly string[]): Promise<void> {
    await using merged = await stage.overlay(lower, join(images, 'overlay'))
    await expectUnion(merged.path)
  }
})

interface Listed {
  entry: Entry
  link: string
  lower: string
}

/** The whole store, after every check that an engine's reading of it amounts to. */
async function readStore(images: string): Promise<Listed[]> {
  const entries = JSON.parse(await readFile(join(images, 'overlay-layers/layers.json'), 'utf8')) as Entry[]
  const overlay = join(images, 'overlay')
  const links = new Map<string, string>()
  const listed: Listed[] = []
  for (const entry of entries) {
    const { id, parent } = entry
    expect(id).toBe(idOf(entry))
    const directory = join(overlay, id)
    const link = await readFile(join(directory, 'link'), 'utf8')
    expect(link).toMatch(/^[A-Z2-7]{26}$/)
    expect(await readlink(join(overlay, 'l', link))).toBe(`../${id}/diff`)
    expect((await stat(join(overlay, 'l', link))).ino).toBe((await stat(join(directory, 'diff'))).ino)
    const lower = parent === undefined ? '' : await readFile(join(directory, 'lower'), 'utf8')
    if (parent === undefined) expect(await codeOf(() => stat(join(directory, 'lower')))).toBe('ENOENT')
    else {
      const below = listed.find((each) => each.entry.id === parent) as Listed // each after its parent, or this throws
      expect(lower).toBe([`l/${below.link}`, below.lower].filter(Boolean).join(':'))
    }
    links.set(link, id)
    listed.push({ entry, link, lower })
  }
  const ids = entries.map(({ id }) => id)
  expect((await readdir(overlay)).sort()).toEqual([...ids, 'l'].sort())
  expect((await readdir(join(overlay, 'l'))).sort()).toEqual([...links.keys()].sort())
  return listed
}

/** The layers of the image of three, lowest first. */
function chainOf(listed: readonly Listed[]): Listed[] {
  const chain: Listed[] = []
  const top = listed.find(({ lower }) => lower.split(':').length === 2)
  for (let at = top; at !== undefined; at = listed.find(({ entry }) => entry.id === chain[0]?.entry.parent))
    chain.unshift(at)
  return chain
}

/** Whether an image's lowest layer is listed, by whichever identity. */
function lists(listed: readonly Listed[], { layers, diffIds }: WrittenImage): boolean {
  const toc = layers[0]?.annotations[TOC_DIGEST]
  return listed.some(({ entry }) => entry['toc-digest'] === toc || entry['diff-digest'] === diffIds[0])
}

function idOf(entry: Entry): string {
  const { parent, 'diff-digest': diffId, 'toc-digest': toc } = entry
  if (diffId === undefined) return sha256(`${parent ?? ''}+@TOC=${toc?.slice('sha256:'.length)}`)
  const digits = diffId.slice('sha256:'.length)
  return parent === undefined ? digits : sha256(`${parent}+${digits}`)
}

/** Identifiers of layers as image-spec config.md has chain IDs, without their algorithm. */
function chainIds(diffIds: readonly string[]): string[] {
  const ids: string[] = []
  for (const diffId of diffIds) {
    const digits = diffId.slice('sha256:'.length)
    ids.push(ids.length === 0 ? digits : sha256(`${ids.at(-1)}+${digits}`))
  }
  return ids
}

/** One record of a tar-split file: bytes of the tar that are kept in it, or a file of the tree. */
type Split = { type: 1; name: string; size?: number } | { type: 2; payload: string }

/** The digest's hex digits of what a layer's tar-split file says its tar is made of. */
async function tarDigest(images: string, id: string): Promise<string> {
  const hash = createHash('sha256')
  const records = createReadStream(join(images, 'overlay-layers', `${id}.tar-split.gz`)).pipe(createGunzip())
  for await (const line of createInterface({ input: records })) {
    const record = JSON.parse(line) as Split
    if (record.type === 2) hash.update(Buffer.from(record.payload, 'base64'))
    else if (record.size) hash.update(await readFile(join(images, 'overlay', id, 'diff', record.name)))
  }
  return hash.digest('hex')
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

// engines open the locks of stores that are not theirs for reading, and their own for writing; fcntl(2) wants the latter for LOCK_EX
const LOCK = `
import errno, fcntl, os, sys
path, kind, stays = sys.argv[1:]
shared = kind == 'LOCK_SH'
try:
    fd = os.open(path, (os.O_RDONLY if shared else os.O_RDWR) | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.lockf(fd, getattr(fcntl, kind) | fcntl.LOCK_NB)
    print('locked', flush=True)
except BlockingIOError:
    print('busy', flush=True)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
if stays == 'stays': sys.stdin.read()
`

async function tryLock(path: string, kind: 'LOCK_SH' | 'LOCK_EX'): Promise<string> {
  return (await command(PYTHON, ['-c', LOCK, path, kind, 'ends'])).stdout.trim()
}

/** A process that has locked `path`, until it is ended. */
async function hold(path: string) {
  const child = spawn(PYTHON, ['-c', LOCK, path, 'LOCK_SH', 'stays'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const end = async () => {
    child.stdin.end()
    await ended
  }
  for await (const line of createInterface({ input: child.stdout })) {
    expect(line).toBe('locked')
    break
  }
  return { end, [Symbol.asyncDispose]: end }
}
