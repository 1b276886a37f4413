// The wiring: everything a command needs to open images, made once from its flags.

import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CodecPool } from '../codec/pool.ts'
import { Failure } from '../errors.ts'
import { BUDGET, Budget } from '../fetch/budget.ts'
import { Wires } from '../fetch/wire.ts'
import { IndexBuilder } from '../format/parser.ts'
import type { Digest } from '../image/digest.ts'
import type { Platform } from '../image/manifest.ts'
import type { Reference } from '../image/reference.ts'
import { nameAhead, openAhead, startAhead } from '../layer/ahead.ts'
import { Background } from '../layer/background.ts'
import { type EarlyImage, Images } from '../layer/image.ts'
import { Layers } from '../layer/layers.ts'
import type { Learned } from '../layer/learned.ts'
import { Keeper, PATIENCE_MS } from '../mount/keeper.ts'
import { RUNGS, type Rung } from '../mount/ladder.ts'
import type { NativeModule } from '../mount/native.ts'
import { openNative } from '../mount/no-addon.ts'
import { Examinations } from '../proof/examinations.ts'
import { thisUser } from '../registry/places.ts'
import type { Registries } from '../registry/registries.ts'
import { SealedCredentials } from '../registry/sealed.ts'
import { GatheredBlobs } from '../store/gathered-blobs.ts'
import { parseAmount, ROOM_LIMITS, type RoomLimits } from '../store/room-limits.ts'
import { SealedFolder } from '../store/sealed-folder.ts'
import { Store } from '../store/store.ts'
import { places, stateDirectory } from './agent-places.ts'
import { backgroundOf } from './background.ts'
import { openLearned } from './learning.ts'
import { LeftLayers } from './left-layers.ts'
import { log } from './log.ts'
import { type Asked, openRegistries, platformOf } from './open-registries.ts'
import { sealKey } from './seal-key.ts'
import { text, type Values } from './values.ts'

export interface Agent {
  native: NativeModule
  keeper: Keeper
  /** A signal ends the process, and leaves its mount to the next. */
  keepsOnExit: boolean
  registries: Registries
  store: Store
  codecs: CodecPool
  /** What programs and prefetch have under way. */
  budget: Budget
  builder: IndexBuilder
  images: Images
  layers: Layers
  learned: Learned
  /** Undefined: nothing is fetched that nobody asks for. */
  background: Background | undefined
  /** What was read of blobs, for their proofs. Undefined: it is not kept. */
  gathered: GatheredBlobs | undefined
  examinations: Examinations
  /** What engines fetch themselves. */
  left: LeftLayers
  /** Of which images are served. */
  platform: Platform
  /** Grows with every byte that is fetched or verified: as long as it does, reads wait. */
  progress(): number
  /** Has done what the first image would wait for. To be called when nobody waits for the agent itself. */
  standBy(): void
  /** Stops fetching and frees everything; mounts must be gone. */
  close(): Promise<void>
}

/** Only where it was asked for. @throws Failure usage, system */
async function openSealed(values: Values, cache: string): Promise<SealedCredentials | undefined> {
  if (values['seal-credentials'] !== true) return undefined
  const state = stateDirectory(process.env, thisUser())
  return new SealedCredentials(await sealKey(process.env, state, cache), new SealedFolder(cache), log)
}

/** @throws Failure usage */
export function wantedRung(values: Values): Rung | 'auto' {
  const wanted = text(values, 'mount') ?? 'auto'
  const found = ['auto' as const, ...RUNGS].find((each) => each === wanted)
  if (found === undefined)
    throw Failure.usage(`--mount ${wanted} is not known`, { fix: `Use auto, ${RUNGS.join(' or ')}.` })
  return found
}

/** --cache-max and --cache-min-free. @throws Failure usage */
export function roomLimits(values: Values): RoomLimits {
  const [max, minFree] = [text(values, 'cache-max'), text(values, 'cache-min-free')]
  return {
    max: max === undefined ? ROOM_LIMITS.max : parseAmount(max, '--cache-max'),
    minFree: minFree === undefined ? ROOM_LIMITS.minFree : parseAmount(minFree, '--cache-min-free'),
  }
}

/** --keeper-patience, in milliseconds. @throws Failure usage */
function keeperPatience(values: Values): number {
  const given = text(values, 'keeper-patience')
  if (given === undefined) return PATIENCE_MS
  const seconds = /^\d{1,5}$/.test(given) ? Number(given) : Number.NaN
  if (Number.isNaN(seconds)) throw Failure.usage(`--keeper-patience ${given} is not a number of seconds`)
  return seconds * 1000
}

