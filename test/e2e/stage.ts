// A small image at a fake registry and a store over it, for tests that act as engines do, call by call.
import { mkdir, mkdtemp, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'vitest'
import { type WrittenImage, writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { type Agent, HELPER, startAgent } from './agent.ts'
import { command, type Outcome, succeed } from './engines/command.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

/** Three lazy layers: the upper ones delete, hide and replace what is below. */
const LAYERS: readonly (readonly SourceEntry[])[] = [
  [
    { path: 'dir', type: 'dir' },
    file('dir/file', 'base\n'),
    file('gone', 'base\n'),
    { path: 'opaque', type: 'dir' },
    file('opaque/old', 'base\n'),
    { ...file('program', 'base\n'), mode: 0o4755 },
  ],
  [
    file('.wh.gone', ''),
    { path: 'opaque', type: 'dir' },
    file('opaque/.wh..wh..opq', ''),
    file('opaque/new', 'middle\n'),
  ],
  [{ path: 'dir', type: 'dir' }, file('dir/file', 'top\n')],
]

export interface Stage {
  work: WorkDirectory
  registry: LayoutRegistry
  /** Of the store. */
  root: string
  /** What engines call the image. */
  reference: string
  image: WrittenImage
  /** Of the registry's images. */
  layout: string
  /** Adds an image of one layer, which has the tag in its file `name`. */
  add(tag: string): Promise<{ reference: string; image: WrittenImage }>
  /** An agent over `root` with a cache of that name, which goes on; stopped by `close` if not before. */
  serve(cache: string, ...more: string[]): Promise<Agent>
  /** Runs the auth helper as engines do: no arguments, `input` on its standard input. */
  help(input: string): Promise<Outcome>
  /** Mounts these directories, the lowest last, as an engine does: an overlay with options of its own, relative to its directory. */
  overlay(lower: readonly string[], cwd: string): Promise<Overlay>
  close(): Promise<void>
}

export interface Overlay extends AsyncDisposable {
  path: string
}

/** Root only. */
export async function setStage(): Promise<Stage> {
  const work = await makeWorkDirectory()
  const layout = join(work.path, 'layout')
  const layers = LAYERS.map((entries) => ({ kind: 'estargz' as const, entries }))
  const image = await writeImage({ dir: layout, tag: 'app', layers })
  const registry = await serveLayout(layout, work.path)
  const root = join(work.path, 'store')
  let agent: Agent | undefined
  return {
    work,
    registry,
    root,
    reference: `${registry.host}/image:app`,
    image,
    layout,
    async add(tag) {
      const layer = { kind: 'estargz' as const, entries: [file('name', tag)] }
      return {
        reference: `${registry.host}/image:${tag}`,
        image: await writeImage({ dir: layout, tag, layers: [layer] }),
      }
    },
    async serve(cache, ...more) {
      const flags = ['--cache', join(work.path, cache), '--cert-dir', registry.certDir, ...more]
      agent = await startAgent(work.path, root, ['serve', root, ...flags])
      return agent
    },
    async help(input) {
      const path = join(await mkdtemp(join(work.path, 'helped-')), 'input')
      await writeFile(path, input)
      return await command('sh', ['-c', `exec ${HELPER} <${path}`], { env: { LAZYLAYER_ROOT: root } })
    },
    async overlay(lower, cwd) {
      const own = await mkdtemp(join(work.path, 'container-'))
      const path = join(own, 'merged')
      for (const each of ['upper', 'work', 'merged']) await mkdir(join(own, each))
      const options = `lowerdir=${lower.join(':')},upperdir=${own}/upper,workdir=${own}/work`
      await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, path], { cwd })
      return {
        path,
        async [Symbol.asyncDispose]() {
          await succeed('umount', [path])
        },
      }
    },
    async close() {
      await agent?.stop()
      await registry.close()
      await work.remove()
    },
  }
}

/** What programs find in the image's layers, one on the other. */
export async function expectUnion(path: string): Promise<void> {
  expect(await readFile(join(path, 'dir/file'), 'utf8')).toBe('top\n')
  expect(await codeOf(() => stat(join(path, 'gone')))).toBe('ENOENT')
  expect(await readdir(join(path, 'opaque'))).toEqual(['new'])
  expect((await stat(join(path, 'program'))).mode & 0o7777).toBe(0o4755)
  expect(await readFile(join(path, 'program'), 'utf8')).toBe('base\n')
}

/** The errno's name with which it fails; '' when it does not. */
export async function codeOf(call: () => Promise<unknown>): Promise<string> {
  try {
    await call()
    return ''
  } catch (error) {
    if (error instanceof Error && 'code' in error) return String(error.code)
    throw error
  }
}

function file(path: string, text: string): SourceEntry {
  return { path, type: 'file', content: Buffer.from(text) }
}
