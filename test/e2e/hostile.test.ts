// A caller that means harm, with root's rights: whatever it calls at either door is refused, and nothing breaks for the others.
import { constants } from 'node:fs'
import {
  access,
  chmod,
  chown,
  link,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rmdir,
  stat,
  symlink,
  truncate,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import type { Agent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { mountsBelow } from './engines/work-directory.ts'
import { codeOf, expectUnion, type Stage, setStage } from './stage.ts'

const TIMEOUT_MS = 300_000
const LOOKUPS = 10_000

suite('a hostile caller', lacking(['fusermount3', 'setfattr']), () => {
  let stage: Stage
  let agent: Agent
  let images: string
  /** The layers' directories in the additional layer store. */
  let layers: string[]

  beforeAll(async () => {
    stage = await setStage()
    images = join(stage.root, 'images')
    const reference = Buffer.from(stage.reference).toString('base64')
    layers = stage.image.layers.map(({ annotations }) =>
      join(stage.root, 'layers', reference, annotations[TOC_DIGEST] as string),
    )
  })
  beforeEach(async () => {
    agent = await stage.serve('cache')
    await stage.help(JSON.stringify({ [stage.reference]: {} }))
    for (const each of layers) {
      await stat(join(each, 'diff'))
      await readFile(join(each, 'info')) // waits for the mount
    }
  })
  afterEach(async () => {
    try {
      await expectBothDoors()
      expect(agent.log()).not.toMatch(/TypeError|RangeError|uncaught/i)
    } finally {
      await agent.stop()
    }
    expect(await agent.ended).toBe(0)
  })
  afterAll(() => stage?.close())

  const listed = async () => JSON.parse(await readFile(join(images, 'overlay-layers/layers.json'), 'utf8'))

  /** Both doors show the image's three layers as ever. */
  async function expectBothDoors(): Promise<void> {
    expect(await listed()).toHaveLength(3)
    const ids = (await listed()).map(({ id }: { id: string }) => join(images, 'overlay', id, 'diff'))
    for (const lower of [layers.map((each) => join(each, 'diff')), ids]) {
      const links = await mkdtemp(join(stage.work.path, 'links-')) // the layers' own names have colons, which end a name to overlayfs
      for (const [at, each] of lower.entries()) await symlink(each, join(links, String(at)))
      await using merged = await stage.overlay(['2', '1', '0'], links)
      await expectUnion(merged.path)
    }
  }

  test('may change nothing: neither in the trees nor around them', { timeout: TIMEOUT_MS }, async () => {
    const [{ id }] = await listed()
    const [layer] = layers as [string]
    const files = [
      join(images, 'overlay-layers/layers.json'),
      join(images, 'overlay-layers/layers.lock'),
      join(images, 'overlay', id, 'link'),
      join(images, 'overlay', id, 'diff/dir/file'),
      join(layer, 'info'),
      join(layer, 'blob'),
      join(layer, 'diff/dir/file'),
    ]
    const directories = [
      stage.root,
      join(stage.root, 'layers'),
      layer,
      join(layer, 'diff'),
      join(layer, 'diff/dir'),
      images,
      join(images, 'overlay'),
      join(images, 'overlay/l'),
      join(images, 'overlay-layers'),
      join(images, 'overlay', id),
    ]
    const refused = async (what: string, call: () => Promise<unknown>, codes = ['EROFS']) => {
      const code = await codeOf(call)
      expect(codes.includes(code) ? 'refused' : code, what).toBe('refused')
    }
    for (const path of files) {
      await refused(`truncate ${path}`, () => truncate(path, 0))
      await refused(`O_TRUNC ${path}`, () => open(path, constants.O_WRONLY | constants.O_TRUNC))
      await refused(`chmod ${path}`, () => chmod(path, 0o777))
      await refused(`chown ${path}`, () => chown(path, 1, 1))
      await refused(`utimes ${path}`, () => utimes(path, 1, 1))
      await refused(`unlink ${path}`, () => unlink(path))
      await refused(`rename ${path}`, () => rename(path, `${path}.old`))
      await refused(`setxattr ${path}`, () => setXattr(path))
    }
    // where engines tell of use, the answer is that nothing is there
    const absent = (path: string) => (path.includes('/layers/') ? ['EROFS', 'ENOENT'] : ['EROFS'])
    for (const path of directories) {
      await refused(`create in ${path}`, () => writeFile(join(path, 'new'), 'x'), absent(path))
      await refused(`create a socket in ${path}`, () => makeFifo(join(path, 'new')), absent(path))
      await refused(`mkdir in ${path}`, () => mkdir(join(path, 'new')))
      await refused(`symlink in ${path}`, () => symlink('target', join(path, 'new')))
      await refused(`link in ${path}`, () => link(files[0] as string, join(path, 'new')), ['EROFS', 'EXDEV'])
      await refused(`chmod ${path}`, () => chmod(path, 0o777))
      await refused(`setxattr ${path}`, () => setXattr(path))
      expect(await codeOf(() => access(join(path, 'new')))).toBe('ENOENT')
    }
    const mounted = (await mountsBelow(stage.root)).length
    const above = join(layer, '..')
    for (const path of [...directories.slice(1), above]) {
      const told = path.startsWith(layer) ? ['ENOENT', 'EROFS', 'EBUSY'] : ['EROFS', 'EBUSY']
      await refused(`rmdir ${path}`, () => rmdir(path), told)
    }
    // ENOENT would have the kernel end the mounts below; where an engine tells of use they come again
    await expect.poll(async () => (await mountsBelow(stage.root)).length).toBe(mounted)
  })

  test('may ask for any name', { timeout: TIMEOUT_MS }, async () => {
    const encoded = (text: string) => Buffer.from(text).toString('base64')
    const names = [
      ...[
        '../../../etc/passwd',
        '../',
        'a/b',
        'host/../x:y',
        `${stage.registry.host}/image:app\0`,
        '\n',
        'x'.repeat(180),
      ],
      ...[`${stage.registry.host}/../../v2/x:y`, `${stage.registry.host}/image:${'t'.repeat(150)}`, '[::1]:99999/x:y'],
    ].map(encoded)
    const raw = [
      'A'.repeat(255),
      '....',
      '.wh.x',
      'layers',
      'sha256:',
      `sha256:${'z'.repeat(64)}`,
      ' ',
      '\u{1f40b}'.repeat(60),
      '=',
      '%2e%2e',
    ]
    for (const name of [...names, ...raw]) {
      for (const below of ['', `/sha256:${'0'.repeat(64)}`, '/..%2f']) {
        const path = join(stage.root, 'layers', `${name}${below}`)
        const code = await codeOf(() => stat(join(path, 'diff')))
        expect([path, code]).toEqual([path, 'ENOENT'])
      }
    }
    expect(await codeOf(() => stat(join(stage.root, 'layers', 'A'.repeat(256))))).toBe('ENAMETOOLONG')
    const notText = Buffer.concat([Buffer.from(`${stage.root}/layers/`), Buffer.from([0xff, 0xfe, 0x2f, 0xc0])])
    expect(await codeOf(() => stat(notText))).toBe('ENOENT')
    // by way of a layer, up and out: the kernel's work, which ends where it began
    expect((await stat(join(layers[0] as string, 'diff/../..', '..'))).ino).toBe(
      (await stat(join(stage.root, 'layers'))).ino,
    )
    expect(await readdir(join(stage.root, 'images'))).toEqual(expect.arrayContaining(['overlay']))
  })

  test(`may ask ${LOOKUPS} names at once, which cost the registry next to nothing, and others are answered meanwhile`, {
    timeout: TIMEOUT_MS,
  }, async () => {
    const requests = stage.registry.seen.length
    const asking = succeed(process.execPath, ['-e', FLOOD, stage.root, stage.reference, layers[0] as string], {
      env: { ...process.env, UV_THREADPOOL_SIZE: '128' },
      timeoutMs: TIMEOUT_MS,
    })
    await expectBothDoors()
    const [counts] = [JSON.parse(await asking) as Record<string, number>]
    expect(counts).toEqual({ ENOENT: LOOKUPS })
    // of an image that is there, its manifest, now and then; never once a name
    expect(stage.registry.seen.length - requests).toBeLessThan(20)
    const { counters } = await agent.status()
    expect(counters.expired).toBe(0)
  })
})

/** Names of every kind, all at once: nonsense, unknown layers of a known image, and what is in no layer. */
const FLOOD = `
const { stat } = require('node:fs/promises')
const [root, reference, layer] = process.argv.slice(1)
const known = Buffer.from(reference).toString('base64')
const digest = (i) => 'sha256:' + i.toString(16).padStart(64, '0')
const path = [
  (i) => root + '/layers/nonsense' + i,
  (i) => root + '/layers/' + known + '/' + digest(i) + '/diff',
  (i) => root + '/images/overlay/' + digest(i).slice(7) + '/diff',
  (i) => layer + '/name' + i,
  (i) => layer + '/diff/none' + i,
]
const calls = Array.from({ length: ${LOOKUPS} }, (_, i) => stat(path[i % path.length](i)).then(() => 'found', (error) => error.code))
Promise.all(calls).then((codes) => {
  const counts = {}
  for (const code of codes) counts[code] = (counts[code] ?? 0) + 1
  console.log(JSON.stringify(counts))
})
`

/** @throws an error with the errno's name, as Node's own calls do */
async function setXattr(path: string): Promise<void> {
  await failsAs(await command('setfattr', ['-n', 'trusted.test', '-v', 'x', path]))
}

async function makeFifo(path: string): Promise<void> {
  await failsAs(await command('mkfifo', [path]))
}

async function failsAs({ code, stderr }: { code: number; stderr: string }): Promise<void> {
  if (code === 0) return
  const name = /Read-only file system/.test(stderr) ? 'EROFS' : /No such file/.test(stderr) ? 'ENOENT' : stderr
  throw Object.assign(new Error(stderr), { code: name })
}
