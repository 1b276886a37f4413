// What an agent counts and measures: one list of named numbers, from which all that tells of them is made.
import type { CodecCounters } from '../codec/pool.ts'
import type { SessionCounters, WaitCounters } from '../mount/native.ts'
import type { Counters } from '../registry/client.ts'
import type { AnswerDurations } from '../registry/pulse.ts'
import type { CallDurations } from '../snapshotter/call-times.ts'
import type { CacheSize } from '../store/aside.ts'
import type { LeftWhy } from './left-layers.ts'

/** What is counted. */
type Unit =
  | 'bytes'
  | 'chunks'
  | 'connections'
  | 'files'
  | 'images'
  | 'layers'
  | 'lookups'
  | 'mounts'
  | 'outages'
  | 'reads'
  | 'requests'
  | 'seconds'
  | 'threads'

type Kind = 'counter' | 'gauge'

/** Names are in lower case, with underscores. counter: it begins with the agent, and only grows. gauge: it is what it is now. */
const GAUGES = {
  layers: ['gauge', 'layers'],
  bytes_served: ['counter', 'bytes'],
  bytes_fetched: ['counter', 'bytes'],
  bytes_prefetched: ['counter', 'bytes'],
  bytes_verified: ['counter', 'bytes'],
  bytes_reused: ['counter', 'bytes'],
  requests: ['counter', 'requests'],
  connections: ['counter', 'connections'],
  requests_now: ['gauge', 'requests'],
  retries_unanswered: ['counter', 'requests'],
  retries_refused: ['counter', 'requests'],
  tokens: ['counter', 'requests'],
  tokens_refused: ['counter', 'requests'],
  hedges: ['counter', 'requests'],
  outages: ['counter', 'outages'],
  outages_now: ['gauge', 'outages'],
  reads: ['counter', 'reads'],
  reads_missed: ['counter', 'reads'],
  reads_waiting: ['gauge', 'reads'],
  reads_failed: ['counter', 'reads'],
  reads_failed_at_once: ['counter', 'reads'],
  expired: ['counter', 'requests'],
  lookups: ['counter', 'lookups'],
  lookups_refused: ['counter', 'lookups'],
  chunks_decoded: ['counter', 'chunks'],
  chunks_corrupt: ['counter', 'chunks'],
  chunks_reverified: ['counter', 'chunks'],
  chunks_profiled: ['counter', 'chunks'],
  codecs_busy: ['gauge', 'threads'],
  starts_watched: ['gauge', 'images'],
  images_corrupt: ['counter', 'files'],
  records_corrupt: ['counter', 'files'],
  quarantined: ['gauge', 'layers'],
  believed: ['gauge', 'layers'],
  left_unsupported: ['counter', 'layers'],
  left_denied: ['counter', 'layers'],
  left_unavailable: ['counter', 'layers'],
  left_corrupt: ['counter', 'layers'],
  left_other: ['counter', 'layers'],
  cache_bytes: ['gauge', 'bytes'],
  cache_aside: ['gauge', 'bytes'],
  cache_limit: ['gauge', 'bytes'],
  cache_freed: ['counter', 'bytes'],
  cache_in_memory: ['gauge', 'bytes'],
  mounts_evicted: ['counter', 'mounts'],
  background_layers: ['gauge', 'layers'],
  background_left: ['gauge', 'bytes'],
  background_bytes: ['counter', 'bytes'],
  cpu: ['counter', 'seconds'],
  event_loop: ['counter', 'seconds'],
  memory: ['gauge', 'bytes'],
  started: ['gauge', 'seconds'],
} as const satisfies Record<string, readonly [Kind, Unit]>

export type GaugeName = keyof typeof GAUGES

export interface Gauge {
  readonly name: GaugeName
  readonly kind: Kind
  readonly unit: Unit
  readonly value: number
}

export type DistributionName = 'read_waits' | 'registry_answers' | 'snapshot_calls'

/** Durations, counted by how long they were. */
export interface Distribution extends WaitCounters {
  readonly name: DistributionName
  /** Of snapshot_calls: what was asked for. */
  readonly call?: string
  /** Of registry_answers: what was asked for. */
  readonly kind?: string
  /** Of both: what was answered. */
  readonly code?: string
}

/** The same list as scripts read it. */
export interface Totals {
  bytes: { served: number; fetched: number; verified: number }
  requests: number
  counters: Readonly<Record<string, number>>
}

