// Loads what packaging/bundle.ts made of src/, and has V8 go on from what it compiled in an earlier run. Node's own cache keeps of a module what
// V8 compiled when it loaded it: functions that ran later, which are nearly all, are compiled anew in each process, for a third of the time
// that an image's first start takes the main thread.
//
//   dist/ENTRY.js, which Node imports ──load('ENTRY')──▶ dist/ENTRY.cjs, chunks/….cjs
//                                                            └── compiled functions: .cache/code/FLAGS/ROLE/….cjs
//
// Such a file: the build that it is of, 64 hex digits │ CRC-32 of the rest, u32 │ as V8 makes it. V8 itself believes its bytes, and a power
// cut leaves any.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import vm from 'node:vm'
import { isMainThread, threadId } from 'node:worker_threads'
import { crc32 } from 'node:zlib'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const DIST = join(ROOT, 'dist')
const PARAMETERS = '(function (exports, require, module, __url) {'
/** In a main thread, which has pulled by then if it is to pull soon; and when it ends. A thread that works for others is ended without a word. */
const KEPT_AFTER_MS = isMainThread ? [300_000] : [2_000, 60_000]
/** To find out what more there is takes some milliseconds. */
const SHORT_S = 5
/** More was compiled by so much: it is kept anew. */
const GROWN = 1.1
const CRC_BYTES = 4
/** Another process writes the same. */
const UNIQUE = `${process.pid}-${threadId}`

/** By path below DIST. */
const loaded = new Map()
let build
let kept

/** What a file of the bundle exports. @param {string} entry its name, without its extension @returns {Record<string, any>} */
export function load(entry) {
  if (build === undefined) {
    build = readFileSync(join(DIST, 'build'), 'utf8')
    // V8 takes only what was compiled by the same flags
    const flags = [process.version, process.arch, ...process.execArgv].join('').replaceAll(/[^\w.=-]/g, '')
    kept = join(ROOT, '.cache/code', flags.slice(0, 255), isMainThread ? 'main' : entry.replaceAll('/', '-'))
    for (const ms of KEPT_AFTER_MS) setTimeout(keep, ms).unref()
    if (isMainThread) process.once('exit', keep)
  }
  return loadFile(`${entry}.cjs`)
}

function loadFile(path) {
  const known = loaded.get(path)
  if (known !== undefined) return known.module.exports
  const file = join(DIST, path)
  const cachedData = compiledEarlier(path)
  const script = new vm.Script(`${PARAMETERS}${readFileSync(file, 'utf8')}\n})`, {
    filename: file,
    columnOffset: -PARAMETERS.length,
    cachedData,
  })
  const module = { exports: {} }
  const bytes = script.cachedDataRejected === false ? cachedData.length : 0
  loaded.set(path, { script, module, bytes })
  const others = createRequire(file)
  const require = (name) => (name.startsWith('.') ? loadFile(relative(DIST, join(dirname(file), name))) : others(name))
  script.runInThisContext()(module.exports, require, module, pathToFileURL(file).href)
  return module.exports
}

function compiledEarlier(path) {
  try {
    const bytes = readFileSync(join(kept, path))
    const compiled = bytes.subarray(build.length + CRC_BYTES)
    const isOurs =
      bytes.toString('latin1', 0, build.length) === build && bytes.readUInt32LE(build.length) === crc32(compiled)
    return isOurs ? compiled : undefined
  } catch {
    return undefined // it was not, or nobody may know
  }
}

/** Of each file what has been compiled by now; a command that ends at once has little to add. */
function keep() {
  for (const [path, of] of loaded) {
    if (of.bytes > 0 && process.uptime() < SHORT_S) continue
    const compiled = of.script.createCachedData()
    if (compiled.length < of.bytes * GROWN) continue
    of.bytes = compiled.length
    const file = join(kept, path)
    const made = `${file}.${UNIQUE}`
    try {
      mkdirSync(dirname(file), { recursive: true })
      const head = Buffer.alloc(build.length + CRC_BYTES, build, 'latin1')
      head.writeUInt32LE(crc32(compiled), build.length)
      writeFileSync(made, Buffer.concat([head, compiled]))
      renameSync(made, file)
    } catch {
      return // where it cannot be written, everything is only slower
    }
  }
}
