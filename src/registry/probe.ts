// What a host that may answer for an image is like: how it is reached, whether it lets us in, and whether it honours ranges.
import { Failure } from '../errors.ts'
import type { Descriptor, Platform } from '../image/manifest.ts'
import type { RegistryReference } from '../image/reference.ts'
import type { Standing } from './auth.ts'
import type { Answer } from './client.ts'
import type { Protocol } from './connections.ts'
import type { Endpoint } from './hosts.ts'
import { RegistrySource } from './registry-source.ts'
import type { Repository } from './repository.ts'

/** What was found of one endpoint, as far as one got. */
export interface Probe {
  endpoint: Endpoint
  /** How it is reached; undefined: not at all. */
  scheme: 'https' | 'http' | undefined
  protocol: Protocol | undefined
  standing: Standing
  /** Of a layer's bytes; undefined where there is no layer that is long enough to tell, or one did not get that far. */
  ranges: Ranges | undefined
  /** What ended it. */
  failure: Failure | undefined
}

export interface Ranges {
  honoured: boolean
  /** Host that a redirect led to; undefined: the registry sends blobs itself. */
  storage: string | undefined
}

/** Asks one repository: the manifest, then one byte of its largest layer. @throws Failure aborted */
export async function probe(
  repository: Repository,
  reference: RegistryReference,
  platform: Platform,
  protocol: (origin: string) => Protocol | undefined,
  signal: AbortSignal,
): Promise<Probe> {
  const { endpoint, host } = repository
  let ranges: Ranges | undefined
  let failure: Failure | undefined
  try {
    const manifest = await new RegistrySource(reference, async () => [repository]).manifest(platform, { signal })
    const [largest] = manifest.layers.toSorted((a, b) => b.size - a.size)
    if (largest !== undefined && largest.size > 1) ranges = await rangesOf(repository, largest, signal)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    failure = error
  }
  const { scheme } = host
  const server = repository.server
  return {
    endpoint,
    scheme: scheme === undefined ? undefined : scheme === 'https:' ? 'https' : 'http',
    protocol: scheme === undefined ? undefined : protocol(new URL(`${scheme}//${server}`).origin),
    standing: host.authority.standing(endpoint.repository),
    ranges,
    failure,
  }
}

/** A cache in front of a registry sends a blob whole once, while it fetches it. */
const TRIES_MAX = 3

async function rangesOf(repository: Repository, { digest, size }: Descriptor, signal: AbortSignal): Promise<Ranges> {
  const wanted = {
    path: `blobs/${digest}`,
    lasting: true,
    what: `blob ${digest}`,
    // the last byte, because a host that ignores ranges sends the first one
    headers: () => ({ range: `bytes=${size - 1}-${size - 1}` }),
    priority: 'demand' as const,
    signal,
  }
  const ask = () =>
    repository.fetch(wanted, async (answer: Answer) => {
      const range = answer.header('content-range')?.trim().toLowerCase()
      const last = `bytes ${size - 1}-${size - 1}`
      const honoured = answer.status === 206 && (range === `${last}/${size}` || range === `${last}/*`)
      const storage = answer.redirect === undefined ? undefined : answer.url.host
      return { whole: answer.status === 200, ranges: { honoured, storage } }
    })
  let found = await ask()
  const { storage } = found.ranges // later requests go to the storage without being led there
  for (let tries = 1; found.whole && tries < TRIES_MAX; tries++) found = await ask()
  return { ...found.ranges, storage }
}
