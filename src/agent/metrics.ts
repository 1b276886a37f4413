// The agent's numbers as Prometheus reads them: the list of gauges.ts, and nothing counted a second time. docs/metrics.md has each.
import { Counter, Histogram, Gauge as Instant, Registry } from 'prom-client'
import type { Distribution, DistributionName, Gauge, GaugeName } from './gauges.ts'

/** Labels have few values, and no image's, layer's or host's name is one. */
interface Metric {
  name: string
  help: string
  labels?: Readonly<Record<string, string>>
}

const metric = (name: string, help: string, labels?: Metric['labels']): Metric =>
  labels === undefined ? { name, help } : { name, help, labels }

const FUSE = 'Requests of the kernel'
const RETRIES = 'Requests that were tried again, by why'
const LEFT = 'Layers that engines fetched themselves, by why'
const DAMAGE = 'Bytes that were not what their digest says, none of which were shown'

/** In base units. */
export const METRICS: Record<GaugeName, Metric> = {
  layers: metric('lazylayer_layers', 'Trees that are shown'),
  bytes_served: metric('lazylayer_read_bytes_total', 'Bytes answered to reads that came to the agent'),
  bytes_fetched: metric('lazylayer_fetched_bytes_total', 'Bytes received from registries'),
  bytes_prefetched: metric('lazylayer_prefetched_bytes_total', 'Of these, what came ahead of who may read it'),
  bytes_verified: metric('lazylayer_verified_bytes_total', 'Decoded bytes that passed their digests'),
  bytes_reused: metric('lazylayer_reused_bytes_total', 'Bytes copied from another layer instead of fetched'),
  requests: metric('lazylayer_registry_requests_total', 'Requests to registries'),
  connections: metric('lazylayer_registry_connections_total', 'Connections to registries and proxies'),
  requests_now: metric('lazylayer_registry_requests_under_way', 'Requests to registries that are under way now'),
  retries_unanswered: metric('lazylayer_registry_retries_total', RETRIES, { reason: 'unanswered' }),
  retries_refused: metric('lazylayer_registry_retries_total', RETRIES, { reason: 'refused' }),
  tokens: metric('lazylayer_registry_tokens_total', 'Access tokens asked for'),
  tokens_refused: metric('lazylayer_registry_tokens_refused_total', 'Of these, those that were not given'),
  hedges: metric('lazylayer_registry_hedges_total', 'Reads that were asked for on a second connection as well'),
  outages: metric(
    'lazylayer_registry_outages_total',
    'Times that a registry, or a blob of it, gave nothing for too long',
  ),
  outages_now: metric('lazylayer_registry_outages', 'How many of them give nothing now'),
  reads: metric('lazylayer_fuse_requests_total', FUSE, { op: 'read' }),
  reads_missed: metric('lazylayer_reads_waited_total', 'Reads that waited for at least one chunk'),
  reads_waiting: metric('lazylayer_reads_waiting', 'Reads that wait for a chunk now'),
  reads_failed: metric('lazylayer_reads_failed_total', 'Reads that ended with an error'),
  reads_failed_at_once: metric('lazylayer_reads_failed_at_once_total', 'Misses refused at once during an outage'),
  expired: metric('lazylayer_fuse_expired_total', 'Reads and lookups that passed their deadline'),
  lookups: metric('lazylayer_fuse_requests_total', FUSE, { op: 'lookup' }),
  lookups_refused: metric('lazylayer_lookups_refused_total', 'Lookups for which there was no room to wait'),
  chunks_decoded: metric('lazylayer_chunks_decoded_total', 'Chunks decoded, verified and written'),
  chunks_corrupt: metric('lazylayer_verify_failures_total', DAMAGE, { kind: 'chunk' }),
  chunks_reverified: metric('lazylayer_chunks_reverified_total', 'Chunks of an earlier life that passed again'),
  chunks_profiled: metric('lazylayer_chunks_profiled_total', 'Chunks asked for ahead because a profile names them'),
  codecs_busy: metric('lazylayer_codec_threads_busy', 'Threads that decode or verify now'),
  starts_watched: metric('lazylayer_starts_watched', 'Images whose reads are taken down now'),
  images_corrupt: metric('lazylayer_verify_failures_total', DAMAGE, { kind: 'image' }),
  records_corrupt: metric('lazylayer_verify_failures_total', DAMAGE, { kind: 'record' }),
  quarantined: metric('lazylayer_layers_quarantined', 'Layers whose index shows another tree than their tar has'),
  believed: metric('lazylayer_layers_believed', 'Layers shown under DiffIDs that are believed and not proven yet'),
  left_unsupported: metric('lazylayer_layers_left_total', LEFT, { reason: 'unsupported' }),
  left_denied: metric('lazylayer_layers_left_total', LEFT, { reason: 'denied' }),
  left_unavailable: metric('lazylayer_layers_left_total', LEFT, { reason: 'unavailable' }),
  left_corrupt: metric('lazylayer_layers_left_total', LEFT, { reason: 'corrupt' }),
  left_other: metric('lazylayer_layers_left_total', LEFT, { reason: 'other' }),
  cache_bytes: metric('lazylayer_cache_bytes', 'What the cache takes on disk'),
  cache_aside: metric('lazylayer_cache_aside_bytes', 'What of it is set aside'),
  cache_limit: metric('lazylayer_cache_limit_bytes', 'What it may take'),
  cache_freed: metric('lazylayer_cache_freed_bytes_total', 'What was taken back from it to make room'),
  cache_in_memory: metric('lazylayer_cache_memory_bytes', 'Chunks in memory that the disk did not take'),
  mounts_evicted: metric('lazylayer_mounts_evicted_total', 'EROFS mounts ended because there were too many'),
  background_layers: metric(
    'lazylayer_background_layers',
    'Layers that are fetched in the background, or wait for that',
  ),
  background_left: metric('lazylayer_background_left_bytes', 'What of these is still to come'),
  background_bytes: metric('lazylayer_background_bytes_total', 'What came in the background'),
  cpu: metric('process_cpu_seconds_total', 'Processor time of the agent, in user and kernel space'),
  event_loop: metric('lazylayer_event_loop_busy_seconds_total', 'Time that the main thread was at work'),
  memory: metric('process_resident_memory_bytes', 'Resident memory of the agent'),
  started: metric('process_start_time_seconds', 'When the agent began, in seconds since 1970'),
}

