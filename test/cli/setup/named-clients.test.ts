// Setup of clients that go by the snapshotter's name, and of k3s and RKE2: what their files say before and after, and once it is undone.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { parse } from 'smol-toml'
import { describe, expect, test } from 'vitest'
import { apply } from '../../../src/cli/setup/apply.ts'
import { planBuildKit, planBuildKitUndo } from '../../../src/cli/setup/buildkit.ts'
import { planContainerd, planContainerdUndo } from '../../../src/cli/setup/containerd.ts'
import { planK3s, planK3sUndo } from '../../../src/cli/setup/k3s.ts'
import { planNerdctl, planNerdctlUndo } from '../../../src/cli/setup/nerdctl.ts'
import type { SetupPlan } from '../../../src/cli/setup/plan.ts'
import { systemPlaces } from '../../../src/registry/places.ts'
import { folder } from '../../store/folder.ts'

const WISHES = {
  socket: '/run/lazylayer/containerd.sock',
  root: '/var/lib/lazylayer',
  platform: 'linux/amd64',
  kernel: '6.18.44',
}
const SOCKET = '/run/lazylayer/buildkit.sock'
const V3 = 'version = 3\n[grpc]\n  address = "/x"\n'

/** A machine with these files below its root, and containerd of that version. */
async function machine(files: Readonly<Record<string, string>> = {}, printed = 'containerd v2.4.2') {
  const root = await folder()
  const places = { ...systemPlaces(), etc: join(root, 'etc'), uid: 0 }
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true })
    await writeFile(join(root, path), text)
  }
  const carryOut = async ({ changes, notes }: SetupPlan) => {
    for (const each of changes) await apply(each)
    return { paths: changes.map(({ path }) => path.slice(root.length + 1)), notes: notes.join('\n') }
  }
  return {
    setup: { places, wishes: WISHES, printed, socket: SOCKET, rancher: join(root, 'rancher') },
    carryOut,
    read: (path: string) => readFile(join(root, path), 'utf8').catch(() => undefined),
    remove: (path: string) => rm(join(root, path)),
  }
}

const CONFIG = 'etc/containerd/config.toml'
const NERDCTL = 'etc/nerdctl/nerdctl.toml'
const BUILDKIT = 'etc/buildkit/buildkitd.toml'

