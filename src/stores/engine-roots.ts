// Which layers the storage roots of engines refer to. A listed layer that an image or a container refers to must stay listed: engines
// keep its name only, and fail without it. A root that cannot be read for sure counts as referring to every layer.
import { Worker } from 'node:worker_threads'
import { describe, Failure } from '../errors.ts'
import { linkName } from './chain.ts'
import type { EngineRoot, Read, References } from './read-roots.ts'

/** 10,000 layers take 2 s on a busy machine. A home on a network that is gone never answers. */
const DEADLINE_MS = 60_000

/** The same folder holds a .ts file in a checkout and a .js file in the package. */
const WORKER = new URL(
  import.meta.url.endsWith('.ts') ? './engine-roots-worker.ts' : './engine-roots-worker.js',
  import.meta.url,
)

/** A layer of our own store. */
export interface ListedLayer {
  id: string
  parent: string | undefined
}

/** Those of `listed` that are referred to, with everything below them: an image names its top layer only. */
export function inUse(listed: Iterable<ListedLayer>, { ids, links }: References): Set<string> {
  const parents = new Map<string, string | undefined>()
  for (const { id, parent } of listed) parents.set(id, parent)
  const used = new Set<string>()
  for (const id of parents.keys()) {
    if (!ids.has(id) && !links.has(linkName(id))) continue
    for (let at: string | undefined = id; at !== undefined && parents.has(at) && !used.has(at); at = parents.get(at)) {
      used.add(at)
    }
  }
  return used
}

/**
 * Everything that these roots refer to; roots that are not there refer to nothing.
 * @returns undefined when one of them cannot be read for sure: then anything may be referred to. `warn` hears why
 * @throws Failure aborted
 */
export async function referenced(
  roots: readonly EngineRoot[],
  warn: (message: string) => void,
  signal?: AbortSignal,
): Promise<References | undefined> {
  const unknown = (why: string) => {
    warn(`which layers engines use is not known: ${why}`)
    return undefined
  }
  const given = () => Failure.aborted('reading the storage roots of engines was given up')
  if (signal?.aborted) throw given()
  const worker = new Worker(WORKER, { workerData: roots })
  const ended = Promise.withResolvers<Read>()
  worker.once('message', ended.resolve)
  worker.once('error', (error) => ended.resolve({ why: describe(error) }))
  worker.once('exit', () => ended.resolve({ why: 'its reader ended too early' }))
  const timer = setTimeout(() => ended.resolve({ why: `they were not read within ${DEADLINE_MS} ms` }), DEADLINE_MS)
  const stop = () => ended.reject(given())
  signal?.addEventListener('abort', stop, { once: true })
  try {
    const read = await ended.promise
    return 'why' in read ? unknown(read.why) : read
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', stop)
    void worker.terminate() // it may be waiting for a file that never answers; nothing waits for it
  }
}
