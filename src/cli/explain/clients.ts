// How each client of containerd's kind gets an image from this agent, and what to do where it gets it whole: pure, from what is known of its
// layers. What clients do was seen with containerd 1.7.24, 2.1.9 and 2.4.2, nerdctl 2.2.1 and 2.3.5, BuildKit 0.34.2 and
// Docker 26.1.5 (docs/containerd.md).

import type { Engine, Era } from '../../engines/versions.ts'
import { HOW_TO_CONVERT } from '../../format/formats.ts'
import type { Ways } from './layer.ts'

/** What is known of an image for them. */
export interface ClientFacts {
  /** Layers that are served lazily, and all. */
  lazy: number
  layers: number
  /** Of the lazy ones those that BuildKit knows by their indexes: others are read whole before it is shown them. */
  bound: number
  /** Why nobody can be given the image; undefined: it can be served. */
  refused: string | undefined
  /** Whether some of its layers show one tree together, so that a client that unpacks them itself gets something else. */
  together: boolean
}

/**
 * lazy    the client fetches no layer, and the agent what is read
 * whole   all layers are fetched before a program starts
 * fails   its pull ends in an error
 */
export interface ClientWay {
  client: string
  way: 'lazy' | 'whole' | 'fails'
  /** Where it is not lazy, or not by itself. */
  why: string | null
  /** What to do, a sentence; null: nothing. */
  fix: string | null
}

interface Client {
  name: string
  /** Undefined: it never asks. */
  asks: { fix: string } | undefined
  /** Whether it knows layers as BuildKit does. */
  byIndex?: true
  why?: string
  fix?: string
}

const STORE_ENGINES = [
  { engine: 'podman', name: 'Podman' },
  { engine: 'crio', name: 'CRI-O' },
] as const
const UNBOUND = 'known to BuildKit by their DiffIDs alone, and so proven first'
const ABOVE = 'what the layers above say'
const SETUP = 'lazylayer setup containerd'
const FILL = 'commit, save and convert want all layers: lazylayer fill brings them'

/** Of the same image each does the same, whatever the image is. */
const CLIENTS: readonly Client[] = [
  { name: 'kubelet, crictl (containerd ≥ 2.1)', asks: { fix: `${SETUP} (snapshotter, unpack_config)` } },
  { name: 'kubelet, crictl (containerd ≤ 2.0)', asks: { fix: `${SETUP} (snapshotter, annotations)` } },
  { name: 'ctr images pull (containerd ≥ 2.1)', asks: { fix: `${SETUP}; ctr images pull --snapshotter lazylayer` } },
  {
    name: 'ctr images pull --local, or containerd ≤ 2.0',
    asks: undefined,
    why: 'it fetches all layers before it asks for one',
    fix: 'crictl pull, or nerdctl --snapshotter stargz pull; ctr run is lazy of what these have pulled',
  },
  { name: 'nerdctl ≥ 2.3 (containerd ≥ 2.1)', asks: { fix: 'lazylayer setup nerdctl' }, why: FILL },
  {
    name: 'nerdctl ≤ 2.2, or containerd ≤ 2.0',
    asks: { fix: 'lazylayer setup nerdctl (snapshotter stargz)' },
    why: `it goes by the name: lazy as stargz, whole as lazylayer; ${FILL}`,
  },
  {
    name: 'BuildKit, containerd worker',
    byIndex: true,
    asks: { fix: 'lazylayer setup buildkit (snapshotter stargz)' },
    why: 'it goes by the name: lazy as stargz, whole as lazylayer',
  },
  {
    name: 'BuildKit, OCI worker',
    byIndex: true,
    asks: { fix: 'lazylayer setup buildkit (snapshotter stargz, proxySnapshotterPath)' },
    why: 'it goes by the name: lazy as stargz, whole as lazylayer',
  },
  {
    name: "Docker's containerd image store",
    asks: { fix: 'docs/containerd.md (Docker)' },
    why: 'image ls, commit, save and what build exports want all layers: lazylayer fill brings them',
  },
]

/** What each of them does with an image. */
export function clientWays(facts: ClientFacts): ClientWay[] {
  return CLIENTS.map((each) => wayOfClient(each, facts))
}

function wayOfClient({ name: client, asks, why, fix, byIndex }: Client, facts: ClientFacts): ClientWay {
  const { layers, refused, together } = facts
  const lazy = byIndex ? facts.bound : facts.lazy
  if (refused !== undefined) return { client, way: 'fails', why: refused, fix: null }
  if (asks === undefined) {
    if (together) return { client, way: 'fails', why: 'nobody but the agent can unpack these layers', fix: fix ?? null }
    return { client, way: 'whole', why: why ?? null, fix: fix ?? null }
  }
  if (lazy === 0)
    return {
      client,
      way: 'whole',
      why:
        facts.lazy > 0
          ? `the agent fetches all of its layers whole (${UNBOUND})`
          : 'none of its layers is lazy; the agent fetches them, once for all clients',
      fix: HOW_TO_CONVERT,
    }
  const eager = layers - lazy
  const which = facts.lazy > lazy ? UNBOUND : 'plain'
  const plain = eager === 0 ? [] : [`the agent fetches ${eager} of ${layers} layers whole (${which})`]
  const reasons = [...plain, ...(why === undefined ? [] : [why])]
  return { client, way: 'lazy', why: reasons.length === 0 ? null : reasons.join('; '), fix: asks.fix }
}

/** What Podman and CRI-O do, of whichever version is here, else of the newest. @param eras of those that are here */
export function storeWays(ways: readonly Ways[], eras: Readonly<Partial<Record<Engine, Era>>>): ClientWay[] {
  return STORE_ENGINES.map(({ engine, name }): ClientWay => {
    const era = eras[engine] ?? 'image'
    const all = ways.map((each) => each[era])
    const client = `${name} (${eras[engine] === undefined ? 'newest' : 'as it is here'})`
    const first = all.find(({ door }) => door === undefined)
    const failing = all.find((each) => each.door === undefined && each.fails)
    if (failing !== undefined) return { client, way: 'fails', why: failing.why ?? null, fix: null }
    const isLazy = all.some((each) => each.door !== undefined && each.lazy)
    if (first?.door !== undefined || first === undefined)
      return { client, way: isLazy ? 'lazy' : 'whole', why: null, fix: `lazylayer setup ${engine}` }
    const pulled = all.filter(({ door }) => door === undefined).length
    const why = pulled === all.length ? first.why : `${pulled} of ${all.length} layers are pulled: ${first.why}`
    return { client, way: isLazy ? 'lazy' : 'whole', why, fix: ABOVE }
  })
}