describe('nerdctl', () => {
  test('of a version that is lazy by any name is told the name that there is, and containerd nothing', async () => {
    const { setup, carryOut, read } = await machine({ [CONFIG]: V3, [NERDCTL]: 'debug = true\n' })
    const nerdctl = { ...setup, nerdctl: 'nerdctl version 2.3.5' }
    const { paths, notes } = await carryOut(await planNerdctl(nerdctl))
    expect(paths).toEqual([NERDCTL])
    expect(notes).toContain('lazylayer setup containerd')
    expect(parse((await read(NERDCTL)) ?? '')).toEqual({ debug: true, snapshotter: 'lazylayer' })
    expect((await planNerdctl(nerdctl)).changes).toEqual([])
    await carryOut(await planNerdctlUndo(nerdctl))
    expect(await read(NERDCTL)).toBe('debug = true\n')
    expect(await read(CONFIG)).toBe(V3)
  })

  for (const [nerdctl, containerd] of [
    ['2.2.1', 'v2.4.2'],
    ['2.3.5', '1.7.24'],
  ] as const)
    test(`${nerdctl} on containerd ${containerd} is told the name by which it is lazy, which containerd then knows, too`, async () => {
      const text = containerd.startsWith('1') ? 'version = 2\n' : V3
      const { setup, carryOut, read } = await machine({ [CONFIG]: text }, `containerd ${containerd}`)
      const of = { ...setup, nerdctl: `nerdctl version ${nerdctl}` }
      expect((await carryOut(await planNerdctl(of))).notes).toContain('restart containerd')
      expect(parse((await read(NERDCTL)) ?? '')).toEqual({ snapshotter: 'stargz' })
      expect(parse((await read(CONFIG)) ?? '')).toMatchObject({
        proxy_plugins: { stargz: { type: 'snapshot', address: WISHES.socket } },
      })
      await carryOut(await planNerdctlUndo(of))
      expect(await read(NERDCTL)).toBeUndefined()
      expect(await read(CONFIG)).toBe(text)
    })

  test('is set up and undone beside containerd itself, in any order', async () => {
    const { setup, carryOut, read } = await machine({ [CONFIG]: V3 })
    const nerdctl = { ...setup, nerdctl: 'nerdctl version 2.2.1' }
    await carryOut(await planContainerd(setup))
    await carryOut(await planNerdctl(nerdctl))
    expect(Object.keys(parse((await read(CONFIG)) ?? '').proxy_plugins ?? {})).toEqual(['lazylayer', 'stargz'])
    await carryOut(await planContainerdUndo(setup))
    expect(Object.keys(parse((await read(CONFIG)) ?? '').proxy_plugins ?? {})).toEqual(['stargz'])
    await carryOut(await planNerdctlUndo(nerdctl))
    expect(parse((await read(CONFIG)) ?? '')).not.toHaveProperty('proxy_plugins')
  })

  test('leaves a configuration that setup made to whoever still needs it', async () => {
    const { setup, carryOut, read } = await machine()
    const nerdctl = { ...setup, nerdctl: 'nerdctl version 2.2.1' }
    await carryOut(await planContainerd(setup))
    await carryOut(await planNerdctl(nerdctl))
    await carryOut(await planContainerdUndo(setup))
    expect(await read(CONFIG)).toContain('[proxy_plugins.stargz]')
    await carryOut(await planNerdctlUndo(nerdctl))
    expect(await read(CONFIG)).toBeUndefined()
  })

  test('that is not here is said', async () => {
    const { setup } = await machine()
    await expect(planNerdctl({ ...setup, nerdctl: undefined })).rejects.toMatchObject({ code: 'missing' })
  })
})

describe('BuildKit', () => {
  test('has its OCI worker ask the agent at a socket of its own, and the agent look into its content store', async () => {
    const { setup, carryOut, read } = await machine({ [CONFIG]: V3 })
    const { notes } = await carryOut(await planBuildKit(setup))
    expect(notes).toContain(`--containerd stargz=${SOCKET} --containerd-address /run/buildkit/buildkitd.sock`)
    expect(parse((await read(BUILDKIT)) ?? '')).toEqual({
      worker: { oci: { snapshotter: 'stargz', proxySnapshotterPath: SOCKET } },
    })
    expect(await read(CONFIG)).toBe(V3)
    await carryOut(await planBuildKitUndo(setup))
    expect(await read(BUILDKIT)).toBeUndefined()
  })

  test('has its containerd worker ask containerd by the name, where that one is enabled', async () => {
    const text = '[worker.oci]\n  enabled = false\n[worker.containerd]\n  enabled = true\n  snapshotter = "overlayfs"\n'
    const { setup, carryOut, read } = await machine({ [CONFIG]: V3, [BUILDKIT]: text })
    await carryOut(await planBuildKit(setup))
    expect(parse((await read(BUILDKIT)) ?? '')).toEqual({
      worker: { oci: { enabled: false }, containerd: { enabled: true, snapshotter: 'stargz' } },
    })
    expect(parse((await read(CONFIG)) ?? '')).toMatchObject({ proxy_plugins: { stargz: { address: WISHES.socket } } })
    // nerdctl asks by it, too
    const nerdctl = { ...setup, nerdctl: 'nerdctl version 2.2.1' }
    await carryOut(await planNerdctl(nerdctl))
    await carryOut(await planBuildKitUndo(setup))
    expect(await read(BUILDKIT)).toBe(text)
    expect(await read(CONFIG)).toContain('[proxy_plugins.stargz]')
    await carryOut(await planNerdctlUndo(nerdctl))
    expect(await read(CONFIG)).not.toContain('proxy_plugins')
  })
})

