// Holds the rules of the house: who may import whom, and what only one place may do.
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { circles, importsOf, violations } from './architecture.ts'

const SOURCE = fileURLToPath(new URL('../src/', import.meta.url))
const files = (await readdir(SOURCE, { recursive: true }))
  .filter((path) => /\.[jt]s$/.test(path) && !path.endsWith('.d.ts'))
  .sort()

describe('the source', () => {
  test('is there', () => {
    expect(files).toContain('errors.ts')
    expect(files).toContain('cli/lazylayer.js')
  })

  test('keeps the rules, every file of it', async () => {
    const broken = await Promise.all(
      files.map(async (path) =>
        violations(path, await readFile(`${SOURCE}${path}`, 'utf8')).map((violation) => `${path}: ${violation}`),
      ),
    )
    expect(broken.flat()).toEqual([])
  })

  test('has no circle of files', async () => {
    const read = files.map(async (path): Promise<[string, string[]]> => {
      return [path, importsOf(path, await readFile(`${SOURCE}${path}`, 'utf8'))]
    })
    expect(circles(new Map(await Promise.all(read)))).toEqual([])
  })
})

test('a circle of files is found, through types and workers, too', () => {
  const sources = {
    'tree/a.ts': `import type { B } from './b.ts'`,
    'tree/b.ts': `new Worker(new URL('./c.ts', import.meta.url))`,
    'tree/c.ts': `export { a } from './a.ts'`,
    'tree/d.ts': `import './a.ts'`,
  }
  const imports = Object.entries(sources).map(([path, source]): [string, string[]] => [path, importsOf(path, source)])
  expect(circles(new Map(imports))).toEqual(['tree/a.ts -> tree/b.ts -> tree/c.ts -> tree/a.ts'])
})

test('the page about the house names files and folders that there are', async () => {
  const page = await readFile(new URL('../ARCHITECTURE.md', import.meta.url), 'utf8')
  const rooms = [...new Set(files.flatMap((path) => path.match(/^[^/]+(?=\/)/) ?? []))]
  const named = [...page.matchAll(/`((?:[\w-]+\/)+[\w.-]*)`/g)].map(([, path]) => path as string)
  const inHouse = named.filter((path) => ['test', 'src', 'native', ...rooms].includes(path.split('/')[0] as string))
  const missing = inHouse.filter((path) => {
    const root = rooms.includes(path.split('/')[0] as string) ? '../src/' : '../'
    return !existsSync(new URL(`${root}${path}`, import.meta.url))
  })
  expect(missing).toEqual([])
  expect(inHouse.length).toBeGreaterThan(40)
})

test.each(['reliability.md', 'security.md'])('the tests that docs/%s names are there', async (name) => {
  const page = await readFile(new URL(`../docs/${name}`, import.meta.url), 'utf8')
  const named = [...page.matchAll(/`(test\/[\w./-]+)`/g)].map(([, path]) => path as string)
  expect(named.filter((path) => !existsSync(new URL(`../${path}`, import.meta.url)))).toEqual([])
  expect(named.length).toBeGreaterThan(10)
})

