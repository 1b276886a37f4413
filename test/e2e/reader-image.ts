// An image whose program reads and compares the image's own files (test/fixtures/verifying-reader.py): Python of this machine with the few
// modules that this takes, so that the program itself comes from the image as well.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { programEntries } from '../fixtures/programs.ts'
import { Random } from '../soak/random.ts'
import { named } from './app-image.ts'
import { succeed } from './engines/command.ts'
import { READER } from './verifying-reader.ts'

export interface ReaderImage {
  layout: string
  tag: string
  /** A folder with the same files as `/data` in it. */
  plain: string
  /** Prints this, run as `/bin/cat`. */
  text: string
  /** What reads and compares, where `plain` is `/plain` in the container, and files to forget are in `/devices`. */
  command: readonly string[]
}

const FILES = 48
/** Every fourth is larger than a chunk. */
const sizeOf = (i: number) => (i % 4 === 0 ? 700_000 : 9_000)
const TEXT = 'what /bin/cat says\n'
/** Which modules a program has loaded, and where it is. */
const LOADED = `import json, os, random, sys, threading, time
files = {m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)}
print(json.dumps([os.path.realpath(sys.executable), sys.base_prefix, sorted(files)]))`

/** @param dir existing */
export async function writeReaderImage(dir: string): Promise<ReaderImage> {
  const said = await succeed('python3', ['-S', '-c', LOADED])
  const [python, prefix, modules] = JSON.parse(said) as [string, string, string[]] // as it prints it
  const programs = await programEntries(python, ...modules.filter((each) => each.endsWith('.so')))
  const sources = await Promise.all(
    modules.filter((each) => !each.endsWith('.so')).map(async (path) => file(path, await readFile(path))),
  )
  const plain = join(dir, 'plain')
  await mkdir(plain)
  const random = new Random(5)
  const contents: SourceEntry[] = []
  for (let i = 0; i < FILES; i++) {
    const content = Buffer.from(Array.from({ length: sizeOf(i) }, () => random.below(256)))
    await writeFile(join(plain, `f${i}`), content)
    contents.push(file(`data/f${i}`, content))
  }
  const base = [
    ...(await named(['cat', 'sleep'])),
    ...programs,
    ...sources,
    file('reader.py', await readFile(READER)),
    file('text', Buffer.from(TEXT)),
    ...['dev', 'etc', 'proc', 'sys', 'tmp', 'plain', 'devices'].map(folder),
    file('etc/passwd', Buffer.from('root:x:0:0:root:/:/bin/sh\n')),
    file('etc/group', Buffer.from('root:x:0:\n')),
  ]
  const layout = join(dir, 'layout')
  await writeImage({
    dir: layout,
    tag: 'reader',
    config: { Env: ['PATH=/bin', `PYTHONHOME=${prefix}`], Cmd: ['/bin/cat', '/text'] },
    layers: [withFolders(base), withFolders(contents)].map((entries) => ({ kind: 'estargz', entries })),
  })
  const command = [python, '-S', '-B', '/reader.py', '/data', '/plain', '/devices']
  return { layout, tag: 'reader', plain, text: TEXT, command }
}

/** Each once, and what it lies in before it. */
function withFolders(entries: readonly SourceEntry[]): SourceEntry[] {
  const all = new Map<string, SourceEntry>()
  const add = (path: string) => {
    if (path === '.' || path === '/' || all.has(path)) return
    add(dirname(path))
    all.set(path, folder(path))
  }
  for (const each of entries) {
    const path = each.path.replace(/^\//, '')
    add(dirname(path))
    all.set(path, { ...each, path })
  }
  return [...all.values()]
}

function folder(path: string): SourceEntry {
  return { path, type: 'dir' }
}

function file(path: string, content: Uint8Array): SourceEntry {
  return { path, type: 'file', content }
}
