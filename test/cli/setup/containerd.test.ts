// Setup of containerd and its undoing: what its configuration says before and after, in every version of it.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'smol-toml'
import { describe, expect, test } from 'vitest'
import { apply } from '../../../src/cli/setup/apply.ts'
import { planContainerd, planContainerdUndo } from '../../../src/cli/setup/containerd.ts'
import { withoutSnapshotter, withSnapshotter } from '../../../src/cli/setup/containerd-config.ts'
import { systemPlaces } from '../../../src/registry/places.ts'
import { folder } from '../../store/folder.ts'

const wishes = {
  socket: '/run/lazylayer/containerd.sock',
  root: '/var/lib/lazylayer',
  platform: 'linux/amd64',
  capabilities: ['remap-ids'],
}

const V2 = `# Debian's
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause" # its own
    [plugins."io.containerd.grpc.v1.cri".containerd]
      snapshotter = "overlayfs"
      default_runtime_name = "runc"
`
const V3 = `version = 3
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  max_concurrent_downloads = 3
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "overlayfs"
`

describe('a configuration', () => {
  test('of version 2 names the snapshotter for CRI, and annotations', () => {
    const edited = withSnapshotter(V2, wishes)
    expect(parse(edited)).toMatchObject({
      proxy_plugins: {
        lazylayer: {
          type: 'snapshot',
          address: wishes.socket,
          capabilities: wishes.capabilities,
          exports: { root: wishes.root },
        },
      },
      plugins: {
        'io.containerd.grpc.v1.cri': {
          sandbox_image: 'pause',
          containerd: { snapshotter: 'lazylayer', disable_snapshot_annotations: false, default_runtime_name: 'runc' },
        },
      },
    })
    for (const kept of ["# Debian's", '# its own']) expect(edited).toContain(kept)
  })

  test('of version 3 has it among those that pulls unpack with, beside what is there', () => {
    const edited = withSnapshotter(V3, wishes)
    const unpack = (text: string) =>
      (parse(text) as { plugins: Record<string, { unpack_config: { snapshotter: string }[] }> }).plugins[
        'io.containerd.transfer.v1.local'
      ]?.unpack_config.map(({ snapshotter }) => snapshotter)
    expect(unpack(edited)).toEqual(['overlayfs', 'lazylayer'])
    expect(unpack(withSnapshotter('version = 4\n', wishes))).toEqual(['overlayfs', 'lazylayer'])
    expect(parse(edited)).toMatchObject({
      plugins: { 'io.containerd.cri.v1.images': { snapshotter: 'lazylayer', max_concurrent_downloads: 3 } },
      proxy_plugins: { lazylayer: { exports: { enable_remote_snapshot_annotations: 'true' } } },
    })
  })

  for (const text of [V2, V3, 'version = 3\n', 'version = 4\n[grpc]\naddress = "/x"']) {
    test(`is as it was once setup is undone, also where it was changed since: ${text.split('\n').slice(0, 2)}`, () => {
      const edited = withSnapshotter(text, wishes)
      expect(withSnapshotter(edited, wishes)).toBe(edited)
      expect(withoutSnapshotter(edited, text, wishes)).toBe(text)
      const changed = `${edited}\n[debug]\nlevel = "debug"\n`
      const left = parse(withoutSnapshotter(changed, text, wishes)) as Record<string, unknown>
      expect(left.proxy_plugins).toBeUndefined()
      expect(JSON.stringify(left)).not.toContain('lazylayer')
      expect(left.debug).toEqual({ level: 'debug' })
    })
  }

  const refuse = (text: string) =>
    test(`is refused that is ${JSON.stringify(text)}`, () => expect(() => withSnapshotter(text, wishes)).toThrow())
  for (const text of [
    '',
    'version = 1',
    'version = "2"',
    'version = [',
    'version = 2\nproxy_plugins = 5',
    'version = 3\nplugins = {}',
  ])
    refuse(text)
})

describe('setup', () => {
  async function machine(config?: string) {
    const etc = await folder()
    const path = join(etc, 'containerd/config.toml')
    await mkdir(join(etc, 'containerd'))
    if (config !== undefined) await writeFile(path, config)
    const places = { ...systemPlaces(), etc, uid: 0 }
    const printed = 'containerd github.com/containerd/containerd 1.7.24'
    return { path, etc, request: { places, wishes: { ...wishes, kernel: '6.12.0' }, printed } }
  }
  const read = (path: string) => readFile(path, 'utf8').catch(() => undefined)

  test('keeps the file as it was, and gives it back', async () => {
    const { path, etc, request } = await machine(V2)
    const { changes, notes } = await planContainerd(request)
    for (const each of changes) await apply(each)
    expect(notes).toContain('run systemctl daemon-reload && systemctl restart containerd')
    expect(await read(path)).toContain('[proxy_plugins.lazylayer]')
    expect(await read(`${path}.before-lazylayer`)).toBe(V2)
    expect(await read(join(etc, 'systemd/system/containerd.service.d/50-lazylayer.conf'))).toContain(
      'After=lazylayer.service',
    )
    expect((await planContainerd(request)).changes).toEqual([])
    for (const each of (await planContainerdUndo(request)).changes) await apply(each)
    expect([await read(path), await read(`${path}.before-lazylayer`)]).toEqual([V2, undefined])
    expect((await planContainerdUndo(request)).changes).toEqual([])
  })

  test('declares that layers can be mapped to a containerd that has them mapped, and to no other', async () => {
    for (const [printed, kernel, is] of [
      ['containerd github.com/containerd/containerd v1.7.24 x', '6.12.0', false],
      ['containerd github.com/containerd/containerd/v2 v2.2.5 x', '6.12.0', true],
      ['containerd github.com/containerd/containerd/v2 v2.3.0 x', '6.12.63+deb13-amd64', true],
      ['containerd github.com/containerd/containerd/v2 2.3.0 x', '7.1.0', true],
      // where users of FUSE mounts are not mapped, the container would be refused
      ['containerd github.com/containerd/containerd/v2 v2.3.0 x', '6.8.0-48-generic', false],
    ] as const) {
      const { path, request } = await machine('version = 3\n')
      const of = { ...request, wishes: { ...request.wishes, kernel }, printed }
      for (const each of (await planContainerd(of)).changes) await apply(each)
      expect((await read(path))?.includes('capabilities = ["remap-ids"]')).toBe(is)
      expect((await planContainerd(of)).changes).toEqual([])
      for (const each of (await planContainerdUndo(of)).changes) await apply(each)
      expect(await read(path)).toBe('version = 3\n')
    }
  })

  test('makes the file where there is none, and removes that', async () => {
    const { path, request } = await machine()
    for (const each of (await planContainerd(request)).changes) await apply(each)
    expect(parse((await read(path)) ?? '')).toMatchObject({ version: 2 })
    for (const each of (await planContainerdUndo(request)).changes) await apply(each)
    expect(await read(path)).toBeUndefined()
  })

  test('is refused where containerd is not, or is not configured in a way that is edited', async () => {
    const { request } = await machine('version = 1\n')
    await expect(planContainerd({ ...request, printed: undefined })).rejects.toMatchObject({ code: 'missing' })
    await expect(planContainerd(request)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('config.toml'),
    })
  })
})
