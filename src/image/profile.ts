// A profile: which files a start of an image reads, in the order in which it first reads them. It orders fetching, and nothing else: whoever
// makes a false one makes others fetch what nobody wants, and the limits here say how much of that.
//
//   {"version": 1,
//    "layers": ["sha256:…"],                  blobs that show the files, of the image that was learned from
//    "folders": ["usr/bin"],                  each once; "" is the root
//    "files": [[0, 0, "env"],                 layer, folder, name: all of the file
//              [0, 0, "node", 0, 4194304]],   … or these bytes of it: from, up to, from, up to …
//    "stored": [[0, 512, 70000]]}             layer, and where in it the first of these bytes are stored; may be missing
//
// Paths, not chunks: so it holds as well for a newer version of the image, whose chunks are others. Where they are stored is true of this
// version alone: of it they can be asked for before its index is here.
import { Failure } from '../errors.ts'
import type { Range } from './blob.ts'
import { type Digest, parseDigest } from './digest.ts'

export interface ProfileFile {
  /** The blob that shows it. */
  readonly layer: Digest
  /** From the root, without a slash in front. */
  readonly path: string
  /** Bytes of the file, ascending and disjoint; none: all of it. */
  readonly ranges: readonly Range[]
}

/** Where in a blob what is wanted first of it is stored. */
export interface StoredRanges {
  readonly layer: Digest
  /** Ascending and disjoint. */
  readonly ranges: readonly Range[]
}

export interface Profile {
  /** In the order in which they are wanted. */
  readonly files: readonly ProfileFile[]
  /** Each blob once, of those that show files; of the image that was learned from. */
  readonly stored: readonly StoredRanges[]
}

/** Of artifacts, and of the documents in them. */
export const PROFILE_TYPE = 'application/vnd.lazylayer.profile.v1+json'

/** Of the document: some 2,000 files, and a start of less than a second on a slow link to fetch. */
export const PROFILE_MAX_BYTES = 64 << 10
const VERSION = 1
/** More layers no image has (image/manifest.ts). */
const LAYERS_MAX = 1024
/** What is read of one file in more places than that is called one piece. */
export const FILE_RANGES_MAX = 16
/** What is stored in more places is fetched when the index says where. */
export const STORED_RANGES_MAX = 512
/** Of the document; files are worth more. */
const STORED_MAX_BYTES = 16 << 10
/** PATH_MAX. */
const PATH_MAX_BYTES = 4096

const utf8 = new TextEncoder()

/**
 * As a document; what no longer fits is left out from the end.
 * @returns undefined: there is nothing to say
 */
export function encodeProfile({ files: wanted, stored }: Profile): Uint8Array | undefined {
  const layers = new Map<string, number>()
  const folders = new Map<string, number>()
  const files: (string | number)[][] = []
  // as JSON.stringify writes it, with a comma behind each
  const cost = (value: unknown) => utf8.encode(JSON.stringify(value)).length + 1
  const places = stored.map(({ layer, ranges }) => ({ layer, numbers: numbersOf(ranges) }))
  let placed = places.reduce((sum, { numbers }) => sum + cost([LAYERS_MAX, ...numbers]), 0)
  while (placed > STORED_MAX_BYTES) placed -= cost([LAYERS_MAX, ...(places.pop()?.numbers ?? [])])
  let bytes = utf8.encode(documentOf([], [], [], [])).length + placed
  for (const { layer, path, ranges } of wanted) {
    const slash = path.lastIndexOf('/')
    const folder = path.slice(0, Math.max(0, slash))
    const layerAt = layers.get(layer) ?? layers.size
    const folderAt = folders.get(folder) ?? folders.size
    const file = [layerAt, folderAt, path.slice(slash + 1), ...numbersOf(ranges)]
    bytes += cost(file)
    if (layerAt === layers.size) bytes += cost(layer)
    if (folderAt === folders.size) bytes += cost(folder)
    if (bytes > PROFILE_MAX_BYTES) break
    layers.set(layer, layerAt)
    folders.set(folder, folderAt)
    files.push(file)
  }
  if (files.length === 0) return undefined
  const shown = places.flatMap(({ layer, numbers }) => {
    const at = layers.get(layer)
    return at === undefined ? [] : [[at, ...numbers]]
  })
  return utf8.encode(documentOf([...layers.keys()], [...folders.keys()], files, shown))
}

function numbersOf(ranges: readonly Range[]): number[] {
  return ranges.flatMap(({ start, end }) => [start, end])
}