describe('a file breaks the rules when it', () => {
  const check = (title: string, path: string, source: string, expected: string[]) =>
    test(title, () => expect(violations(path, source)).toEqual(expected))

  check('imports upwards', 'tree/a.ts', `import { x } from '../mount/layer.ts'`, ['tree imports mount'])
  check('imports a neighbour', 'codec/a.ts', `import { x } from '../store/slots.ts'`, ['codec imports store'])
  check('imports only a type of a neighbour', 'fetch/a.ts', `import type { X } from '../registry/blob.ts'`, [
    'fetch imports registry',
  ])
  check('asks the network from a policy', 'policy/a.ts', `import { x } from '../registry/client.ts'`, [
    'policy imports registry',
  ])
  check('names a type in place', 'fetch/a.ts', `let x: import('../store/store.ts').Store`, ['fetch imports store'])
  check('imports late', 'image/a.ts', `const x = await import('../tree/entry.ts')`, ['image imports tree'])
  check('exports from above', 'mount/a.ts', `export { x } from '../stores/layer-store.ts'`, ['mount imports stores'])
  check('starts a worker of a neighbour', 'codec/a.ts', `new URL('../format/worker.ts', import.meta.url)`, [
    'codec imports format',
  ])
  check('imports beside, on the engines’ row', 'stores/a.ts', `import { x } from '../engines/roots.ts'`, [
    'stores imports engines',
  ])
  check('lies in no known folder', 'extra/a.ts', `import { x } from '../image/digest.ts'`, [
    'a folder that is not on the map: extra',
  ])
  check('leaves src/', 'cli/a.ts', `import { x } from '../../bench/run.ts'`, [
    'an import from outside src/: ../../bench/run.ts',
  ])
  check('omits a suffix', 'cli/a.ts', `import { x } from './flags'`, ['an import without its suffix: ./flags'])

  for (const module of ['undici', 'undici/types', 'node:http', 'node:https', 'node:http2', 'http']) {
    check(`imports ${module}`, 'stores/a.ts', `import x from '${module}'`, [`HTTP outside registry/: ${module}`])
  }
  check('calls fetch', 'cli/a.ts', `await fetch('https://x')`, ['HTTP outside registry/: fetch()'])
  check('loads the addon', 'cli/a.ts', `require('../../native/lazylayer.node')`, [
    'native code outside mount/: ../../native/lazylayer.node',
  ])
  check('imports fuse-native', 'stores/a.ts', `import x from 'fuse-native'`, [
    'native code outside mount/: fuse-native',
  ])

  const verified = ['as Verified outside codec/verify.ts']
  check('makes Verified', 'codec/pool.ts', 'const x = y as Verified', verified)
  check('makes Verified by a detour', 'store/a.ts', 'const x = y as unknown as (Verified | undefined)', verified)

  check('names a format in a string', 'mount/a.ts', `const x = 'containerd.io/snapshot/stargz/toc.digest'`, [
    `a format's name: containerd.io/snapshot/stargz/toc.digest`,
  ])
  check('names a format in a template', 'store/a.ts', 'const x = `a nydus`', [`a format's name: a nydus`])
  check('names a format in a name', 'stores/a.ts', 'const isZstdChunked = 1', [`a format's name: isZstdChunked`])
  check('imports a format by its name', 'mount/a.ts', `import { x } from '../format/rafs6.ts'`, [
    `a format's name: ../format/rafs6.ts`,
  ])

  check('has an error class of its own', 'registry/a.ts', 'class HttpError extends Error {}', ['a second error class'])
  check('refines the error class', 'registry/a.ts', 'export class Denied extends Failure {}', ['a second error class'])
  check('has a default export', 'cli/a.ts', 'export default 1', ['a default export'])
  check('is a barrel', 'format/index.ts', '', ['a barrel file'])
  check('passes everything on', 'format/a.ts', `export * from './toc.ts'`, ['a barrel: export *'])

  const check1 = (title: string, source: string, syntax: string) =>
    check(title, 'cli/a.ts', source, [`syntax that cannot be erased: ${syntax}`])
  check1('has an enum', 'enum E { a }', 'TSEnumDeclaration')
  check1('has a namespace', 'namespace N { export const a = 1 }', 'namespace')
  check1('has a parameter property', 'class C { constructor(private a: number) {} }', 'TSParameterProperty')
  check1('has import =', `import x = require('y')`, 'TSImportEqualsDeclaration')
  check1('has an angle assertion', 'const x = <number>y', 'TSTypeAssertion')
})

describe('a file keeps the rules when it', () => {
  const check = (title: string, path: string, source: string) =>
    test(title, () => expect(violations(path, source)).toEqual([]))

  check('imports downwards, over several rows', 'cli/a.ts', `import { x } from '../image/digest.ts'`)
  check('imports from its own folder', 'codec/a.ts', `import { x } from './verify.ts'`)
  check('imports the error class', 'image/a.ts', `import { Failure } from '../errors.ts'`)
  check('names a format in a comment', 'tree/a.ts', '// eStargz and nydus agree here\nexport const x = 1')
  check('names a format where they are known', 'format/a.ts', `const x = 'stargz'`)
  check('speaks HTTP in registry/', 'registry/a.ts', `import { request } from 'undici'`)
  check('serves HTTP in build/registry.ts', 'build/registry.ts', `import http2 from 'node:http2'`)
  check('calls a method named fetch', 'mount/a.ts', 'blob.fetch(1)')
  check('loads the addon in mount/', 'mount/a.ts', `require('../../native/lazylayer.node')`)
  check('makes Verified in verify.ts', 'codec/verify.ts', 'const x = y as Verified')
  check('takes Verified', 'codec/pool.ts', 'function f(x: Verified): void {}')
  check('declares a module', 'mount/a.ts', 'declare global { const x: number }')
})
