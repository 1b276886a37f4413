// lazylayer serve [ROOT]

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { openAgent, wantedRung } from '../agent/agent.ts'
import { believer } from '../agent/believe.ts'
import { prepareSecondDoor, type SecondDoor, type SharedParts } from '../agent/image-lister.ts'
import { log } from '../agent/log.ts'
import { places } from '../agent/places.ts'
import { makeDirectory, prepareDirectory, refuseServed, serveUntilEnd } from '../agent/serving.ts'
import { CLOSED, setAccess, storeMode } from '../agent/store-access.ts'
import { text } from '../agent/values.ts'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { Grafts } from '../mount/graft.ts'
import { KernelMounts } from '../mount/kernel-mounts.ts'
import { chooseRung } from '../mount/ladder.ts'
import { ROOT_NODE } from '../mount/native.ts'
import { type ControlTree, MountSession } from '../mount/session.ts'
import { readAuthFile } from '../registry/credentials.ts'
import { askers, onlyRootAsks } from '../stores/asker.ts'
import { DIFF_ID_POLICIES, type DiffIdPolicy } from '../stores/identity.ts'
import { AdditionalImageStore } from '../stores/image-store.ts'
import { AdditionalLayerStore } from '../stores/layer-store.ts'
import { StandIns } from '../stores/stand-in.ts'
import { S_IFDIR } from '../tree/entry.ts'
import type { Invocation } from './flags.ts'
import { wantedContext } from './label.ts'
import { readyText } from './ready.ts'

export async function serve({ positionals, values }: Invocation): Promise<number> {
  const diffId = text(values, 'diffid') ?? 'proven'
  if (!isPolicy(diffId)) throw Failure.usage(`--diffid ${diffId} is not one of ${DIFF_ID_POLICIES.join(', ')}`)
  const wanted = wantedRung(values)
  const context = await wantedContext(values)
  const mode = storeMode(text(values, 'store-mode'))
  const credsFile = text(values, 'creds-file')
  if (credsFile !== undefined) await readAuthFile(credsFile) // a mistake is said at the start, not at the first image
  const agent = await openAgent(values, undefined)
  try {
    const { registries, images, layers, examinations } = agent
    const wantedRoot = positionals[0] ?? places().root
    await refuseServed(wantedRoot)
    const root = await prepareDirectory(agent.native, await makeDirectory(agent.native, wantedRoot, mode))
    const closed = await setAccess(root, mode, places().root)
    if (closed !== undefined)
      log(`--store-mode: other users do not get to the store, because ${closed} is closed to them`)
    // Engines stat this directory at every command: it must be there when the mount is not.
    await mkdir(join(root, AdditionalLayerStore.DIRECTORY), { recursive: true, mode: 0o755 })
    const choice = await chooseRung(wanted, agent.native, agent.store, places().sockets)
    if (choice.why !== undefined) log(`FUSE answers, not EROFS: ${choice.why}`)
    const standIns = await StandIns.open(root)
    let grafts: Grafts | undefined
    let covers: KernelMounts | undefined
    const imagesClosed = Promise.withResolvers<void>()
    const shown = new Set<Digest>()
    const doors: SharedParts = {
      async attach(layer, path) {
        if (grafts === undefined) throw new TypeError('a layer is attached before the mount')
        shown.add(layer.tree)
        return await grafts.layer(layer, path.join('/'))
      },
      cover:
        choice.rung === 'fuse'
          ? undefined
          : async (layer, path) => {
              await imagesClosed.promise // what is mounted before lies below
              const why = await covers?.cover(layer, join(root, ...path))
              if (why !== undefined) log(`layer ${layer.descriptor.digest}: FUSE answers, not EROFS: ${why}`)
            },
      uncover(path) {
        covers
          ?.uncover(join(root, ...path))
          .catch((error) => log(`${path.join('/')}: it stays mounted: ${describe(error)}`))
      },
      quarantine: examinations.quarantine,
      // a slow registry stands still, a busy processor does not
      progress: () =>
        agent.builder.busy ? performance.now() : registries.counters().requests + registries.counters().fetched,
      believe: await believer(diffId, registries, agent.store),
      byIndex: values['diffid-only'] !== true,
    }
    const store = new AdditionalLayerStore({
      ...doors,
      images,
      layers,
      async wholeBlob(layer, blob) {
        const file = await examinations.blob(blob)
        // all of it is here now, so what its tar is called costs no byte more
        examinations.verdict(layer, blob).catch((error) => log(`layer ${blob.digest}: not proven: ${describe(error)}`))
        return file
      },
      hint(op, path) {
        covers
          ?.hint(op, join(root, ...path))
          .catch((error) => log(`${path.join('/')}: FUSE answers, not EROFS: ${describe(error)}`))
      },
      async fileOf(bytes) {
        const file = await agent.store.temporary()
        await file.writeFile(bytes)
        return { fd: file.fd, close: () => file.close() }
      },
      asker: mode === CLOSED ? onlyRootAsks : askers(log),
      standIn: (path) => standIns.put(path),
      hasStandIn: (path) => standIns.has(path),
      log,
    })
    const openSecondDoor = await prepareSecondDoor(agent, root, doors)
    agent.keeper.mounting(root)
    let second: Promise<SecondDoor> | undefined
    const control: ControlTree = {
      lookup: (...asked) => store.lookup(...asked),
      hint: (op, parent, name) => store.hint(op, parent, name),
      late: async (node) => (await (await second)?.late(node)) ?? (await store.late(node)),
    }
    const session = MountSession.mount(agent.native, {
      dir: root,
      fsname: 'lazylayer',
      allowOther: true,
      rootSlot: null,
      control,
      context,
      progress: agent.progress,
    })
    session.addDirectory(ROOT_NODE, ROOT_NODE, '', { mode: S_IFDIR | mode, uid: 0, gid: 0, mtime: 0n }, false)
    grafts = new Grafts(session, log, (mode & ~CLOSED) !== 0)
    if (choice.rung === 'erofs') covers = new KernelMounts(agent.native, session, grafts, context)
    store.show(session)
    second = openSecondDoor(session)
    // engines read there; what they do in the other door would be writing
    const closing = session
      .closeDirectory(AdditionalImageStore.DIRECTORY)
      .catch((error) => log(`${AdditionalImageStore.DIRECTORY} is not read-only: ${describe(error)}`))
      .then(imagesClosed.resolve)
    const { list, forget } = await second
    await closing
    const { ended } = session
    const told = { policy: diffId, only: !doors.byIndex }
    const served = {
      dir: root,
      session,
      covers,
      choice,
      agent,
      serves: 'store',
      diffid: told,
      layers: () => shown.size,
      list,
      ended,
    }
    const code = await serveUntilEnd(served, () => {
      process.stdout.write(readyText(root, choice.rung, diffId, doors.byIndex))
    })
    await forget()
    await standIns.close()
    return code
  } catch (error) {
    await agent.close()
    throw error
  }
}

function isPolicy(text: string): text is DiffIdPolicy {
  return (DIFF_ID_POLICIES as readonly string[]).includes(text)
}
