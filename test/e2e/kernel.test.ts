// EROFS mounts over a served store: what they are mounted on, and what becomes of them in every order of ends.
import { spawn } from 'node:child_process'
import { mkdir, open, readdir, readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { INSTALLED_COMMAND } from '../../packaging/bundle.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { mountTable } from '../../src/mount/mount-table.ts'
import { pattern } from '../fake/image.ts'
import { cloneIdmapped, SHIFT } from '../fixtures/idmap.ts'
import { compare, type Line, listTree, PYTHON } from '../fixtures/listing.ts'
import { type Agent, gone, lazylayer, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 300_000
const FILES = 12
const content = (i: number) => pattern(40_000 + i * 4096, i + 1)
/** Large enough that reading its first page leaves its end unread. */
const LARGE = pattern(12 << 20, 99)

suite('mounts in the kernel', lacking(['fusermount3', 'mount', 'unshare']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  let root: string
  /** Index digests of the image's two layers. */
  let layers: string[]
  const overlays: string[] = []

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const small = Array.from({ length: FILES }, (_, i) => ({
      path: `f${i}`,
      type: 'file' as const,
      content: content(i),
      uid: i,
      gid: 2 * i,
    }))
    const large = [{ path: 'large', type: 'file' as const, content: LARGE }]
    for (const tag of ['one', 'two']) {
      const written = await writeImage({
        dir: layout,
        tag,
        layers: [
          { kind: 'estargz', entries: small },
          { kind: 'estargz', entries: large, options: { chunkSize: 1 << 20 } },
        ],
      })
      layers = written.layers.map((each) => each.annotations[TOC_DIGEST] as string)
    }
    registry = await serveLayout(layout, work.path)
    root = join(work.path, 'store')
  })
  afterEach(async () => {
    registry.faults = []
    for (const each of overlays.splice(0)) await command('umount', ['--lazy', each])
    await agent?.stop()
    agent = undefined
    expect(await mountsBelow(root)).toEqual([])
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  const reach = (cache: string) => ['--cache', join(work.path, cache), '--cert-dir', registry.certDir]

  async function serve(cache: string, ...more: string[]): Promise<Agent> {
    agent = await startAgent(work.path, root, ['serve', root, ...reach(cache), '--mount', 'erofs', ...more])
    return agent
  }

  const layerAt = (layer: number, tag = 'one') =>
    join(root, 'layers', Buffer.from(`${registry.host}/image:${tag}`).toString('base64'), layers[layer] as string)

  /** What an engine does before it takes a layer. @returns its tree */
  async function look(layer: number, tag = 'one'): Promise<string> {
    const at = layerAt(layer, tag)
    await succeed('stat', [join(at, 'diff'), join(at, 'info'), join(at, 'blob')])
    await succeed('cat', [join(at, 'info')])
    return join(at, 'diff')
  }

  /** The engine is done with it; the kernel then detaches what is mounted below, and the agent mounts it again. */
  const drop = (layer: number, tag = 'one') => command('rmdir', [layerAt(layer, tag)])

  const kindOf = async (dir: string) => (await (agent as Agent).status()).mounts.find((each) => each.dir === dir)?.kind
  const hash = async (path: string) => {
    const { code, stdout, stderr } = await command('sha256sum', [path])
    return code === 0 ? stdout.split(' ')[0] : stderr.replace(/.*: /, '').trim()
  }
  /** Of the files that `compare` has no say about, none: the whole tree. */
  const tree = async (dir: string) => (await listTree(dir)).map(({ inode: _, links: __, ...rest }) => rest)

  /** As Podman does: by a link, and with a directory to write into. */
  async function overlay(name: string, ...lower: string[]): Promise<string> {
    const home = join(work.path, `overlay-${name}`)
    for (const each of ['l', 'upper', 'work', 'merged']) await mkdir(join(home, each), { recursive: true })
    const links = await Promise.all(
      lower.map(async (each, i) => {
        await symlink(each, join(home, 'l', `${i}`))
        return join(home, 'l', `${i}`)
      }),
    )
    const merged = join(home, 'merged')
    const options = `lowerdir=${links.join(':')},upperdir=${home}/upper,workdir=${home}/work`
    await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, merged])
    overlays.push(merged)
    return merged
  }

  async function erofsBelowRoot(): Promise<string[]> {
    const table = await mountTable()
    return table.filter((each) => each.type === 'erofs' && each.point.startsWith(`${root}/`)).map((each) => each.point)
  }

  async function until(what: () => Promise<boolean>): Promise<boolean> {
    for (let i = 0; i < 2400; i++) {
      if (await what()) return true
      await sleep(50)
    }
    return false
  }

  const keeperOf = async (pid: number) => Number((await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ')[3])

  async function killBoth(running: Agent): Promise<void> {
    process.kill(await keeperOf(running.pid), 'SIGKILL') // first, so that nobody detaches
    process.kill(running.pid, 'SIGKILL')
    await running.ended
    await gone(running.pid)
  }

  test('a layer is on the session while chunks are missing, on its cache file in new mounts when none is', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await serve('cache-complete')
    const diff = await look(0)
    expect(await kindOf(diff)).toBe('erofs')
    const wanted = await tree(diff)
    expect(wanted.find(({ path }) => path === 'f3')).toMatchObject({ uid: 3, gid: 6, size: content(3).length })
    const other = await look(0, 'two')
    expect(await kindOf(other)).toBe('complete')
    expect(await kindOf(diff)).toBe('erofs')
    const before = await (agent as Agent).status()
    expect(await tree(other)).toEqual(wanted)
    const after = await (agent as Agent).status()
    expect(after.counters.reads).toBe(before.counters.reads)
    // the next life verifies what this one stored, before the first mount
    expect(await agent?.stop()).toBe(0)
    const again = await serve('cache-complete')
    const first = await look(0)
    expect(await kindOf(first)).toBe('complete')
    const { reads } = (await again.status()).counters
    expect(await tree(first)).toEqual(wanted)
    const { counters } = await again.status()
    expect(counters.reads).toBe(reads)
    expect(counters.chunks_reverified).toBeGreaterThanOrEqual(FILES)
    // the other layer was never read: its mount is on the session
    expect(await kindOf(await look(1))).toBe('erofs')
  })

  test('a complete layer with a bit flipped at rest is healed before it is mounted, or not mounted as complete', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await serve('cache-flip')
    const wanted = await tree(await look(0))
    await agent?.stop()
    const cache = join(work.path, 'cache-flip')
    const device = await deviceOf(cache, content(5))
    const flip = () => flipBit(device.path, device.at + 100)
    await flip()
    registry.faults = [{ match: /blobs/, reset: true }]
    await serve('cache-flip')
    let diff = await look(0)
    expect(await kindOf(diff)).toBe('erofs')
    expect(await hash(join(diff, 'f5'))).toBe('Input/output error')
    expect(await hash(join(diff, 'f4'))).toBe(wanted.find(({ path }) => path === 'f4')?.sha256)
    await agent?.stop()

    registry.faults = []
    await serve('cache-flip')
    diff = await look(0)
    expect(await tree(diff)).toEqual(wanted)
    await agent?.stop()
    await flip()
    const healed = await serve('cache-flip')
    diff = await look(0)
    expect(await kindOf(diff)).toBe('complete')
    expect(await tree(diff)).toEqual(wanted)
    expect((await healed.status()).counters.chunks_corrupt).toBeGreaterThan(0)
  })

  test('bits flipped in a metadata image at rest are not mounted', { timeout: TIMEOUT_MS }, async () => {
    await serve('cache-image')
    const wanted = await tree(await look(0))
    await agent?.stop()
    for (const name of await images(join(work.path, 'cache-image'))) await flipBit(name, 1024 + 3000)
    const running = await serve('cache-image')
    const diff = await look(0)
    expect(await kindOf(diff)).toMatch(/erofs|complete/)
    expect(await tree(diff)).toEqual(wanted)
    expect((await running.status()).counters.images_corrupt).toBeGreaterThan(0)
    // and while it runs: what was checked once is checked again before it is shown by another name
    for (const name of await images(join(work.path, 'cache-image'))) await flipBit(name, 1024 + 3000)
    await expect(look(0, 'two')).rejects.toThrow('No such file')
    expect(running.log()).toContain('is left to the engine: its image on disk is damaged')
  })

  test('each device of a merged image is a cache file or not by itself', { timeout: TIMEOUT_MS }, async () => {
    const dir = join(work.path, 'mount')
    await mkdir(dir)
    const mount = async () => {
      const args = ['mount', `${registry.host}/image:one`, dir, ...reach('cache-merged'), '--mount', 'erofs']
      agent = await startAgent(work.path, dir, args)
      return (await agent.status()).mounts.find((each) => each.dir === dir)
    }
    expect(await mount()).toEqual({ dir, kind: 'erofs' })
    for (let i = 0; i < FILES; i++) await hash(join(dir, `f${i}`))
    await succeed('cat', [join(dir, '.no.prefetch.landmark')])
    // the format's own two files are those of the upper layer: the lower layer's are hidden, and never read
    const kept = await tree(dir)
    expect(kept.find(({ path }) => path === 'large')?.sha256).toHaveLength(64)
    await agent?.stop()
    await serve('cache-merged')
    await tree(await look(0))
    await agent?.stop()
    // what an earlier agent left is checked for two seconds at most: on a machine that is busy another one may have to try
    let shown = await mount()
    for (let tries = 0; shown?.kind !== 'complete' && tries < 5; tries++) {
      await agent?.stop()
      shown = await mount()
    }
    expect(shown).toEqual({ dir, kind: 'complete' })
    expect(await tree(dir)).toEqual(kept)
    expect((await (agent as Agent).status()).counters.reads).toBe(0)
    await agent?.stop()
    const cache = join(work.path, 'cache-merged')
    const device = await deviceOf(cache, LARGE.subarray(0, 4096))
    await flipBit(device.path, device.at)
    registry.faults = [{ match: /blobs/, reset: true }]
    expect(await mount()).toEqual({ dir, kind: 'erofs', complete: 1, devices: 2 })
  })

  test('stopped while an overlay uses a layer: nothing stays in the table, cached contents go on, the rest is EIO', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const running = await serve('cache-stop')
    const diff = await look(1)
    const merged = await overlay('stop', diff)
    const start = await succeed('head', ['-c', '4096', join(merged, 'large')])
    expect(await running.stop()).toBe(0)
    expect(running.log()).toContain(`${root} is busy: detached`)
    expect(await mountsBelow(root)).toEqual([])
    expect(await readdir(join(work.path, 'run'))).toEqual([])
    expect(await succeed('head', ['-c', '4096', join(merged, 'large')])).toBe(start)
    expect((await readdir(merged)).includes('large')).toBe(true)
    expect(await hash(join(merged, 'large'))).toBe('Input/output error')
  })

  test('killed while overlays use layers: walks and cached files go on, what is not cached is EIO, never other bytes', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const running = await serve('cache-kill')
    const [small, large] = [await look(0), await look(1)]
    const merged = await overlay('kill', small, large)
    const wanted = await tree(merged)
    await command('umount', [merged])
    // a new overlay on new mounts: nothing of them is cached
    await agent?.stop()
    const fresh = await serve('cache-kill-2')
    const again = await overlay('kill-2', await look(0), await look(1))
    const cached = await hash(join(again, 'f2'))
    process.kill(fresh.pid, 'SIGKILL')
    expect(await fresh.ended).toBe(137)
    expect(running.pid).not.toBe(fresh.pid)
    expect(await mountsBelow(root)).toEqual([])
    expect(await hash(join(again, 'f2'))).toBe(cached)
    const left = await listMetadata(again)
    expect(left).toEqual(wanted.map(({ path, mode, uid, gid, size }) => ({ path, mode, uid, gid, size: size ?? null })))
    const outcomes = await Promise.all([...Array(FILES).keys()].map((i) => hash(join(again, `f${i}`))))
    for (const [i, outcome] of outcomes.entries()) {
      const right = wanted.find(({ path }) => path === `f${i}`)?.sha256
      expect([right, 'Input/output error']).toContain(outcome)
    }
    expect(await hash(join(again, 'large'))).toBe('Input/output error')
  })

  test('a complete layer goes on whole without its agent', { timeout: TIMEOUT_MS }, async () => {
    await serve('cache-whole')
    await tree(await look(1))
    await agent?.stop()
    const running = await serve('cache-whole')
    const diff = await look(1)
    expect(await kindOf(diff)).toBe('complete')
    const merged = await overlay('whole', diff)
    process.kill(running.pid, 'SIGKILL')
    expect(await running.ended).toBe(137)
    expect(await mountsBelow(root)).toEqual([])
    expect(Buffer.compare(await readFile(join(merged, 'large')), LARGE)).toBe(0)
  })

  test('keeper and agent killed: the next start detaches the dead mount with all that is on it', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const running = await serve('cache-both')
    const diffs = [await look(0), await look(1)]
    await killBoth(running)
    expect(await mountsBelow(root)).toEqual(expect.arrayContaining([root, ...diffs]))
    const next = await serve('cache-both')
    expect(next.log()).toContain('detaching a dead mount')
    expect(await erofsBelowRoot()).toEqual([])
    expect(await hash(join(await look(0), 'f1'))).toHaveLength(64)
    expect(await kindOf(diffs[0] as string)).toBe('erofs')
  })

  test('a cover that somebody else unmounted is answered by FUSE, and comes back with the next use', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await serve('cache-foreign')
    const diff = await look(0)
    const wanted = await tree(diff)
    await succeed('umount', [diff])
    expect(await kindOf(diff)).toBeUndefined()
    const below = await tree(diff)
    expect(below).toEqual(wanted)
    await command('touch', [join(layerAt(0), 'use')])
    expect(await until(async () => (await kindOf(diff)) !== undefined)).toBe(true)
    expect(await tree(diff)).toEqual(wanted)
  })

  test('fifty rounds of looking up, unmounting and dropping leave the agent no descriptor more', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const running = await serve('cache-fds')
    const diff = await look(0)
    await tree(diff)
    const descriptors = async () => (await readdir(`/proc/${running.pid}/fd`)).length
    const mounted = async () => (await erofsBelowRoot()).includes(diff)
    await drop(0)
    expect(await until(mounted)).toBe(true)
    const before = await descriptors()
    for (let i = 0; i < 50; i++) {
      await succeed('umount', [diff])
      await look(0)
      await drop(0)
      expect([await until(mounted), running.log()]).toEqual([true, ''])
    }
    expect(await until(async () => (await descriptors()) <= before)).toBe(true)
    expect(await erofsBelowRoot()).toEqual([diff])
  })

  test('two SIGTERMs end it once, in order', { timeout: TIMEOUT_MS }, async () => {
    const running = await serve('cache-twice')
    await look(0)
    const keeper = await keeperOf(running.pid)
    process.kill(keeper, 'SIGTERM')
    process.kill(keeper, 'SIGTERM')
    expect(await running.ended).toBe(0)
    expect(running.log()).toBe('')
    expect(await mountsBelow(root)).toEqual([])
    expect(await readdir(join(work.path, 'run'))).toEqual([])
  })

  test('a second agent for the same root is refused, wherever its socket would be', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await serve('cache-second')
    const diff = await look(0)
    const same = await lazylayer(work.path, 'serve', root, ...reach('cache-second'))
    expect(same.code).toBe(1)
    expect(same.stderr).toContain(`an agent is already running for ${root}`)
    const elsewhere = join(work.path, 'elsewhere')
    const other = await lazylayer(elsewhere, 'serve', root, ...reach('cache-other'))
    expect(other.code).toBe(1)
    expect(other.stderr).toContain(`another agent has mounted on ${root}`)
    // it does not advise a command that advises this one
    const ending = await lazylayer(elsewhere, 'umount', root)
    expect(ending).toMatchObject({ code: 1, stderr: expect.stringContaining('its socket is elsewhere') })
    for (const each of [other, ending]) expect(each.stderr).toContain(`/usr/bin/umount --recursive ${root}`)
    expect(await hash(join(diff, 'f1'))).toHaveLength(64)
    expect(await kindOf(diff)).toBe('erofs')
  })

  test('nothing of an agent runs or is open when it has ended, even while an overlay goes on', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const running = await serve('cache-processes')
    const diff = await look(0)
    const keeper = await keeperOf(running.pid)
    await overlay('processes', diff)
    expect(await running.stop()).toBe(0)
    for (const pid of [running.pid, keeper]) {
      await gone(pid)
    }
    const open = await command('sh', [
      '-c',
      `ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c '${work.path}/cache-processes'`,
    ])
    expect(open.stdout.trim()).toBe('0')
  })

  test('an idmapped clone without submounts shows shifted owners and the same contents', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await serve('cache-idmap')
    const diff = await look(0)
    const wanted = await tree(diff)
    const at = join(work.path, 'idmapped')
    await mkdir(at, { recursive: true })
    await cloneIdmapped(root, at)
    overlays.push(at)
    // the clone of the store's root has no mounts below: FUSE answers, where the kernel's EROFS does in the original
    const below = (await mountTable()).filter((each) => each.point.startsWith(at))
    expect(below.map((each) => each.type)).toEqual(['fuse.lazylayer'])
    const found = await listTree(diff.replace(root, at))
    const shifted = wanted.map((each) => ({ ...each, uid: each.uid + SHIFT, gid: each.gid + SHIFT }))
    expect(compare(shifted as Line[], found)).toEqual([])
    // and an idmapped clone of the EROFS mount itself
    const cover = join(work.path, 'idmapped-cover')
    await mkdir(cover, { recursive: true })
    await cloneIdmapped(diff, cover)
    overlays.push(cover)
    expect((await mountTable()).find((each) => each.point === cover)?.type).toBe('erofs')
    expect(compare(shifted as Line[], await listTree(cover))).toEqual([])
  })

  test('status says when engines do not see the mount, and nothing when they do', { timeout: TIMEOUT_MS }, async () => {
    const seen = await serve('cache-seen')
    expect(await seen.status()).toMatchObject({ seen: 'yes' })
    expect((await lazylayer(work.path, 'status', root)).stderr).toBe('')
    await agent?.stop()
    agent = undefined
    // in a mount namespace of its own, as in a container without a shared volume
    const child = spawn(
      'unshare',
      [
        '--mount',
        '--propagation',
        'private',
        process.execPath,
        INSTALLED_COMMAND,
        'serve',
        root,
        ...reach('cache-unseen'),
      ],
      { env: { ...process.env, RUNTIME_DIRECTORY: `${work.path}/run` }, stdio: 'ignore' },
    )
    const ended = new Promise((done) => child.once('exit', done))
    try {
      let text = ''
      await until(async () => {
        text = (await lazylayer(work.path, 'status', root, '--format', 'json')).stdout
        return text !== ''
      })
      const sentence = `engines in the mount namespace of process 1 do not see ${root}: ${work.path}, which it is on, is not shared`
      expect(JSON.parse(text)).toMatchObject({ seen: 'no', unseen: sentence })
      expect((await lazylayer(work.path, 'status', root)).stderr).toBe(`lazylayer: ${sentence}\n`)
    } finally {
      child.kill('SIGTERM')
      await ended
    }
  })
})