export const DISTRIBUTIONS: Record<DistributionName, Metric> = {
  read_waits: metric('lazylayer_read_wait_seconds', 'How long reads took that had to wait for a chunk'),
  registry_answers: metric('lazylayer_registry_answer_seconds', 'From sending a request until its answer begins'),
  snapshot_calls: metric('lazylayer_snapshot_call_seconds', 'How long calls of containerd took to be answered'),
}

export const INFO = metric('lazylayer_info', 'Always 1; its labels tell what runs')

/** The text of a scrape. @param info labels of lazylayer_info */
export async function metricsText(
  gauges: readonly Gauge[],
  distributions: readonly Distribution[],
  info: Readonly<Record<string, string>>,
): Promise<string> {
  const registry = new Registry()
  const registers = [registry]
  new Instant({ ...INFO, labelNames: Object.keys(info), registers }).set(info, 1)
  for (const { name, kind, value } of gauges) {
    const { labels = {}, ...named } = METRICS[name]
    const settings = { ...named, labelNames: Object.keys(labels), registers }
    // one that has labels has several gauges
    const known = registry.getSingleMetric(named.name)
    if (kind === 'counter') ((known as Counter | undefined) ?? new Counter(settings)).inc(labels, value)
    else ((known as Instant | undefined) ?? new Instant(settings)).set(labels, value)
  }
  for (const each of Object.keys(DISTRIBUTIONS) as DistributionName[]) {
    addHistogram(
      registry,
      DISTRIBUTIONS[each],
      distributions.filter(({ name }) => name === each),
    )
  }
  return await registry.metrics()
}

/** What was counted elsewhere: a histogram of prom-client's counts by itself, so that a gauge stands for it. */
function addHistogram(registry: Registry, { name, help }: Metric, all: readonly Distribution[]): void {
  const histogram = new Histogram({ name, help, registers: [] })
  const standIn = new Instant({ name, help, registers: [registry] })
  const values = all.flatMap(({ name: _, upTo, counts, seconds, ...labels }) => {
    let sum = 0
    const buckets = counts.map((count, i) => {
      sum += count
      return { metricName: `${name}_bucket`, labels: { le: upTo[i] ?? '+Inf', ...labels }, value: sum }
    })
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: seconds },
      { metricName: `${name}_count`, labels, value: sum },
    ]
  })
  standIn.get = async () => ({ ...(await histogram.get()), values })
}
