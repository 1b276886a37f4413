// Which files `setup` changes, and how; reads them, writes none.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { SilentEngine } from '../../engines/here.ts'
import { machineFiles } from '../../engines/machine.ts'
import { namedHelper } from '../../engines/named-helper.ts'
import { parseText } from '../../engines/toml-edit.ts'
import { callsHelper, type FoundEngine } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'
import { readText } from '../../registry/file.ts'
import { configHome, type Places } from '../../registry/places.ts'
import { storesIn } from '../doctor/storage.ts'
import {
  CRIO_CONF,
  CRIO_UNIT,
  DROP_IN,
  helperDropIn,
  MADE,
  newStorageConf,
  type Store,
  storesFor,
  storesOf,
  withoutLayers,
  withoutStores,
  withStores,
} from './changes.ts'
import { crioConf, crioReads, crioUnit, readersOf, whyNoRepair, whyRepairs } from './crio.ts'

export interface Request {
  engine: 'podman' | 'crio'
  /** Of the stores; absolute. */
  root: string
  /** Where the auth helper looks for it, unless it is told otherwise. */
  defaultRoot: string
  places: Places
  /** What engines read where /etc has no storage.conf. */
  vendor: string
  engines: readonly FoundEngine[]
  /** Installed, but of no known version. */
  silent: readonly SilentEngine[]
  /** The auth helper, where it is installed. */
  helper: string | undefined
}

export interface Change {
  path: string
  /** Undefined: no file. */
  before: string | undefined
  after: string | undefined
  /** A copy of `before` that is kept, or that is not needed any more. */
  backup?: { path: string; keep: boolean }
}

export interface Plan {
  changes: Change[]
  /** What the user should know or do besides. */
  notes: string[]
}

/** Engines that know DiffIDs only find nothing that is not proven, or believed (serve --diffid). */
function withoutHelper({ era }: FoundEngine): string {
  const prove = era === 'layer' ? ' --prove' : ''
  return `credentials come from auth.json, and the image store is filled by lazylayer pull${prove} IMAGE`
}

/** A note of an undoing, for before it, where there are such images. */
export const LAZY_IMAGES =
  'lazy images are to be removed before this: those that are left have no layers, and podman rmi --force IMAGE-ID removes them'
const BACKUP = '.before-lazylayer'
/** A store whose agent hangs does not answer. */
const STAT_TIMEOUT_MS = 2_000

/** @throws Failure usage, unsupported (files that are not edited), missing (no engine, no store), unavailable (an engine that does not work), system */
export async function planSetup(request: Request): Promise<Plan> {
  const { engine, root, places, engines, silent } = request
  const found = engines.find((each) => each.engine === engine)
  if (found === undefined) {
    const mute = silent.find((each) => each.engine === engine)
    if (mute !== undefined) {
      const fix = `Repair it first: ${engine} --version must work.`
      throw Failure.unavailable(`${engine} does not say its version`, { why: mute.why, fix })
    }
    throw Failure.missing(`${engine} is not installed here`, {
      why: 'which stores it can use depends on its version',
      fix: `Install it first; ${engine} --version must work.`,
    })
  }
  const notes = silent.map(
    (each) => `${each.engine} does not say its version, so what it needs is not known: ${each.why}`,
  )
  const stores = storesOf(root)
  const helperNotes: string[] = []
  const readers = await readersOf(storageConf(places), places, engines)
  const helper = await helperChange({ ...request, engines: readers }, found, helperNotes)
  const useful = storesFor(readers, helper !== undefined && root === request.defaultRoot)
  const wanted = await those(useful, (name) => isDirectory(stores[name].directory))
  if (wanted.length === 0) {
    throw Failure.missing(`${root} has no store that ${engine} ${found.version.text} can use`, {
      why: 'a store in storage.conf that is not there makes every command of the engine fail',
      fix: `Start lazylayer serve ${root} first.`,
    })
  }
  for (const name of useful) {
    if (!wanted.includes(name)) notes.push(`${stores[name].directory} is not there, so storage.conf does not name it`)
  }
  const lost = readers.flatMap((each) => withoutLayers(each, readers) ?? [])
  notes.push(...new Set(lost))
  const changes: Change[] = []
  // in this order: whatever ends setup early, CRI-O is never told of the image store while it may wipe its storage
  const isRead = engine !== 'crio' && (await crioReads(storageConf(places), places, [...engines, ...silent]))
  const exposed = isRead && wanted.includes('images')
  if (engine === 'crio' || exposed) {
    changes.push(await dropIn(crioConf(places), CRIO_CONF))
    const why = await whyRepairs(places)
    if (why !== undefined) notes.push(why)
  }
  if (engine === 'crio') changes.push(await dropIn(crioUnit(places), CRIO_UNIT))
  notes.push(...helperNotes)
  if (helper !== undefined) changes.push(helper)
  changes.push(await storageChange(request, wanted))
  const needed = changes.filter((each) => each.before !== each.after)
  if (engine === 'crio' && needed.length > 0) notes.push('run systemctl daemon-reload && systemctl restart crio')
  if (exposed && needed.some(({ path }) => path === crioConf(places))) {
    notes.push(
      `CRI-O reads ${storageConf(places)}, too: with ${crioConf(places)} it does not wipe its storage for that (docs/crio.md); lazylayer setup crio does the rest for it`,
    )
  }
  return { changes: needed, notes }
}

