import { expect, test } from 'vitest'
import { containerAt, type NamedContainer } from '../../src/engines/containers.ts'
import { files } from '../cli/doctor/machine.ts'

const GRAPH = '/var/lib/containers/storage'
const LAYER = 'ab'.repeat(32)
const ID = 'cd'.repeat(32)
const BUNDLE = '/run/containerd/io.containerd.runtime.v2.task'

const check = async (point: string, texts: Record<string, string>, wanted: NamedContainer | undefined) =>
  expect(await containerAt(point, files({ texts }))).toEqual(wanted)

test.each(['containers.json', 'volatile-containers.json'])('containers/storage says it in %s', async (list) => {
  const stored = (of: object) => ({ [`${GRAPH}/overlay-containers/${list}`]: JSON.stringify([{ layer: 'x' }, of]) })
  const point = `${GRAPH}/overlay/${LAYER}/merged`
  const podman = { engine: 'podman', id: ID, name: 'web' } as const
  await check(point, stored({ id: ID, layer: LAYER, names: ['web', 'other'] }), podman)
  const pod = { engine: 'crio', id: ID, name: 'k8s_web_pod_default_1_0' } as const
  await check(point, stored({ id: ID, layer: LAYER, names: [pod.name] }), pod)
  const sandbox = { engine: 'crio', id: ID, name: 'k8s_POD_pod_default_1_0', isSandbox: true } as const
  await check(point, stored({ id: ID, layer: LAYER, names: [sandbox.name] }), sandbox)
  await check(point, stored({ id: ID, layer: LAYER }), { engine: 'podman', id: ID })
})

test('containerd and Docker say it by where they mount; what a container is to kubelet stands beside it', async () => {
  const annotations = {
    'io.kubernetes.cri.container-name': 'web',
    'io.kubernetes.cri.sandbox-name': 'pod',
    'io.kubernetes.cri.sandbox-namespace': 'default',
  }
  const config = (more = {}) => ({
    [`${BUNDLE}/k8s.io/${ID}/config.json`]: JSON.stringify({ annotations: { ...annotations, ...more } }),
  })
  const web = { engine: 'containerd', id: ID, namespace: 'k8s.io', name: 'default/pod/web' } as const
  await check(`${BUNDLE}/k8s.io/${ID}/rootfs`, config(), web)
  const sandbox = config({ 'io.kubernetes.cri.container-type': 'sandbox' })
  await check(`${BUNDLE}/k8s.io/${ID}/rootfs`, sandbox, { ...web, isSandbox: true })
  await check(`${BUNDLE}/default/web/rootfs`, {}, { engine: 'containerd', id: 'web', namespace: 'default' })
  await check(`/var/lib/docker/rootfs/overlayfs/${ID}`, {}, { engine: 'docker', id: ID })
})

test('what is damaged, hostile or nobody’s names nothing', async () => {
  const point = `${GRAPH}/overlay/${LAYER}/merged`
  for (const text of ['', '{', '[null, 1]', '{"layer":1}', `[{"layer":"${LAYER}","id":"x; reboot"}]`, 'closed'])
    await check(point, { [`${GRAPH}/overlay-containers/containers.json`]: text }, undefined)
  const bundle = { [`${BUNDLE}/a/b/config.json`]: '{"annotations":{"io.kubernetes.cri.sandbox-name":1}}' }
  await check(`${BUNDLE}/a/b/rootfs`, bundle, { engine: 'containerd', id: 'b', namespace: 'a' })
  for (const each of [`${BUNDLE}/a/b;reboot/rootfs`, '/', '/mnt', `${GRAPH}/overlay/x/merged`]) {
    await check(each, {}, undefined)
  }
})
