// The kernel itself mounts what the writer writes, with a device file that is filled as the agent would fill it.
import { spawnSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { appendFile, mkdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { estargz } from '../../src/format/estargz/estargz.ts'
import { TOC_NAME } from '../../src/format/estargz/toc-member.ts'
import { LANDMARK, NO_LANDMARK } from '../../src/format/toc/landmarks.ts'
import { buildTree } from '../../src/tree/build.ts'
import { mergeImages } from '../../src/tree/merge.ts'
import type { Tree } from '../../src/tree/tree.ts'
import { fsck, NO_FSCK } from '../fixtures/fsck.ts'
import { compare, type Line, listTree, PYTHON } from '../fixtures/listing.ts'
import { tarListing } from '../fixtures/tar-listing.ts'
import { tocEntry } from '../format/arbitrary.ts'
import { parseEntries } from '../format/craft.ts'
import { decode } from '../format/listing.ts'
import { MemoryBlob, sourceOf } from '../format/memory-blob.ts'
import { expected, type SampleLayer, sampleLayers } from '../format/samples.ts'
import { unitOf } from '../format/unit.ts'
import { hostile, spec, specs } from '../tree/arbitrary.ts'
import { edges } from '../tree/edges.ts'
import { dir, fifo, file, fillDevice, layer, lines, link, type Spec, symlink } from '../tree/layer.ts'
import { succeed } from './engines/command.ts'
import { lacking, samples } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { ALL } from './sample.ts'

// mount(8) makes a loop device of each file, which a file-backed mount does without: mount(2) is called directly.
// arguments: type, source, directory, options. MS_RDONLY is 1.
const MOUNT = `
import ctypes, os, sys
kind, source, target, options = (each.encode() for each in sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(source, target, kind, 1, options) != 0:
    sys.exit(f'mount: {os.strerror(ctypes.get_errno())}')
`
const mount = (type: string, source: string, at: string, options: string) =>
  succeed(PYTHON, ['-c', MOUNT, type, source, at, options])

/** Why the kernel cannot be asked; undefined when it can. */
async function refusal(): Promise<string | undefined> {
  const absent = lacking(['umount', 'mount'])
  if (absent) return absent
  if (spawnSync(PYTHON, ['-V']).error) return 'not installed: python3'
  const probe = await makeWorkDirectory()
  try {
    await mountTree(probe, 'probe', buildTree(layer([])).image, [new Uint8Array(0)])
    return undefined
  } catch (error) {
    return `the kernel does not mount EROFS from files: ${String(error).replaceAll('\n', ' ')}`
  } finally {
    await probe.remove()
  }
}

/** @returns the mounted directory */
async function mountTree(work: WorkDirectory, name: string, image: Uint8Array, devices: Uint8Array[]): Promise<string> {
  const home = join(work.path, name)
  const at = join(home, 'mnt')
  await mkdir(at, { recursive: true })
  await writeFile(join(home, 'image'), image)
  const options = devices.map((_, i) => `device=${join(home, `device${i}`)}`)
  for (const [i, device] of devices.entries()) await writeFile(join(home, `device${i}`), device)
  await mount('erofs', join(home, 'image'), at, options.join(','))
  return at
}

async function build(work: WorkDirectory, name: string, specs: Spec[], first: number[] = []) {
  const source = layer(specs, first)
  const tree = buildTree(source)
  const device = fillDevice(tree, source.decoded)
  return { image: tree.image, device, at: await mountTree(work, name, tree.image, [device]) }
}

const text = (length: number) => randomBytes(length).toString('base64').slice(0, length)
const bytes = (...of: number[]) => Uint8Array.from(of)

const LOWER: Spec[] = [
  dir('', { mode: 0o40751, uid: 1, gid: 2 }),
  dir('etc', { xattrs: new Map([['user.note', Buffer.from('x')]]) }),
  file('etc/passwd', 'root:x:0:0', { mtime: -1_500_000_000n }),
  file('etc/empty'),
  file('bin/exact', text(8192), { mode: 0o104755 }),
  file('bin/large', text(300_001), {
    uid: 70_000,
    gid: 4_000_000_000,
    xattrs: new Map([
      ['security.capability', bytes(1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
      ['trusted.bin', bytes(0, 255, 10)],
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
  file('é/\u{1f600}', 'names'),
  file('gone/x', 'x'),
  file('hidden/old', 'old'),
  file('kept/old', 'old'),
  ...Array.from({ length: 600 }, (_, i) => file(`many/file-${i}-${'n'.repeat(i % 100)}`, `content ${i % 50}`)),
]

const UPPER: Spec[] = [
  dir('etc', { mode: 0o40700 }),
  file('etc/passwd', 'new'),
  file('.wh.gone', '', { uid: 5 }),
  file('hidden/.wh..wh..opq'),
  file('hidden/new', 'new'),
  file('kept/new', 'new'),
  file('many/.wh.file-7-nnnnnnn'),
  file('also', 'no longer linked'),
  link('kept/linked', 'hidden/new'),
]

const reason = await refusal()
const noKernelLog = await kernelLog().then(
  (log) => log.complaints().then(() => undefined),
  (error) => `the kernel's log cannot be read: ${error.message}`,
)

suite('the kernel mounts our images', reason, () => {
  let work: WorkDirectory

  beforeAll(async () => {
    work = await makeWorkDirectory()
  })

  afterAll(() => work?.remove())

  test('a layer shows every type, owner, time, name, xattr and byte', async () => {
    const { at } = await build(work, 'lower', LOWER, [3])
    expect(compare(lines(LOWER), await listTree(at))).toEqual([])
  })

  for (const [i, [title, specs]] of edges.entries()) {
    test(`what ends where a block ends: ${title}`, async () => {
      const { at } = await build(work, `edge${i}`, specs())
      expect(compare(lines(specs()), await listTree(at))).toEqual([])
    })
  }

  test('whiteouts and opaque directories are as overlayfs wants them', async () => {
    const { at } = await build(work, 'upper', UPPER)
    const found = await listTree(at)
    expect(compare(lines(UPPER), found)).toEqual([])
    expect(found.find(({ path }) => path === 'gone')).toMatchObject({ type: 'char', rdev: [0, 0] })
  })

  test("a merged image shows what the kernel's overlay of its layers shows", async () => {
    const one = await build(work, 'one', LOWER)
    const two = await build(work, 'two', UPPER)
    const overlay = join(work.path, 'overlay')
    await mkdir(overlay)
    await mount('overlay', 'overlay', overlay, `lowerdir=${two.at}:${one.at}`)
    const at = await mountTree(work, 'merged', mergeImages([one.image, two.image]), [one.device, two.device])
    const [wanted, found] = await Promise.all([listTree(overlay), listTree(at)])
    expect(found.length).toBeGreaterThan(620)
    expect(found.some(({ path }) => path === 'gone' || path === 'hidden/old')).toBe(false)
    expect(compare(wanted, found)).toEqual([])
  })

  test('20,000 files are built, checked and walked', async () => {
    const specs = Array.from({ length: 200 }, (_, d) => [
      dir(`d${d}`),
      ...Array.from({ length: 100 }, (_, i) => file(`d${d}/file-${i}.py`, `file ${d} ${i} `.repeat((i % 60) + 1))),
    ]).flat()
    const source = layer(specs)
    const started = performance.now()
    const tree = buildTree(source)
    const ms = performance.now() - started
    const device = fillDevice(tree, source.decoded)
    const at = await mountTree(work, 'big', tree.image, [device])
    expect(compare(lines(specs), await listTree(at))).toEqual([])
    // 20,201 inodes of 64 bytes, an index and a directory entry: 2.4 MB
    expect(tree.image.length).toBeLessThan(3_000_000)
    process.stderr.write(`20,201 entries: built in ${ms.toFixed(0)} ms, image ${tree.image.length} bytes\n`)
    if (NO_FSCK === undefined) await fsck(tree.image)
  })

  const sources: [string, () => (Tree | undefined)[]][] = [
    ['random layers', () => fc.sample(specs, IMAGES).map((of) => treeOf(() => layer(of)))],
    ['hostile entries', () => fc.sample(hostiles, IMAGES).map((of) => treeOf(() => layer(of)))],
    ['hostile tables of contents', () => fc.sample(tables, IMAGES).map((of) => treeOf(() => parseEntries(of)))],
  ]
  for (const [title, make] of sources) {
    const unable = NO_FSCK ?? noKernelLog
    test.skipIf(unable !== undefined)(
      `what comes of ${title} is mounted and walked without a word from fsck.erofs or the kernel${unable === undefined ? '' : ` (${unable})`}`,
      async () => {
        const trees = make().filter((each) => each !== undefined)
        expect(trees.length).toBeGreaterThan(IMAGES / 20)
        const log = await kernelLog()
        const all = join(work.path, title.replaceAll(' ', '-'))
        await mkdir(all)
        for (const [i, tree] of trees.entries()) {
          await fsck(tree.image)
          const at = join(all, `${i}`)
          await mkdir(at)
          await writeFile(join(all, `${i}.image`), tree.image)
          await writeFile(join(all, `${i}.device`), '')
          await truncate(join(all, `${i}.device`), tree.chunks.deviceSize)
          await mount('erofs', join(all, `${i}.image`), at, `device=${join(all, `${i}.device`)}`)
        }
        const files = Number(await succeed(PYTHON, ['-c', WALK, all]))
        expect(files).toBeGreaterThan(trees.length)
        expect(await log.complaints()).toEqual([])
        process.stderr.write(`${title}: ${trees.length} images of ${IMAGES}, ${files} files\n`)
      },
    )
  }

  test('an image whose superblock was changed is refused', async () => {
    const { image } = buildTree(layer([file('a', 'x')]))
    image[1024 + 48] = 1
    const log = noKernelLog === undefined ? await kernelLog() : undefined
    await expect(mountTree(work, 'bad', image, [new Uint8Array(4096)])).rejects.toThrow(/mount: /)
    // which the kernel complains about: so the tests above would see it if it did
    if (log !== undefined) expect(await log.complaints()).not.toEqual([])
  })

  const place = samples()
  if ('lacking' in place) test.skip(`sample images (${place.lacking})`, () => undefined)
  else
    describe('of sample images', () => {
      const OWN = [LANDMARK, NO_LANDMARK, TOC_NAME]
      const cases: [string, string, string, number, () => readonly Line[]][] = [
        ...['esgz', 'esgz-min'].flatMap((tag) =>
          [0, 1].map((n): [string, string, string, number, () => readonly Line[]] => [
            `${tag}, layer ${n + 1} is as expected`,
            'samples/oci',
            tag,
            n,
            () => expected(n) as unknown as Line[], // the same lines, read by the format's tests
          ]),
        ),
        ...[0, 1].map((n): [string, string, string, number, () => readonly Line[]] => [
          `py-esgz, layer ${n + 1} is as its tar`,
          'images/py-esgz',
          'py',
          n,
          () => tarListing((sampleLayers('images/py-esgz', 'py')[n] as SampleLayer).path) as unknown as Line[],
        ]),
      ]
      for (const [title, layout, tag, n, wanted] of cases) {
        test(title, async () => {
          const sample = sampleLayers(layout, tag)[n] as SampleLayer
          const { tree, device } = await buildSample(sample)
          const at = await mountTree(work, `${tag}${n}`, tree.image, [device])
          expect(compare(wanted(), await listTree(at), { extra: OWN })).toEqual([])
          if (NO_FSCK === undefined) await fsck(tree.image)
        })
      }
    })
})

/** Images of each kind that are mounted; most of what is hostile is refused before. */
const IMAGES = ALL ? 300 : 100
const hostiles = fc.array(fc.oneof({ weight: 1, arbitrary: hostile }, { weight: 3, arbitrary: spec }), { maxLength: 4 })
const tables = fc.array(tocEntry, { maxLength: 5 })

/** Undefined: it was refused, as it should be. */
function treeOf(make: () => Parameters<typeof buildTree>[0]): Tree | undefined {
  try {
    return buildTree(make())
  } catch (error) {
    if (error instanceof Failure) return undefined
    throw error
  }
}

/** Everything that a program can ask of each file; of contents the two ends. Prints how many there are. */
const WALK = `
import os, sys
seen = 0
for at, dirs, files in os.walk(os.fsencode(sys.argv[1])):
    for name in dirs + files:
        path = os.path.join(at, name)
        found = os.lstat(path)
        seen += 1
        for xattr in os.listxattr(path, follow_symlinks=False):
            try: os.getxattr(path, xattr, follow_symlinks=False)
            except OSError: pass
        if os.path.islink(path): os.readlink(path)
        elif os.path.isfile(path):
            with open(path, 'rb') as file:
                file.read(65536)
                if found.st_size > 4096: file.seek(-4096, 2); file.read()
print(seen)
`

/** What the kernel logs from now on at level warning or above, of EROFS or of faults in general. */
async function kernelLog(): Promise<{ complaints(): Promise<string[]> }> {
  const mark = `lazylayer test ${randomUUID()}`
  await appendFile('/dev/kmsg', `<6>${mark}\n`)
  return {
    async complaints() {
      const log = await succeed('dmesg', ['--decode'])
      const since = log.slice(log.lastIndexOf(mark)).split('\n').slice(1)
      return since.filter((line) => /^kern\s*:(warn|err|crit|alert|emerg)\s*:/.test(line) && COMPLAINT.test(line))
    },
  }
}

const COMPLAINT = /erofs|WARNING|BUG|Oops|Call Trace/

async function buildSample({ descriptor, bytes }: SampleLayer): Promise<{ tree: Tree; device: Uint8Array }> {
  const unit = unitOf(descriptor)
  const index = await estargz.readIndex(unit, sourceOf(new MemoryBlob(bytes)))
  const tree = buildTree(estargz.parseIndex(index, unit))
  const device = new Uint8Array(tree.chunks.deviceSize)
  for (let i = 0; i < tree.chunks.length; i++) {
    const chunk = tree.chunks.get(i)
    const decoded = decode(chunk, bytes)
    for (const { from, length, at } of chunk.places) device.set(decoded.subarray(from, from + length), at)
  }
  return { tree, device }
}
