// lazylayer mount IMAGE DIR
//
//   erofs   DIR is an EROFS mount of the merged image; its devices are files of a FUSE mount beside the agent's socket
//   fuse    DIR is a FUSE mount that answers from the merged image
import { rmdir } from 'node:fs/promises'
import { describe, Failure } from '../errors.ts'
import { parseReference } from '../image/reference.ts'
import { Covers } from '../mount/covers.ts'
import { Grafts } from '../mount/graft.ts'
import { type Merged, openAllLayers, openMerged } from '../mount/image.ts'
import { type Choice, chooseRung } from '../mount/ladder.ts'
import type { OpenLayer } from '../mount/layer.ts'
import { ROOT_NODE } from '../mount/native.ts'
import { MountSession } from '../mount/session.ts'
import { type Agent, log, openAgent, places, wantedRung } from './agent.ts'
import type { Invocation } from './flags.ts'
import { count } from './output.ts'
import { devicesFor, socketFor } from './places.ts'
import { goneFrom, makeDirectory, prepareDirectory, type Served, serveUntilEnd } from './serving.ts'

export async function mount({ positionals, values }: Invocation): Promise<number> {
  const [name, target] = positionals as [string, string] // as many as the command declares
  const reference = parseReference(name)
  const wanted = wantedRung(values)
  const agent = await openAgent(values)
  try {
    const dir = await prepareDirectory(agent.native, target)
    const { sockets } = places()
    const [choice, image] = await Promise.all([
      chooseRung(wanted, agent.native, agent.store, sockets),
      agent.images.resolve(reference),
    ])
    const layers = await openAllLayers(image, agent.layers)
    const merged = await openMerged(layers, agent.store, agent.builder)
    const it = { agent, dir, name, merged, layers, choice }
    const shown = choice.rung === 'erofs' ? await showErofs(it, wanted === 'erofs') : showFuse(it)
    await merged.image.close()
    for (const each of layers) {
      each.prefetch().catch((error) => log(`prefetch of ${each.descriptor.digest}: ${describe(error)}`))
    }
    const { rung } = shown.choice
    return await serveUntilEnd({ ...shown, dir, agent, serves: name, layers: () => layers.length }, () => {
      process.stdout.write(`${name} is mounted on ${dir} (${rung}, ${count(layers.length, 'layer')})\n`)
    })
  } catch (error) {
    await agent.close()
    throw error
  }
}

interface Shown extends Pick<Served, 'session' | 'covers' | 'choice' | 'ended'> {}

interface ToShow {
  agent: Agent
  dir: string
  name: string
  merged: Merged
  layers: readonly OpenLayer[]
  choice: Choice
}

function showFuse({ agent, dir, name, merged, layers, choice }: ToShow): Shown {
  agent.keeper.mounting(dir)
  const session = MountSession.mount(agent.native, {
    dir,
    fsname: `lazylayer:${name}`,
    allowOther: process.getuid?.() === 0,
    rootSlot: merged.slot,
  })
  new Grafts(session).tree(merged.slot, merged.image, layers)
  return { session, covers: undefined, choice, ended: session.ended }
}

/** @throws Failure unsupported: EROFS is a must, and this image cannot be mounted so */
async function showErofs(it: ToShow, must: boolean): Promise<Shown> {
  const { agent, dir, name, merged, layers, choice } = it
  const hidden = await makeDirectory(agent.native, devicesFor(socketFor(places().sockets, dir)), 0o700)
  agent.keeper.mounting(hidden)
  agent.keeper.mounting(dir)
  const session = MountSession.mount(agent.native, {
    dir: hidden,
    fsname: `lazylayer:${name}`,
    allowOther: false,
    rootSlot: null,
  })
  void session.ended.then(() => rmdir(hidden)).catch(() => {}) // a directory that stays is used again
  session.addDirectory(ROOT_NODE, ROOT_NODE, '', { mode: 0o40700, uid: 0, gid: 0, mtime: 0n }, false)
  const covers = new Covers(agent.native, session, new Grafts(session))
  const why = await covers.add(merged.image, layers, dir)
  if (why === undefined) return { session, covers, choice, ended: goneFrom(dir) }
  await session.detach()
  if (must) throw Failure.unsupported(`${name} cannot be mounted by EROFS`, { why, fix: 'Use --mount fuse.' })
  log(`${name}: FUSE answers, not EROFS: ${why}`)
  return showFuse({ ...it, choice: { rung: 'fuse', why } })
}
