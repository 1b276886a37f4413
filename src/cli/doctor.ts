// lazylayer doctor: looks at everything that lazylayer needs of a machine, a line each, and says what to do.
import { release } from 'node:os'
import { join, resolve } from 'node:path'
import { describe } from '../errors.ts'
import { mountTable } from '../mount/mount-table.ts'
import { loadNative } from '../mount/native.ts'
import { whyUnseen } from '../mount/propagation.ts'
import { configHome, type Places, systemPlaces } from '../registry/places.ts'
import { openNative, places, text } from './agent.ts'
import { cache } from './doctor/cache.ts'
import type { Check, Finding } from './doctor/check.ts'
import { engines } from './doctor/engines.ts'
import { machineFiles } from './doctor/machine.ts'
import { agent, deadMounts, propagation } from './doctor/mounts.ts'
import { addon, fuse, kernel, node, requestTimeout } from './doctor/platform.ts'
import { authHelper, registries } from './doctor/registries.ts'
import { namedOf, readStorageConf, storage } from './doctor/storage.ts'
import { findEngines } from './engines-here.ts'
import type { Invocation } from './flags.ts'
import { findHelper } from './helper-here.ts'
import { count, printable, printJson } from './output.ts'
import { ask, listSockets, type Status } from './socket.ts'
import { tryRungs } from './trial.ts'

/** Where engines look when neither the user nor /etc has one. */
const VENDOR_STORAGE_CONF = '/usr/share/containers/storage.conf'

export async function doctor({ values }: Invocation): Promise<number> {
  const own = places()
  const settings = systemPlaces()
  const root = resolve(text(values, 'root') ?? own.root)
  const files = machineFiles
  const directory = resolve(text(values, 'cache') ?? own.cache)
  const storageConfs = storageConfsOf(settings)
  const found = await findEngines()
  const agents = once(() => askAgents(own.sockets))
  const needs = {
    node: process.versions.node,
    noAddon: noAddon(),
    kernel: release(),
    uid: settings.uid,
    files,
    trial: once(() => tryRungs(openNative(), directory)),
    cache: directory,
    engines: found,
    names: await namedStores(storageConfs, root),
    root,
    storageConfs,
    places: settings,
    helper: await findHelper(process.env),
    mounts: () => mountTable(),
    agents,
    unseen: whyUnseen,
  }
  const checks: readonly Check<typeof needs>[] = [
    ...[node, addon, kernel, fuse, requestTimeout, cache],
    ...engines,
    ...[storage, registries, authHelper, agent, propagation, deadMounts],
  ]
  const findings: (Finding & { name: string })[] = []
  for (const { name, run } of checks) findings.push({ name, ...(await run(needs)) })
  if (text(values, 'format') === 'json') printJson(findings)
  else process.stdout.write(findingsText(findings))
  return findings.some((each) => each.state === 'problem') ? 1 : 0
}

/** A line each, and how many of each kind. */
export function findingsText(findings: readonly (Finding & { name: string })[]): string {
  const width = Math.max(...findings.map((each) => each.name.length))
  const lines = findings.map(({ state, name, found, fix }) => {
    const what = fix === undefined ? found : `${found}. ${fix}`
    return `${state.padEnd('warning'.length)}  ${name.padEnd(width)}  ${printable(what)}\n`
  })
  const of = (state: Finding['state']) => findings.filter((each) => each.state === state).length
  return `${lines.join('')}${count(of('problem'), 'problem')}, ${count(of('warning'), 'warning')}\n`
}

function noAddon(): string | undefined {
  try {
    loadNative()
    return undefined
  } catch (error) {
    return describe(error).split('\n')[0] // the loader adds whom it was required by
  }
}

/** The first that is there is the one that engines read. */
function storageConfsOf(settings: Places): string[] {
  const named = settings.env.CONTAINERS_STORAGE_CONF
  if (named) return [named]
  const system = [join(settings.etc, 'containers/storage.conf'), VENDOR_STORAGE_CONF]
  return settings.uid === 0 ? system : [join(configHome(settings), 'containers/storage.conf'), ...system]
}

/** What cannot be read names nothing; the check of storage.conf says so. */
async function namedStores(
  storageConfs: readonly string[],
  root: string,
): Promise<{ layers: boolean; images: boolean }> {
  try {
    const conf = await readStorageConf(storageConfs, machineFiles)
    return conf === undefined ? { layers: false, images: false } : namedOf(conf.parsed, root)
  } catch {
    return { layers: false, images: false }
  }
}

async function askAgents(sockets: string): Promise<{ statuses: Status[]; silent: string[] }> {
  const statuses: Status[] = []
  const silent: string[] = []
  for (const path of await listSockets(sockets)) {
    try {
      const answer = await ask(path, { op: 'status' })
      if (answer?.ok && answer.status !== undefined) statuses.push(answer.status)
    } catch (error) {
      silent.push(`${path}: ${describe(error)}`)
    }
  }
  return { statuses, silent }
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return () => (made ??= make())
}
