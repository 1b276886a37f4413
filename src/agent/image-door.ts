// The image store's door of `serve`: the store itself, what it listed before, and requests to list more.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { machineFiles } from '../engines/machine.ts'
import { Failure } from '../errors.ts'
import type { Door } from '../mount/doors.ts'
import { ROOT_NODE } from '../mount/native.ts'
import { controlNode, type MountSession } from '../mount/session.ts'
import { systemPlaces } from '../registry/places.ts'
import { ListVersion } from '../store/list-version.ts'
import { ListingRecords } from '../store/listings.ts'
import { putEmptyStore } from '../stores/empty-store.ts'
import { inUse, type ListedLayer, referenced } from '../stores/engine-roots.ts'
import { AdditionalImageStore, type ImageStoreParts } from '../stores/image-store.ts'
import type { StoreParts } from '../stores/layer-store.ts'
import { LOOKUP_PATIENCE } from '../stores/patience.ts'
import { listLeft, readBack } from '../stores/read-back.ts'
import type { Agent } from './agent.ts'
import { places, socketFor } from './agent-places.ts'
import { graphRoots } from './graph-roots.ts'
import { lister } from './lister.ts'
import { log } from './log.ts'
import type { AgentAnswer, ListRequest } from './socket.ts'

/** Below the store's root: leads to the agent's socket, so that who knows the root finds the agent. */
export const SOCKET_LINK = 'agent.sock'

export interface ImageDoor {
  list(request: ListRequest): Promise<AgentAnswer>
  door: Door
  /** For when the mount is gone. Never rejects. */
  end(): Promise<void>
}

/** What both doors are opened with. */
export type SharedParts = Pick<
  StoreParts,
  | 'attach'
  | 'release'
  | 'cover'
  | 'uncover'
  | 'quarantine'
  | 'progress'
  | 'trustsDiffIds'
  | 'byIndex'
  | 'now'
  | 'prefetch'
  | 'left'
> &
  Pick<ImageStoreParts, 'guard'>

/** Where programs wait for the start: the rest follows behind it. */
const RESUMED_START_MS = 500

/**
 * Must be called before the mount; the door is opened in it.
 * @param isMounted by an agent that is gone, which prepared it
 */
export async function prepareImageDoor(
  agent: Agent,
  root: string,
  trustsDiffIds: SharedParts['trustsDiffIds'],
  isMounted: boolean,
): Promise<(session: MountSession, shared: SharedParts) => Promise<ImageDoor>> {
  const { images, layers, examinations, registries, store } = agent
  if (!isMounted) await putEmptyStore(join(root, AdditionalImageStore.DIRECTORY))
  const listings = await ListingRecords.open(store.dir, root, log)
  const versions = await ListVersion.open(store.dir, root, log)
  const reading = { images, layers, listings, trustsDiffIds, signal: layers.signal, log }
  const { chains, left } = await readBack(reading, isMounted ? RESUMED_START_MS : undefined)
  return async (session, { progress, ...shared }) => {
    const parts: ImageStoreParts = {
      images,
      layers,
      listings,
      versions,
      ...shared,
      split: (layer, blob) => examinations.split(layer, blob),
      inUse: usedByEngines,
      pause: (ms, signal) => sleep(ms, undefined, { signal, ref: false }),
      log,
    }
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
      door: {
        owns: (node) => shown.owns(node),
        late: (node) => shown.late(node),
        lookup: () => Promise.reject(Failure.missing('all of it is there')), // its directories do not ask
        hint: () => {},
      },
      end: () => shown.end(),
    }
  }
}

/** By the storage roots of this machine's engines. */
async function usedByEngines(listed: readonly ListedLayer[], signal: AbortSignal): Promise<Set<string> | undefined> {
  const references = await referenced(await graphRoots(systemPlaces(), machineFiles), log, signal)
  return references && inUse(listed, references)
}
