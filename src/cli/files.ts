// lazylayer ls IMAGE [PATH], lazylayer cat IMAGE PATH: files of an image without a mount, through the same cache.

import { once } from 'node:events'
import { type Agent, openAgent } from '../agent/agent.ts'
import { printable } from '../agent/log.ts'
import type { Values } from '../agent/values.ts'
import { Failure } from '../errors.ts'
import { parseReference } from '../image/reference.ts'
import { openAllLayers } from '../layer/all-layers.ts'
import { openMerged } from '../layer/image.ts'
import type { OpenLayer } from '../layer/layer.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../tree/entry.ts'
import { type Attributes, ErofsReader } from '../tree/erofs-reader.ts'
import type { Content } from '../tree/inode.ts'
import type { Invocation } from './flags.ts'
import { cleaned, find } from './image-path.ts'
import { table } from './output.ts'
import { beforeWhole } from './whole-layers.ts'

export async function ls({ positionals, values }: Invocation): Promise<number> {
  const [name, path = ''] = positionals as [string, string?] // the command declares them
  return await withImage(name, values, async ({ reader }) => {
    const start = find(reader, path)
    const rows: string[][] = []
    list(reader, start, cleaned(path).join('/'), values.recursive === true, rows)
    process.stdout.write(table(['MODE', 'OWNER', 'SIZE', 'MODIFIED', 'NAME'], rows))
    return 0
  })
}

/** Read and written in pieces of this size, so that a large file needs little memory. */
const PIECE_BYTES = 4 << 20

export async function cat({ positionals, values }: Invocation): Promise<number> {
  const [name, path] = positionals as [string, string] // the command declares them
  return await withImage(name, values, async ({ reader, layers }) => {
    const node = find(reader, path)
    if ((node.mode & S_IFMT) !== S_IFREG) throw Failure.usage(`${path} is no regular file`)
    const content = reader.content(node.nid)
    for (let at = 0; at < node.size; at += PIECE_BYTES) {
      const bytes = await readPiece(content, layers, at, Math.min(at + PIECE_BYTES, node.size))
      if (!process.stdout.write(bytes)) await once(process.stdout, 'drain')
    }
    return 0
  })
}

async function readPiece(
  content: Content | null,
  layers: readonly OpenLayer[],
  start: number,
  end: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - start)
  if (content === null) return bytes // a hole
  const layer = layers[content.device - 1]
  if (layer === undefined)
    throw Failure.corrupt(`the merged image refers to layer ${content.device} of ${layers.length}`)
  const chunks = layer.chunks.chunksAt(content.offset + start, content.offset + end)
  await layer.slots.read(bytes, content.offset + start, chunks, (missing) => layer.filler.fill(missing, 'demand'))
  return bytes
}

interface OpenImage {
  reader: ErofsReader
  layers: readonly OpenLayer[]
}

async function withImage(name: string, values: Values, use: (image: OpenImage) => Promise<number>): Promise<number> {
  const reference = parseReference(name)
  const agent: Agent = await openAgent(values, reference, 'reading')
  try {
    const image = await agent.images.resolve(reference)
    const layers = await openAllLayers(image, agent.layers, beforeWhole(values))
    try {
      const merged = await openMerged(layers, agent.store, agent.builder)
      const bytes = await merged.image.readFile().finally(() => merged.image.close())
      return await use({ reader: new ErofsReader(bytes), layers: merged.layers })
    } finally {
      await Promise.all(layers.map((each) => each.close()))
    }
  } finally {
    await agent.close()
  }
}

function list(reader: ErofsReader, node: Attributes, path: string, deep: boolean, rows: string[][]): void {
  if ((node.mode & S_IFMT) !== S_IFDIR) {
    rows.push(row(reader, node, path))
    return
  }
  for (const { name, nid } of reader.readdir(node.nid)) {
    const child = reader.attributes(nid)
    rows.push(row(reader, child, deep ? [path, name].filter(Boolean).join('/') : name))
    if (deep && (child.mode & S_IFMT) === S_IFDIR)
      list(reader, child, [path, name].filter(Boolean).join('/'), true, rows)
  }
}

const LETTERS: Readonly<Record<number, string>> = {
  [S_IFREG]: '-',
  [S_IFDIR]: 'd',
  [S_IFLNK]: 'l',
  [S_IFCHR]: 'c',
  [S_IFBLK]: 'b',
  [S_IFIFO]: 'p',
  [S_IFSOCK]: 's',
}

function row(reader: ErofsReader, node: Attributes, name: string): string[] {
  const link = (node.mode & S_IFMT) === S_IFLNK ? ` -> ${printable(reader.readlink(node.nid))}` : ''
  return [
    modeText(node.mode),
    `${node.uid}:${node.gid}`,
    String(node.size),
    timeText(node.mtime),
    printable(name) + link,
  ]
}

/** Images may claim any time; a Date holds 285,616 years. */
function timeText(nanoseconds: bigint): string {
  const date = new Date(Number(nanoseconds / 1_000_000n))
  return Number.isNaN(date.getTime()) ? `@${nanoseconds / 1_000_000_000n}` : date.toISOString().slice(0, 19)
}

function modeText(mode: number): string {
  const bits = [...'rwxrwxrwx'].map((letter, i) => (mode & (1 << (8 - i)) ? letter : '-'))
  const special = (bit: number, at: number, set: string) => {
    if (mode & bit) bits[at] = bits[at] === 'x' ? set : set.toUpperCase()
  }
  special(0o4000, 2, 's')
  special(0o2000, 5, 's')
  special(0o1000, 8, 't')
  return (LETTERS[mode & S_IFMT] ?? '?') + bits.join('')
}