const TEMPLATE = 'rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl'
const BASE = '{{ template "base" . }}\n'
const UNIT = 'etc/systemd/system/k3s.service'

describe('k3s', () => {
  test('extends the template, and chooses the snapshotter', async () => {
    const { setup, carryOut, read } = await machine({ [UNIT]: '' })
    const asked: string[] = []
    const printed = async (program: string) => {
      asked.push(program)
      return 'containerd github.com/k3s-io/containerd v2.4.1-k3s1'
    }
    const { paths, notes } = await carryOut(await planK3s({ ...setup, printed }))
    expect(paths).toEqual([
      TEMPLATE,
      'etc/rancher/k3s/config.yaml.d/50-lazylayer.yaml',
      'etc/systemd/system/k3s.service.d/50-lazylayer.conf',
    ])
    expect(asked).toEqual([expect.stringMatching(/rancher\/k3s\/data\/current\/bin\/containerd$/)])
    expect(notes).toContain('--containerd-address /run/k3s/containerd/containerd.sock')
    const template = (await read(TEMPLATE)) ?? ''
    expect(template.startsWith(BASE)).toBe(true)
    // what k3s makes of it is in its place
    expect(parse(template.replace(BASE, 'version = 3\n'))).toMatchObject({
      proxy_plugins: { lazylayer: { address: WISHES.socket, capabilities: ['remap-ids'] } },
      plugins: {
        'io.containerd.transfer.v1.local': {
          unpack_config: [{ snapshotter: 'overlayfs' }, { snapshotter: 'lazylayer', platform: 'linux/amd64' }],
        },
      },
    })
    expect(await read(paths[1] ?? '')).toMatch(/^snapshotter: lazylayer$/m)
    expect((await planK3s({ ...setup, printed })).changes).toEqual([])
    await carryOut(await planK3sUndo({ ...setup, printed }))
    for (const each of paths) expect(await read(each)).toBeUndefined()
  })

  test('keeps a template that is there, also of an older containerd', async () => {
    const old = 'rancher/rke2/agent/etc/containerd/config.toml.tmpl'
    const own = `${BASE}\n[plugins."io.containerd.grpc.v1.cri"]\n  enable_cdi = true\n`
    const files = { [old]: own, 'rancher/rke2/agent/etc/containerd/config.toml': 'version = 2\n' }
    const { setup, carryOut, read } = await machine({ ...files, 'etc/systemd/system/rke2-agent.service': '' })
    const rke2 = { ...setup, printed: async () => undefined }
    const { paths } = await carryOut(await planK3s(rke2))
    expect(paths[0]).toBe(old)
    const text = (await read(old)) ?? ''
    expect(text.startsWith(own)).toBe(true)
    const plugin = { lazylayer: { type: 'snapshot', exports: { root: WISHES.root } } }
    expect(parse(text.replace(BASE, 'version = 2\n'))).toEqual({
      version: 2,
      proxy_plugins: { lazylayer: { ...plugin.lazylayer, address: WISHES.socket } },
      plugins: { 'io.containerd.grpc.v1.cri': { enable_cdi: true } },
    })
    await carryOut(await planK3sUndo(rke2))
    expect(await read(old)).toBe(own)
    // a newer containerd goes on with such a template, and unpacks nothing that is not listed
    await carryOut(
      await planK3s({ ...rke2, printed: async () => 'containerd github.com/k3s-io/containerd/v2 v2.1.4-k3s1' }),
    )
    expect(parse(((await read(old)) ?? '').replace(BASE, 'version = 2\n'))).toMatchObject({
      proxy_plugins: plugin,
      plugins: {
        'io.containerd.transfer.v1.local': {
          unpack_config: [{ snapshotter: 'overlayfs' }, { snapshotter: 'lazylayer' }],
        },
      },
    })
  })

  test('that is not here is said', async () => {
    const { setup } = await machine()
    await expect(planK3s({ ...setup, printed: async () => undefined })).rejects.toMatchObject({ code: 'missing' })
  })
})
