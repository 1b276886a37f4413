// lazylayer serve [ROOT]

import { resolve } from 'node:path'
import { openAgent, wantedRung } from '../agent/agent.ts'
import { places } from '../agent/agent-places.ts'
import { type ContainerdSocket, containerdSockets } from '../agent/containerd-sockets.ts'
import { parseAddress } from '../agent/health.ts'
import { type StoreSettings, serveStore } from '../agent/serve-store.ts'
import { storeMode } from '../agent/store-access.ts'
import { text, texts, type Values } from '../agent/values.ts'
import { Failure } from '../errors.ts'
import { readAuthFile } from '../registry/credentials.ts'
import { systemPlaces } from '../registry/places.ts'
import { DIFF_ID_POLICIES, type DiffIdPolicy } from '../stores/diff-id-policy.ts'
import { CONTAINERD_ADDRESS } from './containerd-address.ts'
import type { Invocation } from './flags.ts'
import { wantedContext } from './label.ts'
import { readyText } from './ready.ts'
import { refuseUntold } from './told.ts'

export async function serve({ positionals, values }: Invocation): Promise<number> {
  const given = text(values, 'diffid')
  const diffId = given ?? 'proven'
  const containerdDiffId = given ?? 'guarded'
  if (!isPolicy(diffId)) throw Failure.usage(`--diffid ${diffId} is not one of ${DIFF_ID_POLICIES.join(', ')}`)
  if (!isPolicy(containerdDiffId)) throw new TypeError('a policy that was one before')
  const byIndex = values['diffid-only'] !== true
  const root = positionals[0] ?? places().root
  const metrics = text(values, 'metrics')
  if (diffId === 'guarded') await refuseUntold(resolve(root), systemPlaces())
  const containerd = containerdSockets(texts(values, 'containerd'), texts(values, 'containerd-address'), CONTAINERD)
  const settings = {
    root,
    rung: wantedRung(values),
    context: await wantedContext(values),
    mode: storeMode(text(values, 'store-mode')),
    diffId,
    trust: texts(values, 'trust'),
    byIndex,
    containerd,
    criProxy: criProxy(values, containerd),
    containerdDiffId,
    metrics: metrics === undefined ? undefined : parseAddress(metrics),
  }
  const credsFile = text(values, 'creds-file')
  if (credsFile !== undefined) await readAuthFile(credsFile) // a mistake is said at the start, not at the first image
  const agent = await openAgent(values, undefined, 'names')
  try {
    return await serveStore(agent, settings, (root, rung) => {
      process.stdout.write(readyText(root, rung, settings))
    })
  } catch (error) {
    // one that goes on with a mount may do better the next time
    if (agent.keeper.held.length === 0) agent.keeper.end()
    await agent.close()
    throw error
  }
}

/** BuildKit, and nerdctl up to 2.2, take a snapshotter for a lazy one by that name alone. */
const CONTAINERD = { names: ['lazylayer', 'stargz'], address: CONTAINERD_ADDRESS }

/** @throws Failure usage */
function criProxy(values: Values, [first]: readonly ContainerdSocket[]): StoreSettings['criProxy'] {
  const path = text(values, 'cri-proxy')
  if (path === undefined) return undefined
  if (first === undefined) throw Failure.usage('--cri-proxy is of no use without --containerd')
  return { path: resolve(path), upstream: first.address }
}

function isPolicy(text: string): text is DiffIdPolicy {
  return (DIFF_ID_POLICIES as readonly string[]).includes(text)
}
