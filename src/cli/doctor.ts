// lazylayer doctor [IMAGE]: looks at everything that lazylayer needs of a machine, a line each, and says what to do.

import { release } from 'node:os'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { places } from '../agent/agent-places.ts'
import { printable } from '../agent/log.ts'
import { openRegistries, platformOf } from '../agent/open-registries.ts'
import { ask, listSockets, type Status } from '../agent/socket.ts'
import { text, type Values } from '../agent/values.ts'
import { tryCodecs } from '../codec/trial.ts'
import { readCrioConf } from '../engines/crio-conf.ts'
import { findHelper } from '../engines/helper-here.ts'
import { findEngines } from '../engines/here.ts'
import { machineFiles, realPath } from '../engines/machine.ts'
import { crioStorageConfs, readStorageConf, storageConfsOf } from '../engines/storage-conf.ts'
import type { Engine } from '../engines/versions.ts'
import { describe, Failure } from '../errors.ts'
import { parseReference, type Reference } from '../image/reference.ts'
import { onceEach } from '../limit.ts'
import { mountTable } from '../mount/mount-table.ts'
import { loadNative } from '../mount/native.ts'
import { openNative } from '../mount/no-addon.ts'
import { whyUnseen } from '../mount/propagation.ts'
import { type LayersRoot, strandedOverlays } from '../mount/stranded.ts'
import { systemPlaces } from '../registry/places.ts'
import { CONTAINERD_ADDRESS } from './containerd-address.ts'
import { apart } from './doctor/apart.ts'
import { cache } from './doctor/cache.ts'
import type { DoctorCheck, Finding } from './doctor/check.ts'
import { codecs } from './doctor/codecs.ts'
import { containerd } from './doctor/containerd.ts'
import { NAME as CONTAINERS, containerFindings, processNameOf, UNTOLD } from './doctor/containers.ts'
import { crioConf, crioNames } from './doctor/crio.ts'
import { engines } from './doctor/engines.ts'
import { metrics } from './doctor/metrics.ts'
import { agent, deadMounts, propagation, type Silent } from './doctor/mounts.ts'
import { addon, fuse, kernel, node, requestTimeout } from './doctor/platform.ts'
import { authHelper, registries } from './doctor/registries.ts'
import { NO_REGISTRY, NOT_ASKED, notAsked, NAME as REGISTRY, registryFindings } from './doctor/registry.ts'
import { namedOf, storage } from './doctor/storage.ts'
import { store } from './doctor/store.ts'
import type { Invocation } from './flags.ts'
import { count, printJson } from './output.ts'
import { storesFor } from './setup/changes.ts'
import { readersOf } from './setup/crio.ts'
import { untoldHere } from './told.ts'
import { tryRungs } from './trial.ts'

/** Files looked at once each: a look at a mount that hangs takes one of Node's four threads for files, for good. */
const LOOKED_MAX = 10_000
/** Of some thousand processes. */
const CONTAINERS_TIMEOUT_MS = 20_000

