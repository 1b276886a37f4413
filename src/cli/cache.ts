// lazylayer cache ls|du|prune|verify|pin|unpin: what the cache holds, beside agents that use it.
//
//   ls              a line a layer: how much of it is there, when it was used, by which images
//   du              bytes on disk by what they are for
//   prune           contents that nobody uses go, the least recently used first, down to a size if one is given
//   verify          all contents are hashed; what is wrong goes, and is fetched again
//   pin, unpin      an image keeps what the cache has of it
import { statfs } from 'node:fs/promises'
import { printable } from '../agent/log.ts'
import { text } from '../agent/values.ts'
import { Failure } from '../errors.ts'
import { hostPlatform, parsePlatform } from '../image/manifest.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import { openNative } from '../mount/no-addon.ts'
import { usageOf } from '../store/contents.ts'
import { parseAmount } from '../store/room-limits.ts'
import type { Store } from '../store/store.ts'
import { pinnedLayers } from './cache/image.ts'
import { listTrees } from './cache/list.ts'
import { openCache } from './cache/open.ts'
import type { Invocation } from './flags.ts'
import { count, printJson, sizeText, table } from './output.ts'

type Values = Invocation['values']
type Run = (store: Store, values: Values, image: string | undefined) => Promise<number>

const OPERATIONS: Readonly<Record<string, Run>> = { ls, du, prune, verify, pin, unpin }
const OF_IMAGES = new Set(['pin', 'unpin'])

export async function cache({ positionals, values }: Invocation): Promise<number> {
  const [name, image] = positionals as [string, string | undefined] // the command declares them
  const operation = Object.hasOwn(OPERATIONS, name) ? OPERATIONS[name] : undefined
  if (operation === undefined) {
    throw Failure.usage(`cache ${name} is not known`, { fix: `Use one of ${Object.keys(OPERATIONS).join(', ')}.` })
  }
  if (OF_IMAGES.has(name) !== (image !== undefined)) {
    throw Failure.usage(OF_IMAGES.has(name) ? `cache ${name} takes an image` : `cache ${name} takes no image`)
  }
  const store = await openCache(values)
  try {
    return await operation(store, values, image)
  } finally {
    await store.close()
  }
}

async function ls(store: Store, values: Values): Promise<number> {
  const trees = await listTrees(store, openNative())
  if (text(values, 'format') === 'json') {
    printJson(trees)
    return 0
  }
  const rows = trees.map(({ tree, cached, size, usedAt, inUse, pinned, images }) => [
    tree.slice('sha256:'.length, 'sha256:'.length + 12),
    sizeText(cached),
    sizeText(size),
    usedAt === 0 ? 'never' : new Date(usedAt).toISOString().slice(0, 16).replace('T', ' '),
    [inUse ? 'in use' : '', pinned ? 'pinned' : ''].filter(Boolean).join(', ') || '-',
    printable(images.join(', ')) || '-',
  ])
  process.stdout.write(table(['TREE', 'CACHED', 'OF', 'USED (UTC)', 'STATE', 'IMAGES'], rows))
  return 0
}

async function du({ dir }: Store, values: Values): Promise<number> {
  const usage = await usageOf(dir)
  const total = Object.values(usage).reduce((sum, each) => sum + each, 0)
  const { bavail, bsize } = await statfs(dir)
  const free = bavail * bsize
  if (text(values, 'format') === 'json') {
    printJson({ dir, ...usage, total, free })
    return 0
  }
  const rows = Object.entries({ ...usage, total, free }).map(([what, bytes]) => [what, sizeText(bytes)])
  process.stdout.write(`${dir}\n\n${table(['WHAT', 'BYTES'], rows)}`)
  return 0
}

async function prune(store: Store, values: Values): Promise<number> {
  const to = text(values, 'to')
  const amount = to === undefined ? undefined : parseAmount(to, '--to')
  const { bytes } = await store.size()
  const kept = amount === undefined ? 0 : 'bytes' in amount ? amount.bytes : (bytes * amount.percent) / 100
  const freed = await store.room.makeFree(bytes - kept)
  process.stdout.write(`${sizeText(freed)} freed; what is in use or pinned stays\n`)
  return 0
}

async function verify(store: Store): Promise<number> {
  const { verifyTrees } = await import('./cache/verify.ts') // with all that decodes: nothing for the others
  const { checked, damaged, unknown } = await verifyTrees(store, (line) => process.stdout.write(`${line}\n`))
  const more = unknown === 0 ? '' : `; ${unknown} can only be told when they are fetched again`
  process.stdout.write(`${count(checked, 'chunk')} checked, ${damaged} damaged${more}\n`)
  return damaged === 0 ? 0 : 1
}

async function pin(store: Store, values: Values, image: string | undefined): Promise<number> {
  const reference = parseReference(image as string) // it was checked
  const platform = text(values, 'platform')
  const wanted = platform === undefined ? hostPlatform() : parsePlatform(platform)
  const { layers, trees } = await pinnedLayers(store, reference, wanted)
  await store.pins.add({ reference: referenceText(reference), trees })
  process.stdout.write(`${referenceText(reference)}: ${trees.length} of ${count(layers, 'layer')} pinned\n`)
  return 0
}

async function unpin(store: Store, _: Values, image: string | undefined): Promise<number> {
  const reference = referenceText(parseReference(image as string)) // it was checked
  if (!(await store.pins.remove(reference))) throw Failure.missing(`${reference} is not pinned`)
  return 0
}