/** --on-exit. @throws Failure usage */
function keepsOnExit(values: Values): boolean {
  const given = text(values, 'on-exit') ?? 'unmount'
  if (given !== 'keep' && given !== 'unmount') throw Failure.usage(`--on-exit ${given} is neither keep nor unmount`)
  return given === 'keep'
}

/**
 * What an agent is for.
 *
 * names    engines will start programs from images, whose layers have names: what that takes is begun before it is asked for, and threads
 *          stand by
 * starts   programs will be started from one image: the same, but nothing is read for names
 * reading  a command looks at an image, and ends
 */
export type Purpose = 'names' | 'starts' | 'reading'

/** The same folder holds worker.ts in a checkout and worker.js in the package. */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url)

/** Of what was not proven. */
function gatheredBlobs({ wholes, proofs, room }: Store): GatheredBlobs {
  const isProven = async (blob: Digest, together: boolean) =>
    (await proofs.about(blob, together)).some(({ verdict }) => verdict === 'proven')
  return new GatheredBlobs({
    begin: () => wholes.begin(),
    hasRoom: (bytes) => room.hasRoom(bytes),
    isWanted: async (blob) => !(wholes.has(blob) || (await isProven(blob, false)) || (await isProven(blob, true))),
  })
}

/** @param image as openRegistries has it @param asked the registries, where one was asked for the image already */
export async function openAgent(
  values: Values,
  image: Reference | undefined,
  purpose: Purpose,
  asked?: Asked,
): Promise<Agent> {
  const manners = purpose === 'reading' ? undefined : backgroundOf(values)
  const platform = platformOf(values)
  const native = openNative()
  const cache = resolve(text(values, 'cache') ?? places().cache)
  const registries = asked?.registries ?? openRegistries(values, image, await openSealed(values, cache))
  const limits = roomLimits(values)
  const { disk } = native
  const budget = new Budget(BUDGET, new Wires(manners))
  const inMemory = (bytes: number) => budget.count(bytes)
  const store = await Store.open(cache, native, log, disk === null ? { limits } : { disk, limits, inMemory })
  asked?.cacheIsOpen((digest) => store.getObject(digest))
  const codecs = new CodecPool({ warn: log, worker: WORKER })
  const builder = new IndexBuilder({ lender: codecs, usual: native.usualTrees })
  const closing = new AbortController()
  const gathered = purpose === 'names' && manners !== undefined ? gatheredBlobs(store) : undefined
  const examinations = new Examinations(store, builder, log, closing.signal, { gathered, memory: budget })
  const layers = new Layers({
    store,
    codecs,
    builder,
    budget,
    isFilled: manners !== undefined,
    examiner: examinations,
    credentials: (repository) => registries.credentialsOf(repository),
    answers: (origin) => registries.answers(origin),
    closing,
    log,
  })
  const learned = openLearned({ store, registries, builder, platform, closing: closing.signal })
  const background =
    manners &&
    new Background({
      wires: budget.wires,
      hasRoom: (bytes) => store.room.hasRoom(bytes),
      pause: (ms, signal) => sleep(ms, undefined, { ref: false, signal }),
      log,
    })
  const ahead = { names: nameAhead, starts: startAhead, reading: openAhead }[purpose]
  if (purpose === 'names') codecs.standBy()
  const early = (image: EarlyImage) => {
    codecs.standBy() // while the index is on its way; before, they would only keep the request for the manifest waiting
    const isLazy = [...layers.plan(image.manifest).values()].some((each) => !('why' in each))
    if (isLazy && purpose !== 'reading') learned.expect(image)
    void ahead(image, layers, {
      prefetch: (layer) => learned.prefetch(image, layer),
      early: (shown) => learned.early(image, shown),
    }) // never rejects
  }
  const images = new Images(asked?.sources ?? registries, store, platform, log, early, gathered)
  return {
    native,
    keeper: Keeper.current(process.env, keeperPatience(values)),
    keepsOnExit: keepsOnExit(values),
    registries,
    store,
    codecs,
    budget,
    builder,
    images,
    layers,
    learned,
    background,
    gathered,
    examinations,
    left: new LeftLayers(log),
    platform,
    progress: () => registries.counters().fetched + codecs.counters().verified,
    standBy: () => registries.prepare(),
    async close() {
      await background?.close()
      await layers.close()
      await gathered?.close()
      await Promise.all([codecs.close(), builder.close(), registries.close()])
      await store.close()
    },
  }
}
