// The native side alone, mounted for real: trees, devices and misses, the control tree, and the keeper.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { buildTree } from '../../src/tree/build.ts'
import { READY_HEADER_BYTES, READY_VERIFIED } from '../../src/tree/ready.ts'
import type { Tree } from '../../src/tree/tree.ts'
import { compare, listTree, PYTHON } from '../fixtures/listing.ts'
import {
  ATTRIBUTES,
  controlNode,
  type Device,
  emptyReady,
  evenPlaces,
  mountNative,
  type NativeMount,
  type NativeMountOptions,
  type Places,
  packPlaces,
} from '../fixtures/native-mount.ts'
import { edges } from '../tree/edges.ts'
import { dir, fifo, file, fillDevice, type Layer, layer, lines, link, type Spec, symlink } from '../tree/layer.ts'
import { command, succeed } from './engines/command.ts'
import { findProgram, lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'

const KEEPER = fileURLToPath(new URL('../../native/lazylayer-keeper', import.meta.url))
const AGENT = fileURLToPath(new URL('../fixtures/native-agent.ts', import.meta.url))
const SLOT = 7
const EIO = 5
const EACCES = 13

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const reason =
  lacking(['umount', 'mount']) ??
  (existsSync('/dev/fuse') ? undefined : 'there is no /dev/fuse') ??
  (existsSync(KEEPER) ? undefined : 'native/ is not built')

/** A device's places, as the chunk table has them. */
function placesOf(tree: Tree): Places {
  const view = new DataView(tree.chunks.packedPlaces().buffer)
  return Array.from({ length: view.byteLength / 24 }, (_, i) => [
    Number(view.getBigUint64(i * 24, true)),
    Number(view.getBigUint64(i * 24 + 8, true)),
    view.getUint32(i * 24 + 16, true),
  ])
}

/** Runs Python with `at` as its first argument. @returns stdout, or the errno's name that it failed with */
async function python(script: string, at: string): Promise<string> {
  const wrapped = `import errno, os, sys\nat = sys.argv[1]\ntry:\n${script.trim().replaceAll(/^/gm, ' ')}\nexcept OSError as error:\n print(errno.errorcode[error.errno])`
  return (await succeed(PYTHON, ['-c', wrapped, at])).trim()
}
const readAll = (at: string) => python('import hashlib; print(hashlib.sha256(open(at, "rb").read()).hexdigest())', at)
const sha256 = (bytes: Uint8Array) =>
  crypto.subtle.digest('SHA-256', Uint8Array.from(bytes)).then((hash) => Buffer.from(hash).toString('hex'))

suite('the native side serves a mount', reason, () => {
  let work: WorkDirectory
  let mounted: NativeMount | undefined
  let number = 0

  beforeAll(async () => {
    work = await makeWorkDirectory()
  })

  afterEach(async () => {
    await mounted?.end()
    mounted = undefined
  })

  afterAll(() => work?.remove())

  async function mount(options: NativeMountOptions = {}): Promise<NativeMount> {
    const home = join(work.path, `${number++}`)
    const at = join(home, 'mnt')
    await mkdir(at, { recursive: true })
    mounted = mountNative(at, home, options)
    return mounted
  }

  async function mountTree(source: Layer, options: NativeMountOptions = {}): Promise<NativeMount & { device: Device }> {
    const tree = buildTree(source)
    const made = await mount({ rootSlot: SLOT, ...options })
    const device = await made.addDevice(fillDevice(tree, source.decoded), placesOf(tree))
    await made.addImage(SLOT, tree.image, [device])
    return { ...made, device }
  }

  /** A mount of one file in one device file, with chunks of 4096 bytes. */
  async function mountFile(size: number, options: NativeMountOptions = {}) {
    const bytes = randomBytes(size)
    const made = await mount(options)
    const device = await made.addDevice(bytes, evenPlaces(size, 4096))
    made.session.addDeviceFile(controlNode(1), 1n, 'device', { ...ATTRIBUTES, mode: 0o644 }, device.number)
    return { ...made, bytes, device, path: join(made.dir, 'device') }
  }

  const TREE: Spec[] = [
    dir('', { mode: 0o40751, uid: 1, gid: 2 }),
    file('etc/passwd', 'root:x:0:0', { mtime: -1_500_000_000n }),
    file('etc/empty'),
    file('bin/exact', randomBytes(8192), { mode: 0o104755 }),
    file('bin/large', randomBytes(3_000_001), {
      uid: 70_000,
      gid: 4_000_000_000,
      xattrs: new Map([
        ['security.capability', Uint8Array.of(1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
        ['trusted.bin', Uint8Array.of(0, 255, 10)],
        ['user.long', randomBytes(5000)],
      ]),
    }),
    link('bin/also', 'bin/large'),
    link('also', 'bin/also'),
    symlink('lib', 'usr/lib'),
    symlink('far', 't'.repeat(4000)),
    fifo('pipe'),
    { ...fifo('null'), mode: 0o020666, rdev: [1, 3] },
    { ...fifo('disk'), mode: 0o060640, rdev: [259, 100_000] },
    { ...fifo('whiteout'), mode: 0o020000, rdev: [0, 0] },
    dir('opaque', { xattrs: new Map([['trusted.overlay.opaque', Buffer.from('y')]]) }),
    file(`${'n'.repeat(255)}`, 'the longest name'),
  ]

  test('a tree shows every type, owner, time, name, xattr, link and byte, cold and warm', async () => {
    const { dir: at, session } = await mountTree(layer(TREE))
    // ours are no OCI names: what stands for a whiteout in a tar is a device here
    expect(compare(lines(TREE), await listTree(at))).toEqual([])
    const { missed, failed } = session.counters()
    expect(missed).toBeGreaterThan(0n)
    await writeFile('/proc/sys/vm/drop_caches', '3')
    expect(compare(lines(TREE), await listTree(at))).toEqual([])
    expect(session.counters()).toMatchObject({ missed, failed, expired: 0n })
    expect(failed).toBe(0n)
  })

  for (const [title, specs] of edges) {
    test(`what ends where a block ends: ${title}`, async () => {
      const { dir: at } = await mountTree(layer(specs()))
      expect(compare(lines(specs()), await listTree(at))).toEqual([])
    })
  }

  test('a directory of 10,000 names is listed whole and every name is found', async () => {
    const names = Array.from({ length: 10_000 }, (_, i) => `entry-${i}-${'x'.repeat(i % 60)}`)
    const { dir: at } = await mountTree(layer([dir(''), ...names.map((name) => file(`wide/${name}`, ''))]))
    const listed = await python('print("\\n".join(sorted(os.listdir(at))))', join(at, 'wide'))
    expect(listed.split('\n')).toEqual([...names].sort())
    const looks = `print(sum(os.stat(f"{at}/entry-{i}-{'x' * (i % 60)}").st_nlink for i in range(10000)))`
    expect(await python(looks, join(at, 'wide'))).toBe('10000')
    expect(await python('os.stat(at)', join(at, 'wide', 'entry-10000'))).toBe('ENOENT')
  })

  test('an image of mkfs.erofs with a device for its chunks is served like the directory it was made of', async (context) => {
    if (findProgram('mkfs.erofs') === undefined) context.skip('not installed: mkfs.erofs')
    const home = join(work.path, 'mkfs')
    await mkdir(join(home, 'source/many'), { recursive: true })
    for (let i = 0; i < 400; i++) await writeFile(join(home, `source/many/some-file-${i}`), `${i}`.repeat(i * 7))
    await succeed('sh', [
      '-c',
      'cd "$0" && ln many/some-file-9 hard && ln -s many soft && mknod gone c 0 0',
      join(home, 'source'),
    ])
    const made = await command('mkfs.erofs', [
      ...['--quiet', '-Eforce-inode-compact', '--chunksize=8192', `--blobdev=${join(home, 'blob')}`],
      ...[join(home, 'image'), join(home, 'source')],
    ])
    expect(made).toMatchObject({ code: 0 })
    const at = await mount({ rootSlot: SLOT })
    const blob = await readFile(join(home, 'blob'))
    const device = await at.addDevice(blob, evenPlaces(blob.length, 8192))
    await at.addImage(SLOT, await readFile(join(home, 'image')), [device])
    const source = await listTree(join(home, 'source'))
    // compact inodes have no time of their own
    expect(compare(source, await listTree(at.dir), { ignore: ['mtime', 'nanoseconds'] })).toEqual([])
  })

  test('two readers of a missing chunk cost one miss, and both get its bytes', async () => {
    const asked: Uint32Array[] = []
    const { path, bytes, session, device } = await mountFile(4096, { miss: (_, chunks) => void asked.push(chunks) })
    const readers = [
      readAll(path),
      readAll(path),
      command('dd', [`if=${path}`, 'iflag=direct', 'bs=4096', 'of=/dev/null']),
    ]
    await expect.poll(() => session.counters().missed).toBeGreaterThan(1n)
    await expect.poll(() => asked.length).toBeGreaterThan(0)
    expect(asked).toEqual([Uint32Array.of(0)])
    await device.fill(0)
    session.settle(device.number, 0, 0)
    expect((await Promise.all(readers)).slice(0, 2)).toEqual([await sha256(bytes), await sha256(bytes)])
    expect(asked).toHaveLength(1)
  })

  test('a read over many chunks waits for all of them', async () => {
    const missing = new Set<number>()
    const { path, bytes, session, device } = await mountFile(64 * 4096 + 1, {
      miss: (_, chunks) => void chunks.forEach((chunk) => void missing.add(chunk)),
    })
    const reader = readAll(path)
    for (let i = 64; i >= 0; i--) {
      await expect.poll(() => missing.has(i), { interval: 5 }).toBe(true)
      await device.fill(i)
      session.settle(device.number, i, 0)
    }
    expect(await reader).toBe(await sha256(bytes))
  })

  test('a miss that is never settled is EIO at its deadline, and the next read asks again', async () => {
    let answers = false
    const { path, bytes, session, device, calls } = await mountFile(4096, {
      missTimeoutMs: 500,
      async miss(_, chunks) {
        for (const chunk of answers ? chunks : []) {
          await device.fill(chunk)
          session.settle(device.number, chunk, 0)
        }
      },
    })
    const start = performance.now()
    expect(await readAll(path)).toBe('EIO')
    expect(performance.now() - start).toBeGreaterThan(499)
    const { expired, failed } = session.counters()
    expect(expired).toBeGreaterThan(0n)
    expect(failed).toBeGreaterThanOrEqual(expired)
    answers = true
    expect(await readAll(path)).toBe(await sha256(bytes))
    expect(calls.filter(([name]) => name === 'miss').length).toBeGreaterThan(1)
  })

  test('a reader gets the errno that its chunk was settled with', async () => {
    const { path, session, device } = await mountFile(4096, {
      miss: (_, chunks) => chunks.forEach((chunk) => void session.settle(device.number, chunk, EACCES)),
    })
    // the page cache makes EIO of whatever read-ahead meets; without it the errno comes through
    const direct = 'os.preadv(os.open(at, os.O_RDONLY | os.O_DIRECT), [__import__("mmap").mmap(-1, 4096)], 0)'
    expect(await python(direct, path)).toBe('EACCES')
  })

  test('a chunk that is settled as ready without its ready byte is EIO, never bytes', async () => {
    const { path, session, device } = await mountFile(4096, {
      miss: (_, chunks) => chunks.forEach((chunk) => void session.settle(device.number, chunk, 0)),
    })
    expect(await readAll(path)).toBe('EIO')
    expect(session.counters().failed).toBeGreaterThan(0n)
  })

  test('a chunk that was taken back is asked for again, and its bytes are never those of the hole', async () => {
    const { path, bytes, device, calls } = await mountFile(3 * 4096)
    expect(await readAll(path)).toBe(await sha256(bytes))
    await device.takeBack(1)
    await writeFile('/proc/sys/vm/drop_caches', '3')
    calls.length = 0
    expect(await readAll(path)).toBe(await sha256(bytes))
    expect(calls).toEqual([['miss', device.number, [1]]])
  })

  test('a read whose chunk is taken back before its turn comes waits for it once more', async () => {
    let misses = 0
    const { path, bytes, session, device } = await mountFile(4096, {
      async miss(_, [chunk = -1]) {
        await device.fill(chunk)
        if (++misses === 1) await device.takeBack(chunk)
        session.settle(device.number, chunk, 0)
      },
    })
    expect(await readAll(path)).toBe(await sha256(bytes))
    expect(misses).toBe(2)
    expect(session.counters()).toMatchObject({ missed: 1n, failed: 0n })
  })

  test('a device that is removed fails who waits for it and who would, and asks for nothing any more', async () => {
    const { path, session, device, calls } = await mountFile(2 * 4096, { miss: () => undefined })
    const reader = readAll(path)
    await expect.poll(() => calls.length).toBeGreaterThan(0)
    session.removeDevice(device.number)
    expect(await reader).toBe('EIO')
    calls.length = 0
    expect(await readAll(path)).toBe('EIO')
    expect(calls).toEqual([])
  })

  test('a tree whose device was removed shows what is there, and asks for nothing any more', async () => {
    const made = await mountTree(layer([file('there', randomBytes(8192)), file('missing', randomBytes(8192))]))
    const there = await readAll(join(made.dir, 'there'))
    made.session.removeDevice(made.device.number)
    await writeFile('/proc/sys/vm/drop_caches', '3')
    made.calls.length = 0
    expect([await readAll(join(made.dir, 'there')), await readAll(join(made.dir, 'missing'))]).toEqual([there, 'EIO'])
    expect(made.calls).toEqual([])
    made.session.removeTree(SLOT)
    await writeFile('/proc/sys/vm/drop_caches', '3')
    expect(await readAll(join(made.dir, 'there'))).toBe('ESTALE')
  })

  test('nothing is left of a thousand devices and trees that were removed', async () => {
    const source = layer([file('file', randomBytes(4096))])
    const tree = buildTree(source)
    const { session, dir: at } = await mount()
    const home = join(at, '..')
    const [image, ready, bytes] = await Promise.all(
      ['image', 'ready', 'bytes'].map((name) => open(join(home, name), 'w+')),
    )
    if (image === undefined || ready === undefined || bytes === undefined) throw new TypeError('three files')
    await image.write(tree.image)
    await ready.write(emptyReady(tree.chunks.length).fill(READY_VERIFIED, READY_HEADER_BYTES))
    await bytes.write(fillDevice(tree, source.decoded))
    /** Descriptors of the files, and mappings. */
    const left = async () => {
      const numbers = await readdir('/proc/self/fd')
      const targets = await Promise.all(numbers.map((number) => readlink(`/proc/self/fd/${number}`).catch(() => '')))
      const maps = (await readFile('/proc/self/maps', 'utf8')).split('\n').filter((line) => line.includes(home))
      return [targets.filter((target) => target.startsWith(home)).length, maps.length]
    }
    expect(await left()).toEqual([3, 0])
    const places = tree.chunks.packedPlaces()
    for (let i = 0; i < 1000; i++) {
      const spec = { deviceFd: bytes.fd, readyFd: ready.fd, chunks: tree.chunks.length, size: tree.chunks.deviceSize }
      const device = session.addDevice({ ...spec, places })
      session.addTree(SLOT, { imageFd: image.fd, devices: [device], inodeBase: 0 })
      session.addDirectory(controlNode(1), 1n, 'dir', ATTRIBUTES, false)
      session.addDeviceFile(controlNode(2), controlNode(1), 'device', ATTRIBUTES, device)
      session.graft(controlNode(1), 'tree', SLOT)
      // what the kernel knows of holds nothing back either
      if (i % 100 === 0) {
        expect(await left()).toEqual([4, 2])
        expect(await readAll(join(at, 'dir/device'))).toBe(await readAll(join(home, 'bytes')))
        expect(await readAll(join(at, 'dir/tree/file'))).toMatch(/^[0-9a-f]{64}$/)
      }
      session.remove(1n, 'dir')
      session.removeTree(SLOT)
      session.removeDevice(device)
    }
    expect(await left()).toEqual([3, 0])
    for (const each of [image, ready, bytes]) await each.close()
  })

  test('bytes that no chunk covers read as zeros', async () => {
    const made = await mount()
    const device = await made.addDevice(new Uint8Array(10_000).fill(7), [
      [100, 50, 0],
      [9000, 900, 1],
    ])
    made.session.addDeviceFile(controlNode(1), 1n, 'device', ATTRIBUTES, device.number)
    const want = new Uint8Array(10_000).fill(7, 100, 150).fill(7, 9000, 9900)
    expect(await readAll(join(made.dir, 'device'))).toBe(await sha256(want))
  })

  test('a process that waits for a chunk or for a lookup can be killed', async () => {
    const { path, session, dir: at, calls } = await mountFile(4096, { miss: () => undefined, lookup: () => undefined })
    session.addDirectory(controlNode(2), 1n, 'asks', ATTRIBUTES, true)
    const waiting = [spawn('cat', [path]), spawn('cat', [join(at, 'asks', 'name')])]
    const ends = waiting.map(
      (process) => new Promise((resolve) => process.once('close', (_, signal) => resolve(signal))),
    )
    await expect.poll(() => calls.map(([name]) => name).sort()).toEqual(['lookup', 'miss'])
    for (const process of waiting) process.kill('SIGTERM')
    expect(await Promise.all(ends)).toEqual(['SIGTERM', 'SIGTERM'])
  })

  test('close fails what waits and what would, and the mount ends when it is unmounted', async () => {
    const { path, session, native, dir: at, ended } = await mountFile(4096, { miss: () => undefined })
    const reader = readAll(path)
    await expect.poll(() => session.counters().missed).toBeGreaterThan(0n)
    session.close()
    expect(await reader).toBe('EIO')
    expect(await readAll(path)).toBe('EIO')
    await native.unmount(at, false)
    expect(await ended).toBe('unmounted')
    expect(await mountsBelow(at)).toEqual([])
  })

  test('a busy mount is EBUSY until it is free', async () => {
    const { path, native, dir: at, ended } = await mountFile(4096)
    const holder = spawn('sleep', ['60'], { cwd: at })
    await expect.poll(() => command('readlink', [`/proc/${holder.pid}/cwd`]).then((of) => of.stdout.trim())).toBe(at)
    await expect(native.unmount(at, false)).rejects.toMatchObject({ code: 'EBUSY' })
    expect(await readAll(path)).toMatch(/^[0-9a-f]{64}$/)
    const gone = new Promise((resolve) => holder.once('close', resolve))
    holder.kill()
    await gone
    await native.unmount(at, false)
    expect(await ended).toBe('unmounted')
    await expect(native.unmount(at, false)).rejects.toMatchObject({ code: 'EINVAL' })
  })

  test('names of an asking directory are asked for once, and are there when they were added', async () => {
    const tickets: number[] = []
    const {
      session,
      dir: at,
      calls,
      uids,
    } = await mount({
      lookup(ticket, parent, name) {
        if (name === 'slow') {
          tickets.push(ticket)
          return
        }
        if (name === 'new') session.addFile(controlNode(5), parent, name, ATTRIBUTES, Buffer.from('fresh'))
        session.answerLookup(ticket, name === 'denied' ? EACCES : 0)
      },
    })
    session.addDirectory(controlNode(1), 1n, 'asks', ATTRIBUTES, true)
    session.addDirectory(controlNode(2), 1n, 'knows', ATTRIBUTES, false)
    const look = (name: string) => python('print(open(at).read())', join(at, name))
    expect(await look('asks/new')).toBe('fresh')
    expect(await look('asks/none')).toBe('ENOENT')
    expect(await look('asks/denied')).toBe('EACCES')
    expect(await look('knows/new')).toBe('ENOENT')
    expect(await look('nothing')).toBe('ENOENT')
    const asked = calls.filter(([name]) => name === 'lookup').map(([, parent, name]) => [parent, name])
    expect(asked).toEqual(['new', 'none', 'denied'].map((name) => [controlNode(1), name]))
    // by whom, too: a set-user-ID program is its user's
    expect(await python('os.chdir(at); os.setresuid(1000, 0, 0); open("whose")', join(at, 'asks'))).toBe('ENOENT')
    expect([calls.at(-1), uids]).toEqual([
      ['lookup', controlNode(1), 'whose'],
      [0, 0, 0, 1000],
    ])
    const two = [look('asks/slow'), look('asks/slow')]
    await expect.poll(() => tickets.length).toBe(1)
    await sleep(200)
    expect(tickets).toHaveLength(1)
    session.addFile(controlNode(6), controlNode(1), 'slow', ATTRIBUTES, Buffer.from('at last'))
    session.answerLookup(tickets[0] as number, 0)
    expect(await Promise.all(two)).toEqual(['at last', 'at last'])
    // nothing was cached: neither that it is there nor that it is not
    session.remove(controlNode(1), 'slow')
    session.addFile(controlNode(7), controlNode(2), 'new', ATTRIBUTES, Buffer.from('second'))
    session.remove(controlNode(1), 'new')
    session.addFile(controlNode(8), controlNode(1), 'new', ATTRIBUTES, Buffer.from('third'))
    expect([await look('knows/new'), await look('asks/new')]).toEqual(['second', 'third'])
    expect(await python('print(sorted(os.listdir(at)))', join(at, 'asks'))).toBe("['new']")
  })

  test("a user's lookups that wait for a silent host stop no read, and nobody else's lookup", async () => {
    const waiting: number[] = []
    const {
      session,
      dir: at,
      uids,
      path,
      bytes,
    } = await mountFile(4096, {
      lookup(ticket, _, name) {
        if (name.startsWith('silent')) waiting.push(ticket)
        else session.answerLookup(ticket, EACCES)
      },
    })
    session.addDirectory(controlNode(2), 1n, 'asks', ATTRIBUTES, true)
    const asking = python(
      `
import threading
os.chdir(at)
os.setuid(1000)
threads = [threading.Thread(target=os.path.exists, args=["silent%d" % i]) for i in range(300)]
for thread in threads: thread.start()
for thread in threads: thread.join()`,
      join(at, 'asks'),
    )
    await expect.poll(() => session.counters().refused).toBe(44n)
    await expect.poll(() => waiting.length).toBe(256)
    expect(uids).toEqual(Array(256).fill(1000))
    expect(await readAll(path)).toBe(await sha256(bytes))
    const look = (uid: number, name: string) =>
      python(`os.chdir(at); os.setuid(${uid}); open(${JSON.stringify(name)})`, join(at, 'asks'))
    expect(await look(1000, 'other')).toBe('ENOENT')
    expect([await look(1001, 'other'), await look(0, 'other')]).toEqual(['EACCES', 'EACCES'])
    for (const ticket of waiting) session.answerLookup(ticket, 0)
    await asking
    expect(await look(1000, 'other')).toBe('EACCES')
  })

  test('a lookup that nobody answers is ENOENT at its deadline', async () => {
    const { session, dir: at } = await mount({ lookupTimeoutMs: 300, lookup: () => undefined })
    session.addDirectory(controlNode(1), 1n, 'asks', ATTRIBUTES, true)
    const start = performance.now()
    expect(await python('os.stat(at)', join(at, 'asks', 'name'))).toBe('ENOENT')
    expect(performance.now() - start).toBeGreaterThan(299)
  })

  test('a late file is asked for on its first read, once for all readers, and again after a failure', async () => {
    let code = EIO
    const made = await mount({
      late(node) {
        if (code !== 0) made.session.settleLate(node, -1, code)
        else
          void open(join(work.path, 'late')).then(
            async (of) => {
              made.session.settleLate(node, of.fd, 0)
              await of.close()
            },
            () => undefined,
          ) // the read then runs into its deadline
      },
    })
    await writeFile(join(work.path, 'late'), 'late contents')
    made.session.addLate(controlNode(1), 1n, 'late', { ...ATTRIBUTES, mode: 0o644 }, 13)
    const path = join(made.dir, 'late')
    expect(await python('print(os.stat(at).st_size, oct(os.stat(at).st_mode), os.stat(at).st_mtime_ns)', path)).toBe(
      '13 0o100644 1700000000123456789',
    )
    expect(made.calls).toEqual([])
    expect(await readAll(path)).toBe('EIO')
    code = 0
    const want = await sha256(Buffer.from('late contents'))
    expect(await readAll(path)).toBe(want)
    const before = made.calls.length
    await writeFile('/proc/sys/vm/drop_caches', '1')
    expect(await readAll(path)).toBe(want)
    expect(made.calls).toHaveLength(before)
  })

  test('a grafted tree is below its name, a layer of overlayfs, and gone when it is removed', async () => {
    const source = layer([
      dir(''),
      file('kept', 'kept'),
      file('gone', 'x'),
      { ...fifo('old'), mode: 0o020000, rdev: [0, 0] },
    ])
    const tree = buildTree(source)
    const made = await mount()
    const device = await made.addDevice(fillDevice(tree, source.decoded), placesOf(tree))
    await made.addImage(SLOT, tree.image, [device])
    made.session.addDirectory(controlNode(1), 1n, 'layer', ATTRIBUTES, false)
    made.session.graft(controlNode(1), 'diff', SLOT)
    const home = join(work.path, 'overlay')
    await mkdir(join(home, 'lower'), { recursive: true })
    await mkdir(join(home, 'merged'))
    await writeFile(join(home, 'lower', 'old'), 'hidden by the whiteout')
    const lower = `lowerdir=${join(made.dir, 'layer/diff')}:${join(home, 'lower')}`
    await succeed('mount', ['-t', 'overlay', 'overlay', '-o', lower, join(home, 'merged')])
    expect(await python('print(sorted(os.listdir(at)), open(at + "/kept").read())', join(home, 'merged'))).toBe(
      "['gone', 'kept'] kept",
    )
    await succeed('umount', [join(home, 'merged')])
    made.session.remove(controlNode(1), 'diff')
    expect(await python('os.stat(at)', join(made.dir, 'layer/diff'))).toBe('ENOENT')
  })

  test('creating or removing where engines tell of use is ENOENT with a hint, and every other write EROFS', async () => {
    const { session, dir: top, calls } = await mount({ lookup: (ticket) => session.answerLookup(ticket, 0) })
    session.addDirectory(controlNode(8), 1n, 'store', ATTRIBUTES, true)
    session.addDirectory(controlNode(9), controlNode(8), 'ref', ATTRIBUTES, true)
    session.addDirectory(controlNode(10), 1n, 'knows', ATTRIBUTES, false)
    session.addDirectory(controlNode(11), controlNode(10), 'below', ATTRIBUTES, false)
    const at = join(top, 'store/ref')
    const source = layer([dir(''), file('file', 'x'), dir('dir')])
    const tree = buildTree(source)
    session.addDirectory(controlNode(1), controlNode(9), 'digest', ATTRIBUTES, true)
    session.addFile(controlNode(2), controlNode(1), 'info', { ...ATTRIBUTES, mode: 0o644 }, Buffer.from('{}'))
    const made = mounted as NativeMount
    await made.addImage(SLOT, tree.image, [await made.addDevice(fillDevice(tree, source.decoded), placesOf(tree))])
    session.graft(controlNode(1), 'diff', SLOT)
    const use = 'os.open(at + "/digest/use", os.O_RDWR | os.O_CREAT | os.O_TRUNC)'
    expect(await python(use, at)).toBe('ENOENT')
    expect(await python('os.mknod(at + "/digest/use")', at)).toBe('ENOENT')
    expect(await python('os.rmdir(at + "/digest")', at)).toBe('ENOENT')
    const hints = [
      ['hint', 'create', controlNode(1), 'use'],
      ['hint', 'create', controlNode(1), 'use'],
      ['hint', 'rmdir', controlNode(9), 'digest'],
    ]
    expect(calls.filter(([what]) => what === 'hint')).toEqual(hints)
    // ENOENT has the kernel end what is mounted below
    for (const path of ['store', 'store/ref', 'knows', 'knows/below']) {
      expect([path, await python('os.rmdir(at)', join(top, path))]).toEqual([path, 'EROFS'])
    }
    expect(await python('os.open(at + "/new", os.O_RDWR | os.O_CREAT)', join(top, 'knows'))).toBe('EROFS')
    expect(calls.filter(([what]) => what === 'hint')).toEqual(hints)
    for (const [script, errno] of [
      ['os.mkdir(at + "/digest/new")', 'EROFS'],
      ['os.symlink("x", at + "/digest/new")', 'EROFS'],
      ['os.unlink(at + "/digest/info")', 'EROFS'],
      ['os.rename(at + "/digest/info", at + "/digest/other")', 'EROFS'],
      ['os.link(at + "/digest/info", at + "/digest/other")', 'EROFS'],
      ['os.chmod(at + "/digest/info", 0)', 'EROFS'],
      ['os.truncate(at + "/digest/info", 0)', 'EROFS'],
      ['os.write(os.open(at + "/digest/info", os.O_WRONLY), b"x")', 'EROFS'],
      ['os.setxattr(at + "/digest/info", "user.x", b"x")', 'EROFS'],
      ['os.open(at + "/digest/diff/new", os.O_WRONLY | os.O_CREAT)', 'EROFS'],
      ['os.rmdir(at + "/digest/diff/dir")', 'EROFS'],
      ['os.utime(at + "/digest/diff/file")', 'EROFS'],
      ['os.getxattr(at + "/digest/info", "user.x")', 'ENODATA'],
      ['os.stat(at + "/digest/" + "n" * 256)', 'ENAMETOOLONG'],
    ] as const) {
      expect([script, await python(script, at)]).toEqual([script, errno])
    }
    expect(await python('print(open(at + "/digest/info").read())', at)).toBe('{}')
  })

  test('the mount has the read-ahead that was asked for, and can be given another', async () => {
    const { native, dir: at } = await mount()
    const table = await readFile('/proc/self/mountinfo', 'utf8')
    const device = table
      .split('\n')
      .find((line) => line.split(' ')[4] === at)
      ?.split(' ')[2]
    const now = () => readFile(`/sys/class/bdi/${device}/read_ahead_kb`, 'utf8').then(Number)
    expect(await now()).toBe(1024)
    expect(native.setReadAhead(at, 64)).toBe(true)
    expect(await now()).toBe(64)
    expect(native.setReadAhead(join(at, 'nothing'), 64)).toBe(false)
  })

  test('the mount can be idmapped, as for containers in user namespaces of their own', async (context) => {
    const { session, dir: at } = await mount()
    session.addFile(controlNode(1), 1n, 'file', { ...ATTRIBUTES, uid: 5, gid: 6 }, Buffer.from('x'))
    const idmapped = `
import ctypes, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
  result = libc.syscall(*arguments)
  if result < 0: raise OSError(ctypes.get_errno(), 'syscall')
  return result
holder = subprocess.Popen(['unshare', '-U', 'cat'], stdin=subprocess.PIPE)
while os.readlink(f'/proc/{holder.pid}/ns/user') == os.readlink('/proc/self/ns/user'): pass
for kind in ('uid', 'gid'): open(f'/proc/{holder.pid}/{kind}_map', 'w').write('0 100000 65536')
namespace = os.open(f'/proc/{holder.pid}/ns/user', os.O_RDONLY)
tree = call(428, -100, at.encode(), 1)  # open_tree(AT_FDCWD, at, OPEN_TREE_CLONE)
call(442, tree, b'', 0x1000, struct.pack('<4Q', 0x100000, 0, 0, namespace), 32)  # mount_setattr(AT_EMPTY_PATH, IDMAP)
found = os.stat('file', dir_fd=tree)
print(found.st_uid, found.st_gid)
holder.kill()`
    const [major = 0, minor = 0] = release().split('.').map(Number)
    if (major < 6 || (major === 6 && minor < 12)) context.skip('FUSE mounts can be idmapped since Linux 6.12')
    expect(await python(idmapped, at)).toBe('100005 100006')
  })

  test('arguments that break a bound are errors that name them', async () => {
    const { session } = await mount()
    const { native, addDevice } = mounted as NativeMount
    const big = controlNode(1)
    expect(() => session.addDirectory(5n, 1n, 'low', ATTRIBUTES, false)).toThrow(/node 5: .*top bit/)
    expect(() => session.addDirectory(1n << 64n, 1n, 'wide', ATTRIBUTES, false)).toThrow(/not a 64-bit node ID/)
    expect(() => session.addDirectory(-1n, 1n, 'negative', ATTRIBUTES, false)).toThrow(/not a 64-bit node ID/)
    expect(() => session.addLate(big, 1n, 'late', ATTRIBUTES, 0.5)).toThrow(/size: 0.5 is not a whole number/)
    expect(() => session.addFile(big, 1n, 'a/b', ATTRIBUTES, new Uint8Array(0))).toThrow(/not a file name/)
    expect(() => session.addDeviceFile(big, 1n, 'd', ATTRIBUTES, 99)).toThrow(/device 99: there is none/)
    expect(() => session.graft(1n, 'tree', 3)).toThrow(/slot 3: has no tree/)
    expect(() => session.remove(1n, 'nothing')).toThrow(/has no "nothing"/)
    expect(() => session.addTree(0, { imageFd: 0, devices: [], inodeBase: 0 })).toThrow(/slot: 0/)
    await expect(addDevice(new Uint8Array(10), [[5, 6, 0]])).rejects.toThrow(/ends after the device/)
    await writeFile(join(work.path, 'ready'), emptyReady(2))
    await writeFile(join(work.path, 'junk'), randomBytes(8192))
    const [ready, junk] = [await open(join(work.path, 'ready')), await open(join(work.path, 'junk'))]
    const spec = { deviceFd: junk.fd, readyFd: ready.fd, size: 10, places: packPlaces([]) }
    expect(() => session.addDevice({ ...spec, chunks: 3 })).toThrow(/made for 2 chunks, not 3/)
    expect(() => session.addDevice({ ...spec, readyFd: junk.fd, chunks: 2 })).toThrow(/not a ready file/)
    expect(() => session.addDevice({ ...spec, deviceFd: 9999, chunks: 2 })).toThrow(/deviceFd: Bad file descriptor/)
    expect(() => session.addTree(1, { imageFd: junk.fd, devices: [], inodeBase: 0 })).toThrow(/not EROFS/)
    const other = await open(join(work.path, 'ready'))
    expect([native.tryLock(ready.fd, true), native.tryLock(other.fd, false)]).toEqual([true, false])
    await ready.close()
    expect(native.tryLock(other.fd, true)).toBe(true)
    await other.close()
    await junk.close()
    await expect(native.isDead(work.path)).resolves.toBe(false)
  })
})

suite('the keeper', reason, () => {
  let work: WorkDirectory
  const children: ChildProcess[] = []

  beforeAll(async () => {
    work = await makeWorkDirectory()
  })

  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL')
    await work?.remove()
  })

  /** Starts an agent under the keeper and waits until it has mounted. */
  async function start(name: string, code = '0') {
    const at = join(work.path, name)
    await mkdir(at)
    const keeper = spawn(KEEPER, [process.execPath, AGENT, at, code], { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(keeper)
    const said: string[] = []
    createInterface({ input: keeper.stdout }).on('line', (line) => said.push(line))
    const exited = new Promise<number | null>((resolve) => keeper.once('close', (status) => resolve(status)))
    await expect.poll(() => said.length).toBe(1)
    const [, pid, kept] = (said[0] ?? '').split(' ')
    expect(kept).toBe('true')
    expect(await mountsBelow(at)).toEqual([at])
    return { at, keeper, said, exited, agent: Number(pid) }
  }

  test('it detaches the mount of an agent that was killed, and exits as the agent did', async () => {
    const { at, agent, exited } = await start('killed, with a space')
    process.kill(agent, 'SIGKILL')
    expect(await exited).toBe(128 + 9)
    expect(await mountsBelow(at)).toEqual([])
  })

  test('it passes a signal on once, and the exit code back', async () => {
    const { at, keeper, said, exited } = await start('ended', '7')
    keeper.kill('SIGTERM')
    expect(await exited).toBe(7)
    expect(said.slice(1)).toEqual(['SIGTERM'])
    // the agent left without unmounting
    expect(await mountsBelow(at)).toEqual([])
  })

  test('Ctrl-C, which the terminal sends to both, reaches the agent once', async () => {
    // waiting in the kernel, it takes each signal before another can merge with it
    const agent = `
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print('ready', flush=True)
count = 0
while signal.sigtimedwait([signal.SIGINT], 0.7): count += 1
print('interrupted', count, 'times')`
    const terminal = `
import pty, time
pid, fd = pty.fork()
if pid == 0: os.execv(at, [at, sys.executable, '-c', ${JSON.stringify(agent)}])
said = b''
while b'ready' not in said: said += os.read(fd, 4096)
for _ in range(3):
  os.write(fd, b'\x03')
  time.sleep(0.1)
try:
  while True: said += os.read(fd, 4096)
except OSError: pass
print(said.decode().strip().splitlines()[-1].replace('^C', ''))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`
    expect(await python(terminal, KEEPER)).toBe('interrupted 3 times')
  })

  test('an agent outlives its keeper, whose dead mount is then known as dead once the agent is gone', async () => {
    const { at, keeper, agent, exited } = await start('orphan')
    keeper.kill('SIGKILL')
    const { loadNative } = await import('../../src/mount/native.ts')
    const native = loadNative()
    expect(await native.isDead(at)).toBe(false)
    expect(await python('print(os.listdir(at))', at)).toBe('[]')
    process.kill(agent, 'SIGKILL')
    await exited // of the pipe, which the agent held too
    expect(await native.isDead(at)).toBe(true)
    await native.unmount(at, true)
    expect(await native.isDead(at)).toBe(false)
  })

  test('an agent that waits for itself when it is killed is ended, and another goes on', async () => {
    const at = join(work.path, 'stuck')
    await mkdir(at)
    const fixture = fileURLToPath(new URL('../fixtures/stuck-agent.ts', import.meta.url))
    const keeper = spawn(KEEPER, [process.execPath, fixture, at], { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(keeper)
    const said: string[] = []
    createInterface({ input: keeper.stdout }).on('line', (line) => said.push(line))
    const exited = new Promise<number | null>((resolve) => keeper.once('close', resolve))
    await expect.poll(() => said, { timeout: 60_000 }).toHaveLength(1)
    process.kill(Number(said[0]?.split(' ')[1]), 'SIGKILL')
    expect(await exited).toBe(5)
    expect(said.slice(1)).toEqual(['goes on'])
    expect(await mountsBelow(at)).toEqual([])
  })

  test('a command that does not exist is exit code 127', async () => {
    const { code, stderr } = await command(KEEPER, ['/no/such/command'])
    expect([code, stderr]).toEqual([127, expect.stringContaining('/no/such/command')])
  })

  test('what is listed and is no file system of ours stays', async () => {
    const at = join(work.path, 'bound')
    await mkdir(at)
    await succeed('mount', ['--bind', at, at])
    const tell = `printf 'mount ${at}\\0mount relative\\0unmount nothing\\0rubbish' >&"$LAZYLAYER_KEEPER"; exit 3`
    expect((await command(KEEPER, ['bash', '-c', tell])).code).toBe(3)
    expect(await mountsBelow(at)).toEqual([at])
  })
})
