// What `lazylayer mount IMAGE DIR` does once the image was asked for.
//
//   erofs      DIR is an EROFS mount of the merged image; its devices are files of a FUSE mount beside the agent's socket
//   fuse       DIR is a FUSE mount that answers from the merged image
//   portable   the same by JavaScript, through fuse-native

import { rmdir } from 'node:fs/promises'
import { type Agent, openAgent, wantedRung } from '../agent/agent.ts'
import { devicesFor, places, socketFor } from '../agent/agent-places.ts'
import { openRecorder } from '../agent/learning.ts'
import { log } from '../agent/log.ts'
import type { Asked } from '../agent/open-registries.ts'
import { goneFrom, makeDirectory, prepareDirectory, type ServedMount, serveUntilEnd } from '../agent/serving.ts'
import { choiceOf, holding, type Mounted, refuse, stateOf, type Taken, takeOver } from '../agent/takeover.ts'
import { describe, Failure } from '../errors.ts'
import { parseReference } from '../image/reference.ts'
import { openAllLayers } from '../layer/all-layers.ts'
import { type Merged, openMerged, type ResolvedImage } from '../layer/image.ts'
import { type OpenLayer, WHOLE } from '../layer/layer.ts'
import { mountFuse, usersMayAllowOthers } from '../mount/fusermount.ts'
import { Grafts } from '../mount/graft.ts'
import { COVER_RECORD, KernelMounts } from '../mount/kernel-mounts.ts'
import { chooseRung, type Rung, type RungChoice } from '../mount/ladder.ts'
import { ROOT_NODE } from '../mount/native.ts'
import { PortableSession } from '../mount/portable.ts'
import { MountSession } from '../mount/session.ts'
import type { Invocation } from './flags.ts'
import { wantedContext } from './label.ts'
import { count } from './output.ts'
import { beforeWhole } from './whole-layers.ts'

/** @param asked whoever was asked for the image already */
export async function mountImage({ positionals, values }: Invocation, asked: Asked): Promise<number> {
  const [name, target] = positionals as [string, string] // as many as the command declares
  const reference = parseReference(name)
  const wanted = wantedRung(values)
  const context = await wantedContext(values)
  const agent = await openAgent(values, reference, 'starts', asked)
  try {
    let taken = await takeOver(agent, name)
    const dir = taken?.mounted.dir ?? (await prepareDirectory(agent.native, target))
    const { sockets } = places()
    const [choice, image] = await Promise.all([
      taken === undefined ? chooseRung(wanted, agent.native, agent.store, sockets) : choiceOf(taken),
      agent.images.resolve(taken?.mounted.manifest ? { ...reference, digest: taken.mounted.manifest } : reference),
    ])
    const layers = await openAllLayers(image, agent.layers, beforeWhole(values)) // until the agent closes
    for (const each of layers) {
      fetchAhead(each, image, agent).catch((error) => log(`prefetch of ${each.descriptor.digest}: ${describe(error)}`))
    }
    for (const layer of layers.filter(({ format }) => format !== WHOLE)) {
      agent.background?.add({ layer, image: image.digest, origin: image.origin, complete: () => {} })
    }
    const shownLayers = image.manifest.layers.length
    const merged = await openMerged(layers, agent.store, agent.builder)
    if (taken !== undefined && taken.mounted.slot !== merged.slot) {
      await refuse(agent, Failure.corrupt('the number of its tree is another than it was'))
      await prepareDirectory(agent.native, target)
      taken = undefined
    }
    const shown = await show({ agent, dir, name, merged, context, image, taken }, choice, wanted)
    await merged.image.close()
    const { rung } = shown.choice
    const recorder = openRecorder(agent, shown.covers)
    for (const each of layers) recorder.watch(image, each)
    return await serveUntilEnd(
      {
        ...shown,
        recorder,
        dir,
        agent,
        serves: name,
        layers: () => shownLayers,
        calls: () => [],
        believed: () => 0,
        list: onlyStores,
        fill: onlyStores,
        leave: async () => {},
      },
      () => {
        if (taken !== undefined) log(`goes on with ${dir}`)
        else process.stdout.write(`${name} is mounted on ${dir} (${rung}, ${count(shownLayers, 'layer')})\n`)
      },
    )
  } catch (error) {
    // one that goes on with a mount may do better the next time
    if (agent.keeper.held.length === 0) agent.keeper.end()
    await agent.close()
    throw error
  }
}

/** Of a lazy layer what its image wants first; of one that was fetched whole all, while its tar is at hand. */
async function fetchAhead(layer: OpenLayer, image: ResolvedImage, { layers, learned }: Agent): Promise<void> {
  if (layer.format === WHOLE) await layers.prove(layer, image.blob(layer.descriptor))
  else await learned.prefetch(image, layer)
}

interface ShownMount extends Pick<ServedMount, 'session' | 'covers' | 'choice' | 'ended'> {}

interface ToShow {
  agent: Agent
  dir: string
  name: string
  merged: Merged
  context: string | undefined
  image: ResolvedImage
  /** Its mount, by an agent that is gone. */
  taken: Taken | undefined
}

