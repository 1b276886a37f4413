// What an engine calls the container whose root filesystem is mounted somewhere, by the engine's own files beside it.
//
//   GRAPH/overlay/LAYER/merged                            containers/storage: Podman, CRI-O; names in GRAPH/overlay-containers
//   /run/containerd/io.containerd.runtime.v2.task/NS/ID/rootfs   containerd; pods' names in the bundle's config.json
//   …/rootfs/overlayfs/ID                                 Docker with the containerd image store
import { dirname, join } from 'node:path'
import type { Files } from './machine.ts'

export interface NamedContainer {
  engine: 'podman' | 'crio' | 'containerd' | 'docker'
  id: string
  /** Anything: whoever started it chose it. */
  name?: string
  /** Of containerd. */
  namespace?: string
  /** It holds the namespaces of a pod. */
  isSandbox?: true
}

const STORAGE = /^(.+)\/overlay\/([0-9a-f]{64})\/merged$/
const CONTAINERD = /^(.+\/io\.containerd\.runtime\.v2\.task\/([\w.-]+)\/([\w.-]+))\/rootfs$/
const DOCKER = /\/rootfs\/overlayfs\/([0-9a-f]{64})$/
/** Containers that go when they end have a file of their own. */
const STORAGE_LISTS = ['containers.json', 'volatile-containers.json']
/** CRI-O's names: k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT, where a sandbox has POD for its container. */
const CRIO_NAME = /^k8s_/
const CRIO_SANDBOX = /^k8s_POD_/

/** Undefined: no engine's that is known here. Never rejects: what cannot be read names nothing. */
export async function containerAt(point: string, files: Pick<Files, 'read'>): Promise<NamedContainer | undefined> {
  const [, graph, layer] = STORAGE.exec(point) ?? []
  if (graph !== undefined && layer !== undefined) return await inStorage(graph, layer, files)
  const [, bundle, namespace, id] = CONTAINERD.exec(point) ?? []
  if (bundle !== undefined && namespace !== undefined && id !== undefined) {
    return { engine: 'containerd', id, namespace, ...asKubelet(await readJson(join(bundle, 'config.json'), files)) }
  }
  const [, docker] = DOCKER.exec(point) ?? []
  return docker === undefined ? undefined : { engine: 'docker', id: docker }
}

async function inStorage(
  graph: string,
  layer: string,
  files: Pick<Files, 'read'>,
): Promise<NamedContainer | undefined> {
  const folder = join(dirname(join(graph, 'overlay')), 'overlay-containers')
  for (const list of STORAGE_LISTS) {
    const all = await readJson(join(folder, list), files)
    const found = Array.isArray(all) ? all.find((each) => textAt(each, 'layer') === layer) : undefined
    const id = textAt(found, 'id')
    if (id === undefined || !/^[0-9a-f]{64}$/.test(id)) continue
    const names: unknown = found.names
    const name: unknown = Array.isArray(names) ? names[0] : undefined
    if (typeof name !== 'string') return { engine: 'podman', id }
    const sandbox = CRIO_SANDBOX.test(name) ? { isSandbox: true as const } : {}
    return { engine: CRIO_NAME.test(name) ? 'crio' : 'podman', id, name, ...sandbox }
  }
  return undefined
}

/** What its annotations say of a pod's container. */
function asKubelet(config: unknown): Pick<NamedContainer, 'name' | 'isSandbox'> {
  const annotations = at(config, 'annotations')
  const of = (name: string) => textAt(annotations, `io.kubernetes.cri.${name}`)
  const parts = [of('sandbox-namespace'), of('sandbox-name'), of('container-name')].filter((each) => each !== undefined)
  const sandbox = of('container-type') === 'sandbox' ? { isSandbox: true as const } : {}
  return { ...(parts.length === 0 ? {} : { name: parts.join('/') }), ...sandbox }
}

async function readJson(path: string, files: Pick<Files, 'read'>): Promise<unknown> {
  try {
    return JSON.parse((await files.read(path)) ?? 'null')
  } catch {
    return undefined
  }
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined // an object
}

function textAt(value: unknown, key: string): string | undefined {
  const found = at(value, key)
  return typeof found === 'string' ? found : undefined
}
