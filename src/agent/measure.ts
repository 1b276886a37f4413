// Looks at everything that an agent counts, once.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from '../errors.ts'
import type { Recorder } from '../layer/recorder.ts'
import type { KernelMounts } from '../mount/kernel-mounts.ts'
import type { Session } from '../mount/session.ts'
import type { CallDurations } from '../snapshotter/call-times.ts'
import type { CacheSize } from '../store/aside.ts'
import type { Store } from '../store/store.ts'
import type { Agent } from './agent.ts'
import type { Measured } from './gauges.ts'
import { LEFT, type LeftWhy } from './left-layers.ts'
import { log } from './log.ts'

/** Of a cache with some ten thousand files, on a busy disk. */
const SIZE_WAIT_MS = 500

/** A mount, with its agent. */
export interface Measurable {
  session: Session
  /** What is mounted over the session in the kernel, if anything is. */
  covers: KernelMounts | undefined
  agent: Agent
  layers(): number
  /** How long containerd's calls took; of who serves none, nothing. */
  calls(): readonly CallDurations[]
  /** Layers that are shown under DiffIDs that are only believed. */
  believed(): number
  /** Ends before the mount does, while all of it can still be looked at. */
  recorder: Pick<Recorder, 'size' | 'end'>
}

/** Costs no more with more images or layers. */
export async function measure({
  session,
  covers,
  agent,
  layers,
  calls,
  believed,
  recorder,
}: Measurable): Promise<Measured> {
  const { registries, codecs, store, examinations, learned, background, left } = agent
  const cache = await cacheSize(store)
  const { user, system } = process.cpuUsage()
  return {
    native: session.counters(),
    registries: registries.counters(),
    answers: registries.times(),
    calls: calls(),
    codecs: codecs.counters(),
    codecsBusy: codecs.busy,
    layers: layers(),
    outagesNow: registries.outages().length,
    cache,
    cacheLimit: store.room.limit,
    corruptImages: store.counters.corruptImages,
    corruptRecords: store.counters.corruptRecords,
    quarantined: examinations.quarantine.size,
    believed: believed(),
    left: Object.fromEntries(LEFT.map((why) => [why, left.count(why)])) as Record<LeftWhy, number>,
    chunksProfiled: learned.chunks,
    startsWatched: recorder.size,
    cacheFreed: store.room.freed,
    inMemory: store.room.spill?.bytes ?? 0,
    mountsEvicted: covers?.evicted ?? 0,
    background: background?.progress ?? { layers: 0, left: 0, came: 0 },
    cpuSeconds: (user + system) / 1e6,
    eventLoopSeconds: performance.eventLoopUtilization().active / 1000,
    residentBytes: process.memoryUsage.rss(),
    startedSeconds: performance.timeOrigin / 1000,
  }
}

/** Undefined where measuring takes longer than a request should wait; the next request gets it. */
async function cacheSize(store: Store): Promise<CacheSize | undefined> {
  const size = store.size().catch((error) => log(describe(error)))
  return (await Promise.race([size, sleep(SIZE_WAIT_MS, undefined, { ref: false })])) ?? undefined
}
