// The engines and the registry of the end-to-end tests, proven with ordinary pulls: what later tests see differ is lazylayer's doing.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:http2'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { APP_PROGRAMS, type AppImage, referenceOf, writeApp } from './app-image.ts'
import { command, succeed } from './engines/command.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { type Flavour, Podman, podmanLacks } from './engines/podman.ts'
import { type DockerRegistry, startDockerRegistry } from './engines/registry.ts'
import { startSmallRegistry } from './engines/small-registry.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

// The first use of the trixie root makes it, where .ci/run did not.
const ENGINE_TIMEOUT_MS = 600_000

suite('ordinary pulls from a real registry', lacking([...REGISTRY_PROGRAMS, ...APP_PROGRAMS]), () => {
  let work: WorkDirectory
  let registry: DockerRegistry
  let app: AppImage

  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await startDockerRegistry({ dir: work.path })
    app = await writeApp(join(work.path, 'app'))
    expect(await registry.pushLayout(app.layout, app.tag, app.tag)).toBe(app.manifest)
  })

  afterAll(async () => {
    await registry?.stop()
    await work?.remove()
  })

  const blobUri = (digest: string) => `/v2/${app.tag}/blobs/${digest}`
  /** Every blob, as the registry should serve it. */
  const blobs = () =>
    Promise.all(
      [`sha256:${app.id}`, ...app.layers.map(({ digest }) => digest)].map(async (digest) => {
        const { size } = await stat(join(app.layout, 'blobs', digest.replace(':', '/')))
        return { digest, size }
      }),
    )

  test('what was pushed is served byte for byte, over HTTP/2', async () => {
    for (const { digest, size } of await blobs()) {
      const { status, body } = await get(registry, blobUri(digest))
      expect({ status, size: body.length, digest: sha256(body) }).toEqual({ status: 200, size, digest })
    }
    const accept = 'application/vnd.oci.image.manifest.v1+json'
    expect(sha256((await get(registry, `/v2/${app.tag}/manifests/${app.tag}`, { accept })).body)).toBe(app.manifest)
  })

  test('the log tells of a request its range, protocol, agent and bytes, and forgets on demand', async () => {
    const digest = app.layers[1]?.digest ?? ''
    await registry.clear()
    const { status, body } = await get(registry, blobUri(digest), { range: 'bytes=10-19', 'user-agent': 'tester' })
    expect({ status, length: body.length }).toEqual({ status: 206, length: 10 })
    const told = { method: 'GET', uri: blobUri(digest), kind: 'blob', status: 206, bytes: 10 }
    expect(await registry.log()).toEqual([{ ...told, range: 'bytes=10-19', protocol: 'HTTP/2.0', userAgent: 'tester' }])
    await registry.clear()
    expect(await registry.log()).toEqual([])
  })

  test('a registry with credentials refuses whoever lacks them', async () => {
    const guarded = await startDockerRegistry({ dir: work.path, credentials: { username: 'u', password: 'p' } })
    try {
      expect((await get(guarded, '/v2/')).status).toBe(401)
      expect((await get(guarded, '/v2/', { authorization: `Basic ${btoa('u:wrong')}` })).status).toBe(401)
      expect((await get(guarded, '/v2/', { authorization: `Basic ${btoa('u:p')}` })).status).toBe(200)
      expect((await guarded.log()).map(({ status }) => status)).toEqual([401, 401, 200])
    } finally {
      await guarded.stop()
    }
  })

  for (const [flavour, version] of [['debian12', '4.3.1'] as const, ['trixie', '5.4.2'] as const]) {
    suite(`Podman ${version}`, podmanLacks(flavour), () => podmanTests(flavour, version))
  }

  function podmanTests(flavour: Flavour, version: string): void {
    test('pulls an image whole, runs it and removes it', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await using podman = await Podman.start({ flavour, work: work.path, trust: [registry] })
      const image = referenceOf(app, registry)
      expect(await podman.succeed(['--version'])).toBe(`podman version ${version}`)

      await registry.clear()
      await podman.succeed(['pull', '--quiet', image])
      const requests = await registry.log()
      // 4.3.1 also looks at each layer's tail for an index, and drops it; those are ranges, answered with 206.
      const whole = requests.filter(({ status, kind }) => kind === 'blob' && status === 200)
      const expected = (await blobs()).map(({ digest, size }) => ({ uri: blobUri(digest), bytes: size }))
      expect(whole.map(({ uri, bytes }) => ({ uri, bytes })).sort(byUri)).toEqual(expected.sort(byUri))
      expect(requests.filter(({ kind }) => kind === 'manifest')).toHaveLength(1)
      expect(await podman.succeed(['image', 'inspect', '--format', '{{.Digest}} {{.Id}}', image])).toBe(
        `${app.manifest} ${app.id}`,
      )

      const ran = await podman.container('run', ['--rm', image])
      expect({ code: ran.code, stdout: ran.stdout }).toEqual({ code: 0, stdout: app.says })
      await podman.succeed(['rmi', image])
      expect(await podman.succeed(['images', '--quiet'])).toBe('')
      expect(await registry.log()).toHaveLength(requests.length)
    })

    test('pulls from our small registry, whose log tells the same', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const small = await startSmallRegistry({ dir: work.path })
      try {
        expect(await small.pushLayout(app.layout, app.tag, app.tag)).toBe(app.manifest)
        await using podman = await Podman.start({ flavour, work: work.path, trust: [small] })
        await podman.succeed(['pull', '--quiet', referenceOf(app, small)])
        const whole = (await small.log()).filter(({ status, kind }) => kind === 'blob' && status === 200)
        const expected = (await blobs()).map(({ digest, size }) => ({ uri: blobUri(digest), bytes: size }))
        expect(whole.map(({ uri, bytes }) => ({ uri, bytes })).sort(byUri)).toEqual(expected.sort(byUri))
        await small.clear()
        expect(await small.log()).toEqual([])
      } finally {
        await small.stop()
      }
    })

    test('sees what the host mounts below the work directory later, until it is unmounted', async () => {
      await using podman = await Podman.start({ flavour, work: work.path })
      const point = await mkdtemp(join(work.path, 'later-'))
      const inner = join(point, 'inner')
      await succeed('mount', ['-t', 'tmpfs', 'tmpfs', point])
      try {
        await mkdir(inner)
        await succeed('mount', ['-t', 'tmpfs', 'tmpfs', inner]) // as the agent mounts layers on its own mount
        await writeFile(join(inner, 'file'), 'seen')
        expect((await podman.exec(['cat', `${inner}/file`])).stdout).toBe('seen')
        await succeed('umount', [inner])
        expect((await podman.exec(['ls', '-A', point, inner])).stdout).toBe(`${point}:\ninner\n\n${inner}:\n`)
        await succeed('umount', [point])
        expect((await podman.exec(['ls', '-A', point])).stdout).toBe('')
      } finally {
        await command('umount', ['--lazy', inner])
        await command('umount', ['--lazy', point])
      }
    })

    test('ends with everything it started: a running container, its monitor, its group', async () => {
      const mark = `LAZYLAYER-${flavour}-${process.pid}`
      const podman = await Podman.start({ flavour, work: work.path, trust: [registry] })
      const pattern = `*/lazylayer-test-${basename(podman.path)}*`
      const groups = () => command('find', ['/sys/fs/cgroup', '-path', pattern]).then(({ stdout }) => stdout)
      try {
        const args = ['--detach', referenceOf(app, registry), 'sh', '-c', `sleep 600; echo ${mark}`]
        expect(await podman.container('run', args)).toMatchObject({ code: 0 })
        expect(await commandLinesWith(mark)).not.toEqual([])
        expect(await commandLinesWith(podman.path)).not.toEqual([])
        expect(await groups()).not.toBe('')
      } finally {
        await podman.close()
      }
      expect(await commandLinesWith(mark)).toEqual([])
      expect(await commandLinesWith(podman.path)).toEqual([])
      expect(await groups()).toBe('')
    })
  }
})

