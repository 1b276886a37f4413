// `npm pack` runs it: src/ without its types in dist/, each command and thread in a few files. A start reads some hundred modules, and
// finding, reading and linking them took more than a third of it. What package.json depends on stays outside, as npm installs it.
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SOURCES = join(ROOT, 'src')
/** In a package, where Node strips no types; its dependencies are the checkout's. */
const INSTALLED = join(ROOT, '.cache/installed/node_modules/lazylayer')
/** The command of what `makeInstalled` makes. */
export const INSTALLED_COMMAND = join(INSTALLED, 'src/cli/lazylayer.js')
/** What runs as it is. */
const STARTS = ['cli/lazylayer.js', 'cli/agent-flags.js', 'cli/load.js']
/** What it looks for beside itself. */
const BESIDE = ['native', 'wasm', 'packaging', 'package.json']

const named = (path: string) => path.replace(/\.ts$/, '')

/** @param dist what is there goes */
async function bundle(dist: string): Promise<void> {
  // what is started by its name: the command line, and threads
  const started = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter(
    (path) => path === 'cli/main.ts' || /\bworker\.ts$/.test(path),
  )
  const { rolldown } = await import('rolldown') // whoever only wants the command's name is spared it
  await using made = await rolldown({
    input: Object.fromEntries(started.map((path) => [named(path), join(SOURCES, path)])),
    platform: 'node',
    external: (id) => !id.startsWith('.') && !id.startsWith('/'),
    plugins: [
      {
        name: 'own-place',
        /** A module looks for files beside itself, wherever its code ends up: in a folder of dist/, as all of them. load.js says where. */
        transform(code, id) {
          if (!code.includes('import.meta.url')) return null
          const place = JSON.stringify(`../${named(relative(SOURCES, id))}.js`)
          return code.replaceAll('import.meta.url', `new URL(${place}, __url).href`)
        },
      },
    ],
  })
  rmSync(dist, { recursive: true, force: true })
  const { output } = await made.write({
    dir: dist,
    format: 'cjs', // which can be compiled with what was compiled earlier: src/cli/load.js
    exports: 'named',
    dynamicImportInCjs: false, // for an import() of what it loads itself, load.js would have Node warn
    entryFileNames: '[name].cjs',
    chunkFileNames: 'chunks/[name].cjs',
  })
  const build = createHash('sha256')
  for (const each of output) {
    if (each.type !== 'chunk') throw new Error(`${each.fileName} is no code`)
    build.update(each.code)
    if (each.isEntry) writeFileSync(join(dist, `${each.name}.js`), entryText(each.name, each.exports))
  }
  writeFileSync(join(dist, 'build'), build.digest('hex'))
}

/** What Node imports of an entry in a folder of dist/. */
function entryText(name: string, exports: readonly string[]): string {
  return `import { load } from '../../src/cli/load.js'\nexport const { ${exports.join(', ')} } = load('${name}')\n`
}

/** Makes what an installed package is of the checkout as it is now, for those that test and measure it. What runs from there goes on. */
export async function makeInstalled(): Promise<void> {
  const [next, old] = [`${INSTALLED}.${process.pid}`, `${INSTALLED}.${process.pid}.old`]
  rmSync(next, { recursive: true, force: true })
  mkdirSync(join(next, 'src/cli'), { recursive: true })
  for (const name of STARTS) copyFileSync(join(SOURCES, name), join(next, 'src', name))
  for (const name of BESIDE) symlinkSync(join(ROOT, name), join(next, name))
  await bundle(join(next, 'dist'))
  try {
    renameSync(INSTALLED, old)
  } catch {
    // the first
  }
  renameSync(next, INSTALLED)
  if (existsSync(join(old, '.cache'))) renameSync(join(old, '.cache'), join(INSTALLED, '.cache'))
  rmSync(old, { recursive: true, force: true })
}

if (import.meta.main) await bundle(join(ROOT, 'dist'))