/** Names and attributes alone: no content is read. */
async function listMetadata(dir: string) {
  const script = `
import json, os, sys
root = sys.argv[1]
rows = []
def row(path, st): rows.append({'path': path, 'mode': oct(st.st_mode & 0o7777), 'uid': st.st_uid, 'gid': st.st_gid, 'size': st.st_size if (st.st_mode & 0o170000) == 0o100000 else None})
row('.', os.lstat(root))
for at, dirs, files in os.walk(root):
    for name in dirs + files:
        path = os.path.join(at, name)
        row(os.path.relpath(path, root), os.lstat(path))
rows.sort(key=lambda each: each['path'])
print(json.dumps(rows))
`
  return JSON.parse(await succeed(PYTHON, ['-c', script, dir])) as unknown[]
}

async function images(cache: string): Promise<string[]> {
  const names = await readdir(cache, { recursive: true })
  return names.filter((each) => /^trees\/[0-9a-f]+\/image$/.test(each)).map((each) => join(cache, each))
}

/** Where in which device of a cache some bytes are. */
async function deviceOf(cache: string, bytes: Uint8Array): Promise<{ path: string; at: number }> {
  const names = await readdir(cache, { recursive: true })
  for (const name of names.filter((each) => each.endsWith('/device'))) {
    const at = (await readFile(join(cache, name))).indexOf(bytes)
    if (at >= 0) return { path: join(cache, name), at }
  }
  throw new Error('no device has these bytes')
}

async function flipBit(path: string, at: number): Promise<void> {
  const file = await open(path, 'r+')
  const byte = new Uint8Array(1)
  await file.read(byte, 0, 1, at)
  byte[0] = (byte[0] as number) ^ 4 // one was read
  await file.write(byte, 0, 1, at)
  await file.close()
}
