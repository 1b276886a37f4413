// What `npm pack` puts into the package: all that its programs look for beside themselves, and all that its pages lead to.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, normalize, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TIMEOUT_MS = 60_000

/** `import.meta.url` or a loader made from it, and what is looked for from there. */
const BESIDE = /(?:new URL|require)\(\s*'(\.[^']*)'/g
/** The same from the package's own folder. */
const FROM_ROOT = /join\(PACKAGE, '([^']*)'\)/g
/** A worker has one name where types are stripped and another where they were. */
const EITHER = /import\.meta\.url\.endsWith\('\.ts'\)\s*\?\s*'([^']*)'\s*:\s*'([^']*)'/g
/** `[text](page.md#part)`, of our own pages. */
const LINK = /\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/g

/** Paths in the package, without what is compiled into dist/. */
const packed = pack()

async function pack(): Promise<Set<string>> {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts']
  const { stdout } = await promisify(execFile)('npm', args, { cwd: ROOT, maxBuffer: 16 << 20 })
  const said = JSON.parse(stdout) as { files: { path: string }[] }[] // npm's own
  return new Set(said.flatMap(({ files }) => files.map(({ path }) => path)).filter((path) => !path.startsWith('dist/')))
}

const has = (files: ReadonlySet<string>, path: string) =>
  files.has(path) || [...files].some((each) => each.startsWith(path.endsWith('/') ? path : `${path}/`))

test('it has what compiled files look for beside themselves', { timeout: TIMEOUT_MS }, async () => {
  const files = await packed
  let looked = 0
  for (const name of await readdir(join(ROOT, 'src'), { recursive: true })) {
    if (!name.endsWith('.ts') || name === 'cli/demo.ts') continue // the demo is a checkout's
    const text = await readFile(join(ROOT, 'src', name), 'utf8')
    const found = (target: string, of: RegExpExecArray | RegExpMatchArray) => {
      looked++
      const path = relative(ROOT, normalize(join(ROOT, 'dist', dirname(name), target)))
      const source = path.replace(/^dist\/(.*)\.js$/, 'src/$1.ts')
      const compiled = path.startsWith('dist/') && existsSync(join(ROOT, source))
      // built by this machine, or not: what is packed is another test's
      const native = path === 'native/lazylayer.node'
      expect(compiled || native || path === '' || has(files, path), `${name}: ${of[0]} is ${path}`).toBe(true)
    }
    for (const match of text.matchAll(BESIDE)) found(match[1] as string, match)
    for (const [, path] of text.matchAll(FROM_ROOT)) expect(has(files, path as string), `${name}: ${path}`).toBe(true)
    for (const match of text.matchAll(EITHER)) found(match[2] as string, match)
  }
  expect(looked).toBeGreaterThanOrEqual(8)
})

test('its programs are there, its licence, and those of what it links in', { timeout: TIMEOUT_MS }, async () => {
  const files = await packed
  const { bin } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { bin: Record<string, string> }
  expect(Object.keys(bin)).toEqual(['lazylayer', 'lazylayer-auth-helper'])
  // those of native/ are built by this machine, or not
  const scripts = Object.values(bin).filter((path) => !path.startsWith('native/') || existsSync(join(ROOT, path)))
  for (const path of [...scripts, 'LICENSE', 'wasm/NOTICES', 'packaging/lazylayer.service']) {
    expect(has(files, path), path).toBe(true)
  }
})

test('pages lead to pages that are in it', { timeout: TIMEOUT_MS }, async () => {
  const files = await packed
  const pages = [...files].filter((path) => path.endsWith('.md'))
  expect(pages).toEqual(
    expect.arrayContaining(['README.md', 'ARCHITECTURE.md', 'docs/podman.md', 'docs/operations.md']),
  )
  for (const page of pages) {
    const text = await readFile(join(ROOT, page), 'utf8')
    for (const [link, target] of text.matchAll(LINK)) {
      const path = normalize(join(dirname(page), target as string))
      expect(has(files, path), `${page}: ${link}`).toBe(true)
    }
  }
})

test('what the documentation calls a file of packaging/ is there', async () => {
  for (const page of ['README.md', 'docs/operations.md', 'docs/crio.md', 'docs/kubernetes.md', 'docs/metrics.md']) {
    const text = await readFile(join(ROOT, page), 'utf8')
    for (const [path] of text.matchAll(/packaging\/[\w./-]+\w/g)) {
      expect(existsSync(join(ROOT, path)), `${page}: ${path}`).toBe(true)
    }
  }
})
