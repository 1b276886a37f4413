// The rules of the house that a file can break by itself, as a function from a file's path and source to what it breaks. It looks at
// the syntax tree: a comment may name anything, code and strings may not.
import { posix } from 'node:path'
import { parseAst } from 'vitest/node'

/** What each folder of src/ may import beside itself and what is for everyone: whatever lies below it. Folders in one row do not know each other. */
const ROWS: readonly (readonly string[])[] = [
  ['cli'],
  ['agent', 'build'],
  ['stores', 'snapshotter', 'engines'],
  ['mount'],
  ['proof'],
  ['layer'],
  ['fetch', 'store', 'registry', 'codec', 'format', 'policy'],
  ['tree'],
  ['image'],
]

/** Beside the folders. */
const FOR_EVERYONE = new Set(['errors.ts', 'limit.ts'])

const HTTP_MODULE = /^(undici(\/|$)|(node:)?https?2?$)/
// build/registry.ts serves images that were just built; the others speak gRPC with containerd and kubelet on unix sockets.
const SERVES_HTTP = new Set([
  'agent/health.ts',
  'build/registry.ts',
  'snapshotter/grpc-socket.ts',
  'snapshotter/cri-proxy.ts',
])
const speaksHttp = (path: string) => path.startsWith('registry/') || SERVES_HTTP.has(path)
const knowsFormats = (path: string) => /^(format|build|cli)\//.test(path)
// the launcher has descriptors stay open for the keeper, before there is anything that could import a room
const callsNative = (path: string) => path.startsWith('mount/') || path === 'cli/lazylayer.js'
const FORMAT_NAME = /stargz|zstd:?chunked|nydus|rafs|ztoc|zran|\bsoci\b/i
const NATIVE_FILE = /\.node$|^fuse-native$/

/** A node of the syntax tree (ESTree with TypeScript); its other fields are looked at only after a check of their type. */
interface Node {
  type: string
  [field: string]: unknown
}

/** What `source`, the file `path` below src/, breaks; each in a few words. */
export function violations(path: string, source: string): string[] {
  const found: string[] = []
  if (/(^|\/)index\.[jt]s$/.test(path)) found.push('a barrel file')
  const program: unknown = parseAst(source, { lang: path.endsWith('.js') ? 'js' : 'ts' })
  for (const node of nodes(program)) found.push(...syntax(path, node), ...imports(path, node), ...texts(path, node))
  return [...new Set(found)]
}

/** The files of src/ that `source`, the file `path`, imports, types included, or starts as a worker. */
export function importsOf(path: string, source: string): string[] {
  const program: unknown = parseAst(source, { lang: path.endsWith('.js') ? 'js' : 'ts' })
  const targets = [...nodes(program)].map(imported).filter((each) => each?.startsWith('.'))
  return targets.map((each) => posix.normalize(posix.join(posix.dirname(path), each as string)))
}

/** Circles in who imports whom: each file that comes back to itself, with the way. */
export function circles(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = []
  const done = new Set<string>()
  const walk = (path: string, way: readonly string[]): void => {
    if (way.includes(path)) {
      found.push([...way.slice(way.indexOf(path)), path].join(' -> '))
      return
    }
    if (done.has(path)) return
    for (const each of imports.get(path) ?? []) walk(each, [...way, path])
    done.add(path)
  }
  for (const path of imports.keys()) walk(path, [])
  return found
}

function syntax(path: string, node: Node): string[] {
  switch (node.type) {
    case 'ExportDefaultDeclaration':
      return ['a default export']
    case 'ExportAllDeclaration':
      return ['a barrel: export *']
    case 'ClassDeclaration':
    case 'ClassExpression':
      return /(Error|Failure)$/.test(name(node.superClass)) && path !== 'errors.ts' ? ['a second error class'] : []
    case 'TSEnumDeclaration':
    case 'TSParameterProperty':
    case 'TSImportEqualsDeclaration':
    case 'TSExportAssignment':
    case 'TSTypeAssertion':
      return [`syntax that cannot be erased: ${node.type}`]
    case 'TSModuleDeclaration':
      return node.declare === true ? [] : ['syntax that cannot be erased: namespace']
    case 'TSAsExpression': {
      const cast = [...nodes(node.typeAnnotation)].some((part) => name(part) === 'Verified')
      return cast && path !== 'codec/verify.ts' ? ['as Verified outside codec/verify.ts'] : []
    }
    case 'CallExpression':
      return name(node.callee) === 'fetch' && !speaksHttp(path) ? ['HTTP outside registry/: fetch()'] : []
    default:
      return []
  }
}

