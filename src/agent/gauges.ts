// What an agent counts and measures: one list of named numbers, from which all that tells of them is made.
import type { CodecCounters } from '../codec/pool.ts'
import type { SessionCounters } from '../mount/native.ts'
import type { Counters } from '../registry/client.ts'
import type { CacheSize } from '../store/aside.ts'

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

export interface Gauge {
  /** In lower case, with underscores. */
  readonly name: string
  /** counter: it begins with the agent, and only grows. gauge: it is what it is now. */
  readonly kind: 'counter' | 'gauge'
  readonly unit: Unit
  readonly value: number
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
  codecs: CodecCounters
  layers: number
  /** Registries, or blobs of them, that give nothing now. */
  outagesNow: number
  /** Undefined: it was not measured yet. */
  cache: CacheSize | undefined
  corruptImages: number
  corruptRecords: number
  quarantined: number
  /** Layers that are shown because they are believed. */
  believed: number
  /** Chunks that profiles had asked for. */
  chunksProfiled: number
  /** Images whose reads are taken down. */
  startsWatched: number
  cacheFreed: number
  inMemory: number
  mountsEvicted: number
  /** What is fetched in the background. */
  background: { layers: number; left: number; came: number }
}

/** The list in the order in which it is told, each with its name once. */
export function gaugesOf(of: Measured): Gauge[] {
  const { native, registries, codecs, cache } = of
  return [
    gauge('layers', 'layers', of.layers),
    counter('bytes_served', 'bytes', Number(native.served)),
    counter('bytes_fetched', 'bytes', registries.fetched),
    counter('bytes_verified', 'bytes', codecs.verified),
    counter('bytes_reused', 'bytes', codecs.copied),
    counter('requests', 'requests', registries.requests),
    counter('connections', 'connections', registries.connections),
    counter('retries', 'requests', registries.retries),
    counter('hedges', 'requests', registries.hedges),
    counter('outages', 'outages', registries.outages),
    gauge('outages_now', 'outages', of.outagesNow),
    counter('reads', 'reads', Number(native.reads)),
    counter('reads_missed', 'reads', Number(native.missed)),
    counter('reads_failed', 'reads', Number(native.failed)),
    counter('reads_failed_at_once', 'reads', registries.failedAtOnce),
    counter('expired', 'requests', Number(native.expired)),
    counter('lookups', 'lookups', Number(native.lookups)),
    counter('lookups_refused', 'lookups', Number(native.refused)),
    counter('chunks_corrupt', 'chunks', codecs.corrupt),
    counter('chunks_reverified', 'chunks', codecs.reverified),
    counter('chunks_profiled', 'chunks', of.chunksProfiled),
    gauge('starts_watched', 'images', of.startsWatched),
    counter('images_corrupt', 'files', of.corruptImages),
    counter('records_corrupt', 'files', of.corruptRecords),
    gauge('quarantined', 'layers', of.quarantined),
    gauge('believed', 'layers', of.believed),
    ...(cache === undefined
      ? []
      : [gauge('cache_bytes', 'bytes', cache.bytes), gauge('cache_aside', 'bytes', cache.aside)]),
    counter('cache_freed', 'bytes', of.cacheFreed),
    gauge('cache_in_memory', 'bytes', of.inMemory),
    counter('mounts_evicted', 'mounts', of.mountsEvicted),
    gauge('background_layers', 'layers', of.background.layers),
    gauge('background_left', 'bytes', of.background.left),
    counter('background_bytes', 'bytes', of.background.came),
  ]
}

/** The values by name, and those that most look for. */
export function totalsOf(gauges: readonly Gauge[]): Totals {
  const counters: Readonly<Record<string, number>> = Object.fromEntries(gauges.map(({ name, value }) => [name, value]))
  const { bytes_served: served = 0, bytes_fetched: fetched = 0, bytes_verified: verified = 0, requests = 0 } = counters
  return { bytes: { served, fetched, verified }, requests, counters }
}

function counter(name: string, unit: Unit, value: number): Gauge {
  return { name, kind: 'counter', unit, value }
}

function gauge(name: string, unit: Unit, value: number): Gauge {
  return { name, kind: 'gauge', unit, value }
}