/** Undefined, and a note, where the engine is not told of our helper. */
async function helperChange(
  { places, helper, root, defaultRoot, engines }: Request,
  found: FoundEngine,
  notes: string[],
): Promise<Change | undefined> {
  const { engine, version } = found
  if (!callsHelper(engine, version))
    notes.push(`${engine} ${version.text} runs no auth helper: ${withoutHelper(found)}`)
  const asking = engines.find((each) => callsHelper(each.engine, each.version))
  if (asking === undefined) return undefined
  if (helper === undefined) {
    if (callsHelper(engine, version)) notes.push(`lazylayer-auth-helper is not installed: ${withoutHelper(found)}`)
    return undefined
  }
  const change = await dropIn(registriesDropIn(places), helperDropIn(helper))
  const other = change.before === undefined ? await namedHelper(places, machineFiles) : undefined
  if (other !== undefined && other !== helper) {
    notes.push(`registries.conf names ${other} as auth helper, which stays: ${withoutHelper(found)}`)
    return undefined
  }
  if (root !== defaultRoot)
    notes.push(`the auth helper needs LAZYLAYER_ROOT=${root} in the environment of ${asking.engine}`)
  return change
}

/** @throws Failure usage, unsupported, system */
export async function planUndo(request: Request): Promise<Plan> {
  const { engine, places } = request
  const notes: string[] = []
  const changes: Change[] = []
  const storage = await storageUndo(request, notes)
  if (storage !== undefined) {
    changes.push(storage)
    notes.push(LAZY_IMAGES)
    if (engine !== 'crio' && (await crioReads(storage.path, places, [...request.engines, ...request.silent]))) {
      notes.push(`CRI-O reads ${storage.path}, too, so its stores go as well; lazylayer setup crio names them again`)
    }
  }
  const paths = [registriesDropIn(places), ...(engine === 'crio' ? [crioUnit(places)] : [])]
  if (await mayRepair(request, storage, notes)) paths.push(crioConf(places)) // the last, as it was the first
  for (const path of paths) {
    const before = await readText(path)
    if (before?.startsWith(`${MADE}\n`)) changes.push({ path, before, after: undefined })
    else if (before !== undefined) notes.push(`${path} is not as setup made it, so it stays`)
  }
  if (engine === 'crio' && changes.length > 0) notes.push('run systemctl daemon-reload && systemctl restart crio')
  return { changes, notes }
}

