// The second door of `serve`: the additional image store, what it listed before, and requests to list more.

import { join } from 'node:path'
import { machineFiles } from '../engines/machine.ts'
import { ROOT_NODE } from '../mount/native.ts'
import { controlNode, type LateFile, type MountSession } from '../mount/session.ts'
import { systemPlaces } from '../registry/places.ts'
import { ListingRecords } from '../store/listings.ts'
import { putEmptyStore } from '../stores/empty-store.ts'
import { inUse, type Listed, referenced } from '../stores/engine-roots.ts'
import { AdditionalImageStore, type ImageStoreParts } from '../stores/image-store.ts'
import type { StoreParts } from '../stores/layer-store.ts'
import { LOOKUP_PATIENCE } from '../stores/patience.ts'
import { listLeft, readBack } from '../stores/read-back.ts'
import type { Agent } from './agent.ts'
import { graphRoots } from './graph-roots.ts'
import { lister } from './lister.ts'
import { log } from './log.ts'
import { places, socketFor } from './places.ts'
import type { Answer, ListRequest } from './socket.ts'

/** Below the store's root: leads to the agent's socket, so that who knows the root finds the agent. */
export const SOCKET_LINK = 'agent.sock'

export interface SecondDoor {
  list(request: ListRequest): Promise<Answer>
  /** The contents of a late file of the store, if the node is one. */
  late(node: bigint): Promise<LateFile | undefined>
  /** For when the mount is gone. Never rejects. */
  forget(): Promise<void>
}

/** What both doors are opened with. */
export type SharedParts = Pick<
  StoreParts,
  'attach' | 'cover' | 'uncover' | 'quarantine' | 'progress' | 'believe' | 'byIndex'
>

/** Must be called before the mount; the door is opened in it. */
export async function prepareSecondDoor(
  agent: Agent,
  root: string,
  shared: SharedParts,
): Promise<(session: MountSession) => Promise<SecondDoor>> {
  const { images, layers, examinations, registries, store } = agent
  await putEmptyStore(join(root, AdditionalImageStore.DIRECTORY))
  const listings = await ListingRecords.open(store.dir, root, log)
  const { progress, ...doors } = shared
  const split: ImageStoreParts['split'] = (layer, blob) => examinations.split(layer, blob)
  const parts: ImageStoreParts = {
    images,
    layers,
    listings,
    ...doors,
    split,
    inUse: usedByEngines,
    now: () => performance.now(),
    log,
  }
  const reading = { ...parts, signal: layers.signal }
  const { chains, left } = await readBack(reading)
  return async (session) => {
    const shown = await AdditionalImageStore.show(parts, session, chains)
    void listLeft(reading, left, (chain) => shown.again(chain)) // never rejects
    const socket = socketFor(places().sockets, root)
    const attributes = { mode: 0o120777, uid: 0, gid: 0, mtime: 0n }
    session.addSymlink(controlNode(SOCKET_LINK), ROOT_NODE, SOCKET_LINK, attributes, socket)
    return {
      list: lister({
        store: shown,
        remember: (reference, credentials) => registries.remember(reference, credentials),
        progress,
        patience: LOOKUP_PATIENCE,
        log,
      }),
      late: (node) => shown.late(node),
      forget: () => shown.forget(),
    }
  }
}

/** Whoever stops the agent waits for that, systemd for 30 s. */
const ROOTS_TIMEOUT_MS = 10_000

/** By the storage roots of this machine's engines. */
async function usedByEngines(listed: readonly Listed[]): Promise<Set<string> | undefined> {
  const references = await referenced(
    await graphRoots(systemPlaces(), machineFiles),
    log,
    AbortSignal.timeout(ROOTS_TIMEOUT_MS),
  )
  return references && inUse(listed, references)
}