function documentOf(
  layers: readonly string[],
  folders: readonly string[],
  files: readonly unknown[],
  stored: readonly unknown[],
): string {
  return `${JSON.stringify({ version: VERSION, layers, folders, files, stored })}\n`
}

/**
 * What `encodeProfile` wrote, and nothing else: unknown keys are refused, as is a file that stands twice.
 * @param what names it in messages
 * @throws Failure corrupt, limit, unsupported: of another version
 */
export function parseProfile(bytes: Uint8Array, what: string): Profile {
  if (bytes.length > PROFILE_MAX_BYTES) throw Failure.limit(`${what} has more than ${PROFILE_MAX_BYTES} bytes`)
  let raw: unknown
  try {
    raw = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
  } catch (cause) {
    throw Failure.corrupt(`${what} is no JSON`, { cause })
  }
  if (!isObject(raw)) throw Failure.corrupt(`${what} is no JSON object`)
  if (raw.version !== VERSION) throw Failure.unsupported(`${what} is of another version`)
  const other = Object.keys(raw).find((key) => !['version', 'layers', 'folders', 'files', 'stored'].includes(key))
  if (other !== undefined) throw Failure.corrupt(`${what} has the key ${JSON.stringify(other)}`)
  const layers = list(raw.layers, `${what}: layers`).map((each) => parseDigest(each, what))
  if (layers.length > LAYERS_MAX) throw Failure.limit(`${what} names more than ${LAYERS_MAX} layers`)
  const folders = list(raw.folders, `${what}: folders`).map((each) => folderOf(each, what))
  const seen = new Set<string>()
  const files = list(raw.files, `${what}: files`).map((each, i) => {
    const file = fileOf(each, layers, folders, `${what}: file ${i}`)
    const key = `${file.layer} ${file.path}`
    if (seen.has(key)) throw Failure.corrupt(`${what}: ${JSON.stringify(file.path)} stands twice`)
    seen.add(key)
    return file
  })
  const stored = raw.stored === undefined ? [] : list(raw.stored, `${what}: stored`)
  return { files, stored: stored.map((each, i) => storedOf(each, layers, seen, `${what}: stored ${i}`)) }
}

/** @param seen what must not come once more */
function storedOf(raw: unknown, layers: readonly Digest[], seen: Set<string>, what: string): StoredRanges {
  const [layerAt, ...numbers] = list(raw, what)
  const layer = layers[indexOf(layerAt, what)]
  if (layer === undefined || seen.has(layer))
    throw Failure.corrupt(`${what} is of no layer, or of one that stands twice`)
  seen.add(layer)
  return { layer, ranges: rangesOf(numbers, STORED_RANGES_MAX, what) }
}

function fileOf(raw: unknown, layers: readonly Digest[], folders: readonly string[], what: string): ProfileFile {
  const [layerAt, folderAt, name, ...numbers] = list(raw, what)
  const layer = layers[indexOf(layerAt, what)]
  const folder = folders[indexOf(folderAt, what)]
  if (layer === undefined || folder === undefined) throw Failure.corrupt(`${what} is in no layer or folder of these`)
  if (typeof name !== 'string' || !isName(name)) throw Failure.corrupt(`${what} has no name`)
  const path = folder === '' ? name : `${folder}/${name}`
  if (utf8.encode(path).length >= PATH_MAX_BYTES) throw Failure.limit(`${what} has a path that is too long`)
  return { layer, path, ranges: rangesOf(numbers, FILE_RANGES_MAX, what) }
}

function rangesOf(numbers: readonly unknown[], max: number, what: string): Range[] {
  if (numbers.length > 2 * max) throw Failure.limit(`${what} has more than ${max} ranges`)
  if (numbers.length % 2 !== 0) throw Failure.corrupt(`${what} has half a range`)
  const ranges: Range[] = []
  let behind = -1
  for (let i = 0; i < numbers.length; i += 2) {
    const [start, end] = [indexOf(numbers[i], what), indexOf(numbers[i + 1], what)]
    if (start <= behind || end <= start) throw Failure.corrupt(`${what} has a range of ${start} to ${end}`)
    ranges.push({ start, end })
    behind = end
  }
  return ranges
}

function indexOf(value: unknown, what: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw Failure.corrupt(`${what} has no whole number where one belongs`)
}

function folderOf(value: unknown, what: string): string {
  if (typeof value === 'string' && (value === '' || value.split('/').every(isName))) return value
  throw Failure.corrupt(`${what} has ${JSON.stringify(value)} among its folders`)
}

function isName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name) && name.isWellFormed()
}

function list(value: unknown, what: string): unknown[] {
  if (Array.isArray(value)) return value
  throw Failure.corrupt(`${what} is no list`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