/** Whether what keeps CRI-O from wiping its storage may go, when this is all that is undone. */
async function mayRepair(
  { engine, places, vendor }: Request,
  storage: Change | undefined,
  notes: string[],
): Promise<boolean> {
  if (engine !== 'crio' && places.uid !== 0) return false
  const conf = crioConf(places)
  if ((await readText(conf)) === undefined) return false
  const why = await whyNoRepair(places, vendor, storage)
  if (why !== undefined) {
    notes.push(`${conf} stays, because ${why}`)
    return false
  }
  return engine === 'crio' || (await readText(crioUnit(places))) === undefined // setup crio made both
}

async function storageChange({ root, places, vendor }: Request, wanted: readonly Store[]): Promise<Change> {
  const path = storageConf(places)
  const before = await readText(path)
  const base = before ?? newStorageConf(await readText(vendor), places.uid !== 0)
  const after = named(path, () => withStores(base, storesOf(root), wanted))
  if (before === undefined || before === after) return { path, before, after }
  const backup = `${path}${BACKUP}`
  // what is kept is the file as it was before the first setup
  return (await readText(backup)) === undefined && !before.startsWith(`${MADE}\n`)
    ? { path, before, after, backup: { path: backup, keep: true } }
    : { path, before, after }
}

async function storageUndo({ root, places, vendor }: Request, notes: string[]): Promise<Change | undefined> {
  const path = storageConf(places)
  const before = await readText(path)
  const backup = `${path}${BACKUP}`
  const original = await readText(backup)
  if (before === undefined || (original === undefined && !before.startsWith(`${MADE}\n`))) return undefined
  const made = newStorageConf(await readText(vendor), places.uid !== 0)
  const { text, changed } = named(path, () => withoutStores(before, original, made, storesOf(root)))
  if (text === before) {
    notes.push(`${path} does not name the stores of ${root}, so it stays as it is`)
    return undefined
  }
  if (changed) notes.push(`${path} was changed since setup: only the stores of ${root} were taken out`)
  // another root's stores can still be undone with it
  const isDone = original !== undefined && !(text !== undefined && namesMore(text, original))
  return { path, before, after: text, ...(isDone ? { backup: { path: backup, keep: false } } : {}) }
}

/** Whether `text` has a store that `original` has not. */
function namesMore(text: string, original: string): boolean {
  const [now, then] = [storesIn(parseText(text)), storesIn(parseText(original))]
  return (['layers', 'images'] as const).some((name) => now[name].some((each) => !then[name].includes(each)))
}

async function dropIn(path: string, after: string): Promise<Change> {
  const before = await readText(path)
  if (before !== undefined && !before.startsWith(`${MADE}\n`)) {
    throw Failure.unsupported(`${path} was made by somebody else`, { fix: 'Move it away, then try again.' })
  }
  return { path, before, after }
}

/** The file that engines read. */
export function storageConf(places: Places): string {
  if (places.env.CONTAINERS_STORAGE_CONF) return places.env.CONTAINERS_STORAGE_CONF
  return join(settings(places), 'storage.conf')
}

function registriesDropIn(places: Places): string {
  return join(settings(places), 'registries.conf.d', DROP_IN)
}

/** The system's for root, everybody else's own. */
function settings(places: Places): string {
  return join(places.uid === 0 ? places.etc : configHome(places), 'containers')
}

/** Has errors name the file. */
function named<T>(path: string, edit: () => T): T {
  try {
    return edit()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    throw new Failure(error.code, `${path}: ${error.message}`, {
      ...(error.why === undefined ? {} : { why: error.why }),
      ...(error.fix === undefined ? {} : { fix: error.fix }),
    })
  }
}

async function those<T>(of: readonly T[], test: (each: T) => Promise<boolean>): Promise<T[]> {
  const passed = await Promise.all(of.map(test))
  return of.filter((_, i) => passed[i])
}

async function isDirectory(dir: string): Promise<boolean> {
  const found = stat(dir).then(
    (each) => each.isDirectory(),
    () => false,
  )
  return await Promise.race([found, sleep(STAT_TIMEOUT_MS, false, { ref: false })])
}
