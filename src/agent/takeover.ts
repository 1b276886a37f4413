// How an agent goes on with the mount of one that is gone: what of it must be remembered, and what of that can be had again.
import { closeSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { imageAgain, layerAgain, type Reopening } from '../layer/reopen.ts'
import { mapLimited } from '../limit.ts'
import { type DoorMount, type ShownTree, TREE_RECORD } from '../mount/door-mount.ts'
import type { Rung, RungChoice } from '../mount/ladder.ts'
import { SessionState } from '../mount/session-state.ts'
import type { Agent } from './agent.ts'
import { log } from './log.ts'

/** In a session's state: what was mounted. */
const MOUNTED_RECORD = 'mounted'

export interface Mounted {
  /** `store`, or the reference of an image. */
  serves: string
  /** Real paths: what users see, and where the FUSE session is. */
  dir: string
  session: string
  rung: Rung
  /** Why not a higher one. */
  why?: string | undefined
  /** The folder of the numbers that the kernel knows trees by. */
  numbers?: string | undefined
  /** Of an image: its manifest's digest, and the number of its merged tree. */
  manifest?: Digest
  slot?: number
}

/** A mount to go on with. */
export interface Taken {
  fuseFd: number
  state: SessionState
  mounted: Mounted
  /** What lies below the mount, if that was handed over. */
  below: number | undefined
}

/** As the agent before chose. */
export function choiceOf({ mounted: { rung, why } }: Taken): RungChoice {
  return { rung, why }
}

/** Each layer's image on disk is hashed. */
const RESTORED_AT_ONCE = 8

/** For a mount that is about to be made; undefined: nobody could go on with it. */
export function stateOf({ native, keeper, store }: Agent, mounted: Mounted): SessionState | undefined {
  if (native.disk === null || !keeper.succeeds) return undefined
  const state = SessionState.create(native.disk)
  state.set(MOUNTED_RECORD, { ...mounted, numbers: numbersFolder(store.dir) })
  return state
}

/** Tells a folder from one that took its place. */
function numbersFolder(cache: string): string | undefined {
  const found = statSync(join(cache, 'slots'), { bigint: true, throwIfNoEntry: false })
  return found && `${found.dev} ${found.ino} ${found.birthtimeNs}`
}

/** What has the keeper hold a session's connection; for its settings. */
export function holding({ native, keeper }: Agent, state: SessionState | undefined, below?: number) {
  if (state === undefined) return {}
  const resumable = (fuseFd: number) => {
    const descriptors = [fuseFd, state.fd, ...(below === undefined ? [] : [below])]
    if (!keeper.hold(native, descriptors)) log('the keeper is gone: nobody goes on with the mount when this agent dies')
  }
  return { state, resumable }
}

/**
 * What an agent before this one left to go on with, when that is gone; undefined: nothing, or nothing that this one can go on with, which is
 * detached then, and logged.
 * @throws Failure unsupported, corrupt: the one before is still there, and goes on
 */
export async function takeOver(agent: Agent, serves: string): Promise<Taken | undefined> {
  const { keeper, native } = agent
  const [fuseFd, stateFd, below] = keeper.held
  if (fuseFd === undefined || stateFd === undefined) return undefined
  try {
    if (native.disk === null) throw Failure.unsupported('the native part is gone')
    let state = SessionState.read(stateFd, native.disk)
    if (keeper.isBeside) {
      await keeper.prepared()
      state = SessionState.read(stateFd, native.disk) // it went on meanwhile
    }
    const mounted = state.get(MOUNTED_RECORD) as Mounted | undefined // as stateOf wrote it
    if (mounted === undefined) throw Failure.corrupt('its state does not say what it is')
    if (mounted.serves !== serves) throw Failure.corrupt(`it serves ${mounted.serves}, not ${serves}`)
    if (mounted.numbers !== numbersFolder(agent.store.dir)) {
      throw Failure.corrupt('the numbers of its trees are lost, and may be given to others')
    }
    await checkNumbers(state, agent.store)
    return { fuseFd, state, mounted, below }
  } catch (error) {
    if (keeper.isBeside) throw error
    await refuse(agent, error)
    return undefined
  }
}

/** Has what cannot be gone on with detached. */
export async function refuse({ keeper }: Agent, error: unknown): Promise<void> {
  log(`the mount of the agent before is detached, and programs that use it get errors: ${describe(error)}`)
  for (const fd of keeper.held) closeSync(fd)
  await keeper.refuse()
}

function treesOf(state: SessionState): [string, ShownTree][] {
  return [...state.of(TREE_RECORD)] as [string, ShownTree][] // as DoorMount wrote them
}

/** @throws Failure corrupt: numbers that the kernel knows are lost, and may be others' by now */
async function checkNumbers(state: SessionState, store: Agent['store']): Promise<void> {
  await mapLimited(treesOf(state), RESTORED_AT_ONCE, async ([known, { tree, path }]) => {
    // of what is lost on disk nothing is answered, and nobody gets its number
    const slot = await store.numbersOf(tree, path.join('/')).then(
      (numbers) => numbers.slot,
      () => Number(known),
    )
    if (slot === Number(known)) return
    throw Failure.corrupt(`the number of ${path.join('/')} is another than it was`, {
      why: `the kernel knows it as ${known}, and the cache as ${slot}`,
    })
  })
}

/**
 * Opens the layers that the kernel may know again, from disk; where that fails from anywhere, behind the start, and reads of them fail
 * until then.
 */
export async function restoreTrees(
  mount: Pick<DoorMount, 'restore'>,
  state: SessionState,
  { images, layers }: Pick<Agent, 'images' | 'layers'>,
): Promise<void> {
  const parts: Reopening = { images, layers, signal: layers.signal }
  const records = treesOf(state)
  const restore = async ([, shown]: [string, ShownTree], from: 'disk' | 'anywhere') => {
    const image = await imageAgain(shown, from, parts)
    const layer = await layerAgain(shown, image, from, parts)
    try {
      await mount.restore(layer, shown.path)
    } finally {
      await layer.close() // the mount holds it
    }
  }
  const outcomes = await mapLimited(records, RESTORED_AT_ONCE, async (record) => {
    try {
      await restore(record, 'disk')
      return undefined
    } catch (error) {
      return { record, error }
    }
  })
  for (const { record, error } of outcomes.filter((each) => each !== undefined)) {
    const [, { blob, reference }] = record
    log(`layer ${blob} of ${reference} is not answered for as it was: ${describe(error)}`)
    restore(record, 'anywhere').then(
      () => log(`layer ${blob} of ${reference} is answered for again`),
      (again) => log(`layer ${blob} of ${reference}: reads fail: ${describe(again)}`),
    )
  }
}