function imports(path: string, node: Node): string[] {
  const source = imported(node)
  if (source === undefined) return []
  if (HTTP_MODULE.test(source)) return speaksHttp(path) ? [] : [`HTTP outside registry/: ${source}`]
  if (!source.startsWith('.')) return []
  const target = posix.normalize(posix.join(posix.dirname(path), source))
  if (!/\.(ts|js)$/.test(target))
    return /\.(json|wasm|node)$/.test(target) ? [] : [`an import without its suffix: ${source}`]
  if (FOR_EVERYONE.has(target)) return []
  if (target.startsWith('../')) return [`an import from outside src/: ${source}`]
  const [own, other] = [folder(path), folder(target)]
  if (own === other) return []
  const [row, otherRow] = [rowOf(own), rowOf(other)]
  if (row === undefined || otherRow === undefined)
    return [`a folder that is not on the map: ${row === undefined ? own : other}`]
  return row < otherRow ? [] : [`${own} imports ${other}`]
}

function texts(path: string, node: Node): string[] {
  const found: string[] = []
  const text = textOf(node)
  if (text === undefined) return found
  // A format's module is imported by its name where the formats are wired; only the list may be.
  if (FORMAT_NAME.test(text) && !knowsFormats(path)) found.push(`a format's name: ${text.trim()}`)
  if (node.type !== 'Identifier' && NATIVE_FILE.test(text) && !callsNative(path))
    found.push(`native code outside mount/: ${text}`)
  return found
}

/** The module that a node brings in: by import, export … from, import(), a type's import(), or a worker's URL. */
function imported(node: Node): string | undefined {
  switch (node.type) {
    case 'ImportDeclaration':
    case 'ExportNamedDeclaration':
    case 'ExportAllDeclaration':
    case 'ImportExpression':
    case 'TSImportType':
      return literal(node.source)
    case 'NewExpression': {
      const [first] = Array.isArray(node.arguments) ? node.arguments : []
      const url = name(node.callee) === 'URL' ? literal(first) : undefined
      return url !== undefined && /^\..*\.(ts|js)$/.test(url) ? url : undefined
    }
    default:
      return undefined
  }
}

/** What a reader could find a word in: an identifier, a string, a piece of a template. */
function textOf(node: Node): string | undefined {
  if (node.type === 'Identifier' || node.type === 'PrivateIdentifier') return name(node)
  if (node.type === 'TemplateElement') return isNode(node) && isRecord(node.value) ? String(node.value.raw) : undefined
  return literal(node)
}

function folder(path: string): string {
  return path.includes('/') ? path.slice(0, path.indexOf('/')) : path
}

function rowOf(folder: string): number | undefined {
  const row = ROWS.findIndex((names) => names.includes(folder))
  return row < 0 ? undefined : row
}

function* nodes(value: unknown): Generator<Node> {
  if (Array.isArray(value)) for (const each of value) yield* nodes(each)
  else if (isRecord(value)) {
    if (isNode(value)) yield value
    for (const each of Object.values(value)) yield* nodes(each)
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function isNode(value: Record<string, unknown>): value is Node {
  return typeof value.type === 'string'
}

function name(value: unknown): string {
  return isRecord(value) && typeof value.name === 'string' ? value.name : ''
}

function literal(value: unknown): string | undefined {
  return isRecord(value) && value.type === 'Literal' && typeof value.value === 'string' ? value.value : undefined
}
