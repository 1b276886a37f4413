// The manifests as far as they can be judged without Kubernetes: that they are YAML, fit each other, and name commands, flags and paths that
// there are. Whether an API server takes them is tried by hand (docs/kubernetes.md says with which).
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { parseAddress } from '../../src/agent/health.ts'
import { text, texts } from '../../src/agent/values.ts'
import { parseCommandLine } from '../../src/cli/flags.ts'

const FOLDER = fileURLToPath(new URL('../../packaging/kubernetes/', import.meta.url))
const IMAGE = fileURLToPath(new URL('../../packaging/image/', import.meta.url))
const OVERLAYS = ['containerd', 'crio', 'undo']

interface Probe {
  httpGet: { host: string; port: string; path: string }
}

interface Container {
  name: string
  image: string
  command: string[]
  securityContext: Record<string, unknown>
  envFrom?: { configMapRef: { name: string } }[]
  ports?: { name: string; containerPort: number }[]
  startupProbe?: Probe
  readinessProbe?: Probe
  livenessProbe?: Probe
  volumeMounts?: { name: string; mountPath: string }[]
}

interface DaemonSet {
  metadata: { name: string; namespace: string }
  spec: {
    selector: { matchLabels: Record<string, string> }
    template: {
      metadata: { labels: Record<string, string> }
      spec: {
        hostPID: boolean
        hostNetwork: boolean
        priorityClassName: string
        automountServiceAccountToken: boolean
        initContainers: Container[]
        containers: Container[]
        volumes: { name: string; hostPath: { path: string } }[]
      }
    }
  }
}

interface Kustomization {
  namespace: string
  resources: string[]
  images: { name: string; newTag: string }[]
  configMapGenerator: { name: string; literals: string[] }[]
}

const read = async <T>(...path: string[]): Promise<T> =>
  parse(await readFile(join(FOLDER, ...path), 'utf8'), { merge: true, uniqueKeys: true }) as T // our own files
const overlay = (name: string) => read<Kustomization>(name, 'kustomization.yaml')

async function settingsOf(name: string): Promise<Record<string, string>> {
  const { configMapGenerator } = await overlay(name)
  const literals = configMapGenerator.flatMap((each) => each.literals)
  return Object.fromEntries(
    literals.map((each) => [each.slice(0, each.indexOf('=')), each.slice(each.indexOf('=') + 1)]),
  )
}

const daemonSet = await read<DaemonSet>('base', 'daemonset.yaml')
const pod = daemonSet.spec.template.spec
const [install] = pod.initContainers
const [agent] = pod.containers

test('each file is one document of YAML without mistakes', async () => {
  const names = (await readdir(FOLDER, { recursive: true })).filter((name) => name.endsWith('.yaml'))
  expect(names).toHaveLength(2 + 1 + OVERLAYS.length)
  for (const name of names) {
    const documents = parseAllDocuments(await readFile(join(FOLDER, name), 'utf8'), { merge: true })
    expect([name, documents.map(({ errors, warnings }) => [...errors, ...warnings])]).toEqual([name, [[]]])
  }
})

test('what is selected is what is made, in the namespace that there is', async () => {
  const { metadata } = await read<DaemonSet>('base', 'namespace.yaml')
  expect(daemonSet.metadata.namespace).toBe(metadata.name)
  expect(daemonSet.spec.template.metadata.labels).toMatchObject(daemonSet.spec.selector.matchLabels)
  for (const name of OVERLAYS) {
    const { namespace, resources, configMapGenerator, images } = await overlay(name)
    expect([name, namespace, resources]).toEqual([name, metadata.name, ['../base']])
    expect(configMapGenerator.map((each) => each.name)).toEqual([install?.envFrom?.[0]?.configMapRef.name])
    for (const each of [...pod.initContainers, ...pod.containers]) expect(each.image).toBe(images[0]?.name)
  }
})

test('the image is that of this version', async () => {
  const { version } = JSON.parse(await readFile(join(FOLDER, '../../package.json'), 'utf8')) as { version: string }
  for (const name of OVERLAYS) expect((await overlay(name)).images[0]?.newTag, name).toBe(version)
})

test('its commands are those of the program in the image', async () => {
  const script = await readFile(join(IMAGE, 'lazylayer-node'), 'utf8')
  const known = [...script.matchAll(/^(\w+)\) \w+ ;;$/gm)].map(([, name]) => name)
  expect(known).toEqual(['install', 'undo', 'watch'])
  const undo = await readFile(join(FOLDER, 'undo/kustomization.yaml'), 'utf8')
  const [, undone] = /value: \["lazylayer-node", "(\w+)"\]/.exec(undo) ?? []
  expect(undone).toBe('undo')
  for (const { command } of [...pod.initContainers, ...pod.containers]) {
    expect(command[0]).toBe('lazylayer-node')
    expect(known).toContain(command[1])
  }
  const variables = new Set([...script.matchAll(/\$\{([A-Z]+):-/g)].map(([, name]) => name as string))
  for (const name of OVERLAYS)
    expect([...variables]).toEqual(expect.arrayContaining(Object.keys(await settingsOf(name))))
})

test('flags are those of serve, and the agent is asked where it answers', async () => {
  for (const name of ['containerd', 'crio']) {
    const { SERVE = '', ENGINE } = await settingsOf(name)
    const invocation = parseCommandLine(['serve', ...SERVE.split(' ')])
    if ('help' in invocation) throw new Error('flags that ask for help')
    const { host, port } = parseAddress(text(invocation.values, 'metrics') ?? '')
    const named = agent?.ports?.find((each) => each.containerPort === port)?.name
    for (const probe of [agent?.startupProbe, agent?.readinessProbe]) {
      expect(probe?.httpGet).toEqual({ host, port: named, path: '/readyz' })
    }
    expect([name, texts(invocation.values, 'containerd').length > 0]).toEqual([ENGINE, name === 'containerd'])
  }
})

test('nothing but the first container may do anything to the node', () => {
  expect(install?.securityContext).toEqual({ privileged: true })
  expect(agent?.securityContext).toMatchObject({
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    runAsNonRoot: true,
    capabilities: { drop: ['ALL'] },
  })
  expect([agent?.volumeMounts, agent?.livenessProbe]).toEqual([undefined, undefined])
  expect([pod.hostPID, pod.hostNetwork, pod.automountServiceAccountToken]).toEqual([true, true, false])
  expect(pod.priorityClassName).toBe('system-node-critical')
  const mounted = install?.volumeMounts?.map(({ name, mountPath }) => [
    pod.volumes.find((each) => each.name === name)?.hostPath.path,
    mountPath,
  ])
  expect(mounted).toEqual([['/', '/host']])
})