/** What the numbers are made of. */
export interface Measured {
  native: SessionCounters
  registries: Counters
  answers: readonly AnswerDurations[]
  /** Of containerd's. */
  calls: readonly CallDurations[]
  codecs: CodecCounters
  codecsBusy: number
  layers: number
  /** Registries, or blobs of them, that give nothing now. */
  outagesNow: number
  /** Undefined: it was not measured yet. */
  cache: CacheSize | undefined
  cacheLimit: number | undefined
  corruptImages: number
  corruptRecords: number
  quarantined: number
  /** Layers that are shown because they are believed. */
  believed: number
  /** Layers that engines fetch themselves. */
  left: Readonly<Record<LeftWhy, number>>
  /** Chunks that profiles had asked for. */
  chunksProfiled: number
  /** Images whose reads are taken down. */
  startsWatched: number
  cacheFreed: number
  inMemory: number
  mountsEvicted: number
  /** What is fetched in the background. */
  background: { layers: number; left: number; came: number }
  /** Of this process. */
  cpuSeconds: number
  /** That the main thread was at work. */
  eventLoopSeconds: number
  residentBytes: number
  /** Since 1970. */
  startedSeconds: number
}

/** The list in the order in which it is told, each with its name once. What was not measured yet is not in it. */
export function gaugesOf(of: Measured): Gauge[] {
  const { native, registries, codecs, cache, left } = of
  const values: Record<GaugeName, number | undefined> = {
    layers: of.layers,
    bytes_served: Number(native.served),
    bytes_fetched: registries.fetched,
    bytes_prefetched: registries.prefetched,
    bytes_verified: codecs.verified,
    bytes_reused: codecs.copied,
    requests: registries.requests,
    connections: registries.connections,
    requests_now: registries.underWay,
    retries_unanswered: registries.retriesUnanswered,
    retries_refused: registries.retries - registries.retriesUnanswered,
    tokens: registries.tokens,
    tokens_refused: registries.tokensRefused,
    hedges: registries.hedges,
    outages: registries.outages,
    outages_now: of.outagesNow,
    reads: Number(native.reads),
    reads_missed: Number(native.missed),
    reads_waiting: Number(native.waiting),
    reads_failed: Number(native.failed),
    reads_failed_at_once: registries.failedAtOnce,
    expired: Number(native.expired),
    lookups: Number(native.lookups),
    lookups_refused: Number(native.refused),
    chunks_decoded: codecs.decoded,
    chunks_corrupt: codecs.corrupt,
    chunks_reverified: codecs.reverified,
    chunks_profiled: of.chunksProfiled,
    codecs_busy: of.codecsBusy,
    starts_watched: of.startsWatched,
    images_corrupt: of.corruptImages,
    records_corrupt: of.corruptRecords,
    quarantined: of.quarantined,
    believed: of.believed,
    left_unsupported: left.unsupported,
    left_denied: left.denied,
    left_unavailable: left.unavailable,
    left_corrupt: left.corrupt,
    left_other: left.other,
    cache_bytes: cache?.bytes,
    cache_aside: cache?.aside,
    cache_limit: of.cacheLimit,
    cache_freed: of.cacheFreed,
    cache_in_memory: of.inMemory,
    mounts_evicted: of.mountsEvicted,
    background_layers: of.background.layers,
    background_left: of.background.left,
    background_bytes: of.background.came,
    cpu: of.cpuSeconds,
    event_loop: of.eventLoopSeconds,
    memory: of.residentBytes,
    started: of.startedSeconds,
  }
  return (Object.keys(GAUGES) as GaugeName[]).flatMap((name) => {
    const [kind, unit] = GAUGES[name]
    const value = values[name]
    return value === undefined ? [] : [{ name, kind, unit, value }]
  })
}

/** What is a distribution rather than a number. */
export function distributionsOf({
  native,
  answers,
  calls,
}: Pick<Measured, 'native' | 'answers' | 'calls'>): Distribution[] {
  return [
    { name: 'read_waits', ...native.waits },
    ...answers.map((each) => ({ name: 'registry_answers' as const, ...each })),
    ...calls.map((each) => ({ name: 'snapshot_calls' as const, ...each })),
  ]
}

/** The values by name, and those that most look for. */
export function totalsOf(gauges: readonly Gauge[]): Totals {
  const counters: Readonly<Record<string, number>> = Object.fromEntries(gauges.map(({ name, value }) => [name, value]))
  const { bytes_served: served = 0, bytes_fetched: fetched = 0, bytes_verified: verified = 0, requests = 0 } = counters
  return { bytes: { served, fetched, verified }, requests, counters }
}
