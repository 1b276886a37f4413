// The image that most tests of real engines run: lazy layers with a landmark each, of which a start needs little, made on the spot.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noise } from '../../bench/tree.ts'
import { type LayerSource, writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import { programEntries } from '../fixtures/programs.ts'
import { program } from './engines/needs.ts'

const PARTS = Array.from({ length: 100 }, (_, i) => String(i))
const partText = (part: string) => `part ${part}\n`.repeat(300)

/** What a shell's `cat /app/part$start*` prints. */
export function partsOf(start: string): string {
  const names = PARTS.filter((part) => part.startsWith(start)).sort()
  return names.map(partText).join('')
}

/** An image in an OCI layout of its own. */
export interface AppImage {
  layout: string
  /** In the layout; also what its repository is called. */
  tag: string
  manifest: Digest
  /** The config's digest without its algorithm: the ID of the image where its layers bear their DiffIDs. */
  id: string
  /** The lowest first. */
  layers: readonly { digest: Digest; size: number; toc: Digest }[]
  diffIds: readonly Digest[]
  /** Stored, of all layers. */
  size: number
  /** What it prints. */
  says: string
  /** A command line in it that prints the same. */
  line: string
}

/** The only blob of it that engines must fetch themselves. */
export function configUri({ tag, id }: AppImage): string {
  return `/v2/${tag}/blobs/sha256:${id}`
}

/** What it is called at a registry. */
export function referenceOf({ tag }: AppImage, { host }: { host: string }): string {
  return `${host}/${tag}:${tag}`
}

const PROGRAMS = ['sh', 'cat', 'id', 'sleep', 'stat', 'touch'] as const
export const APP_PROGRAMS = [...PROGRAMS, 'ldd'] as const
/** Of each layer but the last: what no start reads, and no compression makes small. */
const BALLAST_BYTES = 12 << 20
const SAYS = 'hello from the top\n'

/** Three layers: the upper ones replace, delete and hide what is below, and what it prints says so. */
export async function writeApp(layout: string): Promise<AppImage> {
  const programs = await named(PROGRAMS)
  const started = (await named(['sh', 'cat'])).flatMap(({ path, type }) => (type === 'file' ? [path] : []))
  const base: SourceEntry[] = [
    dir('bin'),
    ...programs,
    ...['dev', 'etc', 'proc', 'sys', 'app'].map(dir),
    { ...dir('tmp'), mode: 0o1777 },
    file('etc/passwd', 'root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n'),
    file('etc/group', 'root:x:0:\nshadow:x:42:\n'),
    { ...file('etc/shadow', 'root:*:1::::::\n'), gid: 42, mode: 0o640 },
    file('app/greeting', 'hello from the base\n'),
    file('app/gone', 'gone\n'),
    ballast('base'),
  ]
  const middle = [file('app/.wh.gone', ''), file('app/name', 'the middle\n'), dir('opaque'), ballast('middle')]
  const top: SourceEntry[] = [
    { ...file('app/hello', '#!/bin/sh\n[ ! -e /app/gone ] && cat /app/greeting\n'), mode: 0o755 },
    file('app/greeting', SAYS),
    ...PARTS.map((part) => file(`app/part${part}`, partText(part))),
  ]
  const layer = (entries: readonly SourceEntry[], prioritized: readonly string[]): LayerSource => ({
    kind: 'estargz',
    entries,
    options: { level: 1, prioritized },
  })
  await writeImage({
    dir: layout,
    tag: 'app',
    layers: [layer(once(base), started), layer(middle, ['app/name']), layer(top, ['app/hello', 'app/greeting'])],
    config: { Cmd: ['/app/hello'], Env: ['PATH=/bin'] },
  })
  return await readApp({ layout, tag: 'app', says: SAYS, line: '/app/hello' })
}

/** Programs may lie in a folder that the image has anyway. */
function once(entries: readonly SourceEntry[]): SourceEntry[] {
  return [...new Map(entries.map((each) => [each.path, each])).values()]
}

/** An image that is there. */
export async function readApp(of: Pick<AppImage, 'layout' | 'tag' | 'says' | 'line'>): Promise<AppImage> {
  const json = async (path: string) => JSON.parse(await readFile(join(of.layout, path), 'utf8')) // a fixture
  const blob = (digest: Digest) => json(`blobs/sha256/${hex(digest)}`)
  const { manifests } = await json('index.json')
  const { config, layers } = await blob(manifests[0].digest)
  return {
    ...of,
    manifest: manifests[0].digest,
    id: hex(config.digest),
    layers: layers.map(({ digest, size, annotations }: Layer) => ({ digest, size, toc: annotations[TOC_DIGEST] })),
    diffIds: (await blob(config.digest)).rootfs.diff_ids,
    size: layers.reduce((sum: number, { size }: Layer) => sum + size, 0),
  }
}

interface Layer {
  digest: Digest
  size: number
  annotations: Record<string, string>
}

/** Programs of this machine, each as `bin/NAME`. */
export async function named(names: readonly string[]): Promise<SourceEntry[]> {
  const places = new Map(names.map((name) => [program(name), `bin/${name}`]))
  const entries = await programEntries(...places.keys())
  return entries.map((each) => ({ ...each, path: places.get(each.path) ?? each.path }))
}

/** Programs of this machine, and the folders that a container of them needs. */
export async function withPrograms(names: readonly string[]): Promise<SourceEntry[]> {
  return once([...(await named(names)), ...['dev', 'proc', 'sys', 'etc'].map(dir)])
}

function ballast(name: string): SourceEntry {
  return { path: `ballast-${name}`, type: 'file', content: noise(name, BALLAST_BYTES) }
}

function dir(path: string): SourceEntry {
  return { path, type: 'dir' }
}

function file(path: string, text: string): SourceEntry {
  return { path, type: 'file', content: Buffer.from(text) }
}
