// lazylayer as a user starts it: the command, in the foreground, on an image in a registry or as the store that engines look into.
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { INSTALLED_COMMAND } from '../packaging/bundle.ts'
import { devicesFor, socketFor } from '../src/agent/agent-places.ts'
import { ask, type Status } from '../src/agent/socket.ts'
import type { Rung } from '../src/mount/ladder.ts'
import { DEVICES_DIRECTORY } from '../src/mount/shown-devices.ts'
import { AdditionalImageStore } from '../src/stores/image-store.ts'
import { type Mounted, startMount } from './mount.ts'

/** As installed: whoever measures it makes it. */
export const COMMAND = INSTALLED_COMMAND

/** Those that are compared; the first is what root gets. */
export const MEASURED = ['erofs', 'fuse'] as const satisfies Rung[]
export const BY_EROFS = 'lazylayer'
export const BY_FUSE = 'lazylayer, fuse rung'
/** What the subject of each is called. */
export const SUBJECTS = { erofs: BY_EROFS, fuse: BY_FUSE } as const

export interface Mounting {
  /** As the command takes it. */
  image: string
  /** Where to mount. */
  dir: string
  /** Whatever lies in it; one that is missing is made, as are the others. */
  cache: string
  /** For sockets, and for the mounts that serve devices. */
  run: string
  rung: Rung
}

export interface Product extends Mounted {
  status(): Promise<Status>
  /** The files that EROFS reads, one a layer; none below the fuse rung. */
  devices: readonly string[]
}

/** @param flags of `mount`, beside those that say where everything is */
export async function mountImage(
  { image, dir, cache, run, rung }: Mounting,
  flags: readonly string[] = [],
): Promise<Product> {
  for (const each of [dir, cache, run]) await mkdir(each, { recursive: true })
  const words = [COMMAND, 'mount', '--mount', rung, '--cache', cache, '--tls-verify=false', ...flags, image, dir]
  const mounted = await startMount(words, dir, { RUNTIME_DIRECTORY: run })
  const socket = socketFor(run, dir)
  const devices = join(devicesFor(socket), DEVICES_DIRECTORY)
  return {
    ...mounted,
    status: () => statusOf(socket, dir),
    devices: rung === 'fuse' ? [] : (await readdir(devices)).map((name) => join(devices, name)),
  }
}

export interface Store extends Mounted {
  status(): Promise<Status>
  /** Has an image listed. @returns its layers' directories, the uppermost first */
  list(image: string): Promise<string[]>
}

/** The store that engines look into. @param flags of `serve`, beside those that say where everything is */
export async function serveStore(
  { dir, cache, run, rung }: Omit<Mounting, 'image'>,
  through: readonly string[] = [],
  flags: readonly string[] = [],
): Promise<Store> {
  for (const each of [dir, cache, run]) await mkdir(each, { recursive: true })
  const words = [COMMAND, 'serve', '--mount', rung, '--cache', cache, '--tls-verify=false', ...flags, dir]
  const mounted = await startMount(words, dir, { RUNTIME_DIRECTORY: run }, through)
  const socket = socketFor(run, dir)
  return {
    ...mounted,
    status: () => statusOf(socket, dir),
    async list(image) {
      const answer = await ask(socket, { op: 'list', reference: image, prove: 'none' })
      if (!answer?.ok || answer.outcome === undefined) throw new Error(`no agent lists ${image} for ${dir}`)
      const { listed, why } = answer.outcome
      if (why !== undefined) throw new Error(why)
      return listed.map(({ id }) => join(dir, AdditionalImageStore.DIRECTORY, 'overlay', id, 'diff')).reverse()
    },
  }
}

async function statusOf(socket: string, dir: string): Promise<Status> {
  const answer = await ask(socket, { op: 'status' })
  if (!answer?.ok || answer.status === undefined) throw new Error(`no agent answers for ${dir}`)
  return answer.status
}