export async function doctor({ positionals, values }: Invocation): Promise<number> {
  const [image] = positionals
  const reference = image === undefined ? undefined : parseReference(image)
  const own = places()
  const settings = systemPlaces()
  const given = resolve(text(values, 'root') ?? own.root)
  const real = await realPath(given)
  const files = { ...machineFiles, look: onceEach(machineFiles.look, LOOKED_MAX) }
  const directory = resolve(text(values, 'cache') ?? own.cache)
  const storageConfs = storageConfsOf(settings)
  const here = await findEngines()
  const agents = once(() => askAgents(own.sockets))
  let [root, named] = [given, await namedStores(storageConfs, given)]
  // engines may know it by the name that serve says, which has no symlinks
  if (!named.layers && !named.images && real !== given) {
    const byReal = await namedStores(storageConfs, real)
    if (byReal.layers || byReal.images) [root, named] = [real, byReal]
  }
  const crio = await crioNamed(settings.etc, root)
  const helper = await findHelper(process.env)
  const readers = await readersOf(storageConfs[0] as string, settings, here.found) // there is one at least
  const layersOfUse = storesFor(readers, helper !== undefined && given === own.root).includes('layers')
  const needs = {
    node: process.versions.node,
    noAddon: noAddon(),
    kernel: release(),
    uid: process.getuid?.() ?? settings.uid, // in its namespace, as the files there have it
    files,
    trial: once(() => tryRungs(openNative(), directory)),
    cache: directory,
    codecs: () => tryCodecs(),
    engines: here.found,
    silent: here.silent,
    names: (engine: Engine) => (engine === 'crio' ? crio : named),
    root,
    real,
    storageConfs,
    crioStorageConfs: crioStorageConfs(settings.etc),
    etc: settings.etc,
    places: settings,
    helper,
    layersOfUse,
    mounts: () => mountTable(),
    untold: () => untoldHere(root, settings, here),
    agents,
    containerd: containerdHere,
    unseen: whyUnseen,
    stranded: (roots: readonly LayersRoot[]) => strandedOverlays(roots),
    processName: processNameOf,
  }
  const checks: readonly DoctorCheck<typeof needs>[] = [
    ...[node, addon, codecs, kernel, fuse, requestTimeout, cache],
    ...engines,
    containerd,
    ...[storage, crioConf, registries, authHelper, agent, apart, store, propagation, deadMounts],
  ]
  const findings: (Finding & { name: string })[] = []
  const check = async ({ name, run }: DoctorCheck<typeof needs>) => void findings.push({ name, ...(await run(needs)) })
  for (const each of checks) await check(each)
  const untold = sleep(CONTAINERS_TIMEOUT_MS, [UNTOLD], { ref: false })
  for (const finding of await Promise.race([containerFindings(needs), untold])) {
    findings.push({ name: CONTAINERS, ...finding })
  }
  await check(metrics)
  for (const finding of await askRegistries(reference, values)) findings.push({ name: REGISTRY, ...finding })
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

/** As above: the check of crio.conf tells of what cannot be read. */
async function crioNamed(etc: string, root: string) {
  const conf = await readCrioConf(etc, machineFiles).catch(() => undefined)
  return await crioNames(conf, root, crioStorageConfs(etc), machineFiles)
}

/** A registry that keeps us waiting that long is no use to a program that reads a file. */
const PROBE_TIMEOUT_MS = 30_000

async function askRegistries(reference: Reference | undefined, values: Values): Promise<Finding[]> {
  if (reference === undefined) return [NOT_ASKED]
  if (reference.transport === 'oci') return [NO_REGISTRY]
  const registries = openRegistries(values, reference)
  const stop = new AbortController()
  const late = Failure.timeout(`no answer within ${PROBE_TIMEOUT_MS} ms`)
  const timer = setTimeout(() => stop.abort(late), PROBE_TIMEOUT_MS)
  try {
    return registryFindings(await registries.probe(reference, platformOf(values), stop.signal))
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return [notAsked(error)]
  } finally {
    clearTimeout(timer)
    await registries.close()
  }
}

async function askAgents(sockets: string): Promise<{ statuses: Status[]; silent: Silent[] }> {
  const statuses: Status[] = []
  const silent: Silent[] = []
  const asked = (await listSockets(sockets)).map(async (path) => {
    try {
      const answer = await ask(path, { op: 'status' })
      if (answer?.ok === false) silent.push({ why: `${path}: ${answer.what}` })
      else if (answer?.status !== undefined) statuses.push(answer.status)
    } catch (error) {
      if (error instanceof Failure && error.code === 'timeout') silent.push({ why: describe(error), fix: error.fix })
      else silent.push({ why: `${path}: ${describe(error)}` })
    }
  })
  await Promise.all(asked)
  return { statuses, silent }
}

/** gRPC is loaded only where somebody answers. */
async function containerdHere() {
  const seen = await machineFiles.look(CONTAINERD_ADDRESS)
  if (seen === undefined || !seen.writable) return undefined
  const { askContainerd } = await import('../snapshotter/plugins.ts')
  return await askContainerd(CONTAINERD_ADDRESS)
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return () => (made ??= make())
}