const onlyStores = async () => ({ ok: false as const, what: 'an image is mounted here, and no store is served' })

/** Falls from rung to rung where none was asked for. @throws Failure what the last rung throws */
async function show(it: ToShow, { rung, why }: RungChoice, wanted: Rung | 'auto'): Promise<ShownMount> {
  const reasons = why === undefined ? [] : [why]
  const choice = (rung: Rung) => ({ rung, why: reasons.length === 0 ? undefined : reasons.join('; ') })
  if (rung === 'erofs') {
    const covered = await showErofs(it)
    if ('session' in covered) return { ...covered, choice: choice('erofs') }
    if (wanted === 'erofs') {
      throw Failure.unsupported(`${it.name} cannot be mounted by EROFS`, { why: covered.why, fix: 'Use --mount fuse.' })
    }
    log(`${it.name}: FUSE answers, not EROFS: ${covered.why}`)
    reasons.push(covered.why)
  }
  if (rung !== 'portable') {
    try {
      return { ...(await showFuse(it)), choice: choice('fuse') }
    } catch (error) {
      it.agent.keeper.unmounted(it.dir)
      if (wanted !== 'auto') throw error
      log(`${it.name}: fuse-native answers, slowly: ${describe(error)}`)
      reasons.push(describe(error))
    }
  }
  try {
    return { ...(await showPortable(it)), choice: choice('portable') }
  } catch (error) {
    it.agent.keeper.unmounted(it.dir)
    if (wanted === 'portable') throw error
    reasons.push(describe(error))
    throw Failure.unsupported(`${it.name} cannot be mounted on ${it.dir}`, {
      why: reasons.join('; '),
      fix: 'Plain users need /dev/fuse, fusermount3 (package fuse3) and a directory of their own.',
    })
  }
}

type Answering = Omit<ShownMount, 'choice'>

async function showFuse(it: ToShow): Promise<Answering> {
  const { agent, dir, name, merged, context, taken } = it
  agent.keeper.mounting(dir)
  const settings = {
    dir,
    fsname: `lazylayer:${name}`,
    rootSlot: merged.slot,
    context,
    readOnly: true,
    progress: agent.progress,
    ...holding(agent, taken?.state ?? stateOf(agent, mountedAs(it, 'fuse', dir))),
  }
  const session =
    taken === undefined
      ? await mountFuse(agent.native, settings)
      : MountSession.resume(agent.native, { ...settings, allowOther: true }, taken.fuseFd)
  new Grafts(session, log).tree(merged, merged.image, merged.layers)
  if (taken !== undefined) session.begin()
  return { session, covers: undefined, ended: session.ended }
}

function mountedAs({ name, dir, image, merged }: ToShow, rung: Rung, session: string): Mounted {
  return { serves: name, dir, session, rung, manifest: image.digest, slot: merged.slot }
}

async function showPortable({ agent, dir, name, merged, context }: ToShow): Promise<Answering> {
  if (context !== undefined) throw Failure.unsupported('fuse-native gives no SELinux labels')
  agent.keeper.mounting(dir)
  const session = await PortableSession.mount(agent.native, {
    dir,
    fsname: `lazylayer:${name}`,
    allowOther: process.geteuid?.() === 0 || (await usersMayAllowOthers()),
    image: merged.image,
    layers: merged.layers,
    gone: goneFrom,
    log,
    progress: agent.progress,
  })
  return { session, covers: undefined, ended: session.ended }
}

/** @returns why this image cannot be mounted so, or what answers */
async function showErofs(it: ToShow): Promise<Answering | { why: string }> {
  const { agent, dir, name, merged, context, taken } = it
  const place = devicesFor(socketFor(places().sockets, dir))
  const hidden = taken?.mounted.session ?? (await makeDirectory(agent.native, place, 0o700))
  agent.keeper.mounting(hidden)
  agent.keeper.mounting(dir)
  const settings = {
    dir: hidden,
    fsname: `lazylayer:${name}`,
    allowOther: false,
    rootSlot: null,
    context,
    readOnly: true,
    progress: agent.progress,
    ...holding(agent, taken?.state ?? stateOf(agent, mountedAs(it, 'erofs', hidden))),
  }
  const session =
    taken === undefined
      ? MountSession.mount(agent.native, settings)
      : MountSession.resume(agent.native, settings, taken.fuseFd)
  void session.ended.then(() => rmdir(hidden)).catch(() => {}) // a directory that stays is used again
  session.addDirectory(ROOT_NODE, ROOT_NODE, '', { mode: 0o40700, uid: 0, gid: 0, mtime: 0n }, false)
  const covers = new KernelMounts(agent.native, session, new Grafts(session, log), context)
  if (taken !== undefined) {
    await covers.adopt(taken.state.of(COVER_RECORD))
    for (const each of merged.layers) covers.devices.path(each)
    session.begin()
    return { session, covers, ended: goneFrom(dir) }
  }
  const why = await covers.add(merged.image, merged.layers, dir)
  if (why === undefined) return { session, covers, ended: goneFrom(dir) }
  await session.detach()
  agent.keeper.end() // of this one
  return { why }
}