describe('a work directory', () => {
  test.runIf(process.geteuid?.() === 0)('goes with the mounts below it', async () => {
    const work = await makeWorkDirectory()
    const point = await mkdtemp(join(work.path, 'mount-'))
    await succeed('mount', ['-t', 'tmpfs', 'tmpfs', point])
    await work.remove()
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(work.path)
    await expect(readdir(work.path)).rejects.toMatchObject({ code: 'ENOENT' })
  })
})

async function get(registry: DockerRegistry, path: string, headers: Record<string, string> = {}) {
  const session = connect(`https://${registry.host}`, { ca: await readFile(registry.caFile) })
  try {
    const stream = session.request({ ':path': path, ...headers })
    const [answer] = (await once(stream, 'response')) as [{ ':status'?: number }]
    const body = Buffer.concat(await stream.toArray())
    return { status: answer[':status'], body }
  } finally {
    session.close()
  }
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

function byUri(one: { uri: string }, other: { uri: string }): number {
  return one.uri < other.uri ? -1 : 1
}

/** Command lines of this machine's processes that contain `text`. */
async function commandLinesWith(text: string): Promise<string[]> {
  const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const lines = await Promise.all(processes.map((id) => readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => ''))) // gone by now
  return lines.filter((line) => line.includes(text))
}
