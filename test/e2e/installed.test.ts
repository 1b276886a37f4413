// The package as people have it: packed, installed into a Debian root without a compiler or a checkout, and each command of README and
// docs run from there to the letter, by root and by a plain user. The registry of the pages, registry.example.com, is one of this test's.
import { existsSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { type Documented, documented } from './documented.ts'
import { type Outcome, succeed } from './engines/command.ts'
import { lacking, TRIXIE_PROGRAMS } from './engines/needs.ts'
import { debianRoot } from './engines/podman.ts'
import { Sandbox } from './engines/sandbox.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { ALL } from './sample.ts'

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))
const SETUP_TIMEOUT_MS = 580_000
// a minute on an idle machine
const FLOW_TIMEOUT_MS = 580_000
const COMMAND_TIMEOUT_MS = 60_000
const POLL_MS = 50

const IMAGE = 'registry.example.com/app:1'
const RELEASE = 'NAME="lazy"\n'
/** A plain user of the root. */
const USER = { name: 'someone', uid: 1000, home: '/home/someone' }

const reason =
  lacking([...TRIXIE_PROGRAMS, 'npm', 'mount', 'fusermount3']) ??
  (existsSync(join(CHECKOUT, 'native/lazylayer.node')) ? undefined : 'the native part is not built (npm run build)')

/** Who types, and what stands for what pages leave open. */
interface Person {
  name: 'root' | 'user'
  shell: readonly string[]
  values: Readonly<Record<string, string>>
  store: string
  /** In front of `lazylayer serve`. */
  serveThrough: string
}

const ROOT: Person = {
  name: 'root',
  shell: ['sh', '-c'],
  values: {
    IMAGE,
    ROOT: '/var/lib/lazylayer/store',
    DIR: '/var/lib/lazylayer/store',
    FILE: '/etc/lazylayer/auth.json',
  },
  store: '/var/lib/lazylayer/store',
  serveThrough: '',
}

const PLAIN: Person = {
  name: 'user',
  shell: [
    ...['setpriv', `--reuid=${USER.uid}`, `--regid=${USER.uid}`, '--init-groups', '--', 'env', `--chdir=${USER.home}`],
    ...[`HOME=${USER.home}`, `USER=${USER.name}`, `XDG_RUNTIME_DIR=/run/user/${USER.uid}`, 'sh', '-c'],
  ],
  values: {
    IMAGE,
    ROOT: '~/.local/share/lazylayer/store',
    DIR: '~/.local/share/lazylayer/store',
    FILE: '~/auth.json',
    '/mnt': '~/mnt',
  },
  store: `${USER.home}/.local/share/lazylayer/store`,
  serveThrough: 'podman unshare ',
}

/** YAML has JSON in it. */
const PROVIDERS = JSON.stringify({
  kind: 'CredentialProviderConfig',
  apiVersion: 'kubelet.config.k8s.io/v1',
  providers: [],
})

suite('the installed package', reason, () => {
  let work: WorkDirectory
  let base: WorkDirectory
  let registry: LayoutRegistry
  let sandbox: Sandbox
  let pages: Documented[]
  /** What a start of the image would read. */
  let profile: string
  /** Lines of pages that were run, whoever ran them. */
  const ran = new Set<string>()

  beforeAll(async () => {
    pages = await documented(CHECKOUT)
    work = await makeWorkDirectory()
    await chmod(work.path, 0o755)
    base = await makeWorkDirectory()
    await chmod(base.path, 0o755)
    const root = await install(base.path)
    const layout = join(work.path, 'layout')
    const entries = [
      { path: 'etc', type: 'dir' as const },
      { path: 'etc/os-release', type: 'file' as const, content: Buffer.from(RELEASE) },
    ]
    const image = { dir: layout, tag: '1', layers: [{ kind: 'estargz' as const, entries }], config: { Cmd: ['/none'] } }
    const [layer] = (await writeImage(image)).layers
    profile = JSON.stringify({ version: 1, layers: [layer?.digest], folders: ['etc'], files: [[0, 0, 'os-release']] })
    registry = await serveLayout(layout, work.path)
    const configuration = join(work.path, 'etc')
    await configure(configuration, registry)
    for (const name of ['state', 'home']) await mkdir(join(work.path, name))
    sandbox = await Sandbox.start({ work: work.path, configuration, root, env: { HOME: '/root' } })
    await asRoot(
      [
        `mkdir -p /var/lib/lazylayer /etc/lazylayer /run/user/${USER.uid}`,
        // neither the kernel's EROFS nor Podman works on an overlay
        `mount --bind ${work.path}/state /var/lib/lazylayer`,
        `mount --bind ${work.path}/home /home`,
        `useradd --create-home --uid ${USER.uid} ${USER.name}`,
        `chown ${USER.uid}:${USER.uid} /run/user/${USER.uid}`,
        `echo '{"auths": {}}' >/etc/lazylayer/auth.json`,
        `install -o ${USER.uid} /etc/lazylayer/auth.json ${USER.home}`,
        `install -o ${USER.uid} -d ${USER.home}/mnt`,
        // no more of CRI-O, which is not in Debian, of containerd, and of what is beside it than setup asks for
        `printf '#!/bin/sh\\necho crio version 1.37.0\\n' >/usr/bin/crio && chmod 755 /usr/bin/crio`,
        `printf '#!/bin/sh\\necho containerd containerd.io 2.1.9\\n' >/usr/bin/containerd && chmod 755 /usr/bin/containerd`,
        `printf '#!/bin/sh\\necho nerdctl version 2.1.9\\n' >/usr/bin/nerdctl && chmod 755 /usr/bin/nerdctl`,
        'mkdir -p /etc/systemd/system /etc/kubernetes /usr/libexec/kubernetes/providers',
        `printf '[Service]\\nExecStart=/usr/local/bin/k3s server\\n' >/etc/systemd/system/k3s.service`,
        `echo '${PROVIDERS}' >/etc/kubernetes/providers.yaml`,
        // as systemd and udev have it
        'ln -sf ../proc/self/mounts /etc/mtab',
        'mknod -m 666 /tmp/fuse c 10 229 && mount --bind /tmp/fuse /dev/fuse',
      ].join('\n'),
    )
  }, SETUP_TIMEOUT_MS)
  afterAll(async () => {
    await sandbox?.close()
    await registry?.close()
    await work?.remove()
    await base?.remove()
  })

  const run = (as: Person, line: string): Promise<Outcome> => sandbox.run([...as.shell, line], COMMAND_TIMEOUT_MS)
  const asRoot = async (line: string): Promise<string> => {
    const { code, stdout, stderr } = await run(ROOT, `set -e\n${line}`)
    expect(code, `${line}\n${stdout}${stderr}`).toBe(0)
    return stdout
  }

  /** As a page has it, with what it leaves open filled in. */
  const filled = (as: Person, { argv }: Pick<Documented, 'argv'>) =>
    ['lazylayer', ...argv.map((each) => as.values[each] ?? each)].join(' ')

  /** All lines of pages that come to this one were run with it. */
  const note = (as: Person, line: string) => {
    for (const each of pages) if (filled(as, each) === line) ran.add(each.line)
  }

  /** What everybody can do is not done by root again where there is no time. */
  const isForRoot = ({ argv, line }: Documented) =>
    !line.includes('~') && (ALL || isRoots(line) || argv[0] === 'umount' || argv.join() === 'serve')

  /** What of the pages this person can mean, by the command's name; each once. */
  const of = (as: Person, name: string): string[] => {
    const all = pages.filter((each) => each.argv[0] === name && (as === ROOT ? isForRoot(each) : !isRoots(each.line)))
    const root = all.filter(({ through }) => as === PLAIN || through.length === 0)
    return [...new Set(root.map((each) => filled(as, each)))]
  }

  /** Runs it to its end. @returns what it printed */
  const done = async (as: Person, line: string, codes: readonly number[] = [0]): Promise<string> => {
    const { code, stdout, stderr } = await run(as, line)
    expect(codes, `${as.name}: ${line}: ${code}\n${stdout}${stderr}`).toContain(code)
    return stdout + stderr
  }

  /** Runs it until it has printed a line, and what is there then; `end` ends it. */
  async function during(as: Person, line: string, ready: RegExp, then: () => Promise<void>, end: string) {
    const log = join(work.path, `${as.name}.log`)
    await writeFile(log, '')
    await chmod(log, 0o666)
    const ended = sandbox.run([...as.shell, `exec ${line} >>${log} 2>&1`], FLOW_TIMEOUT_MS)
    const over = ended.then(({ code }) => code)
    const printed = () => readFile(log, 'utf8')
    let code: unknown
    while (!ready.test(await printed()) && code === undefined) code = await Promise.race([over, sleep(POLL_MS)])
    expect(code, `${as.name}: ${line} ended:\n${await printed()}`).toBeUndefined()
    await then()
    await done(as, end)
    expect(await over, `${as.name}: ${line}:\n${await printed()}`).toBe(0)
  }

  const each = async (as: Person, name: string, body: (line: string) => Promise<void>) => {
    for (const line of of(as, name)) {
      await body(line)
      note(as, line)
    }
  }

  async function readsImages(as: Person) {
    expect(await done(as, 'lazylayer --version')).toMatch(/^\d+\.\d+\.\d+\n$/)
    await each(as, 'inspect', async (line) => expect(await done(as, line)).toMatch(/ yes +estargz$/m))
    await each(as, 'ls', async (line) => expect(await done(as, line)).toContain('os-release'))
    await each(as, 'cat', async (line) => expect(await done(as, line)).toBe(RELEASE))
  }

  async function learns(as: Person) {
    await done(as, `echo '${profile}' >app.json`)
    const kinds = ['import', 'ls', 'show', 'export', 'push', 'forget']
    const lines = of(as, 'profile')
    for (const line of lines) expect(kinds).toContain(line.split(' ')[2])
    for (const kind of kinds) {
      for (const line of lines.filter((each) => each.split(' ')[2] === kind)) {
        const said = await done(as, line)
        if (kind === 'show' || kind === 'push') expect(said, line).toContain('etc/os-release')
        note(as, line)
      }
    }
  }

  async function mounts(as: Person) {
    const umount = async (dir: string) => {
      const lines = of(as, 'umount').filter((line) => line.endsWith(` ${dir}`))
      expect(lines.length, `a page says how to end a mount on ${dir}`).toBeGreaterThan(0)
      for (const line of lines) note(as, line)
      return lines[0] as string
    }
    await each(as, 'mount', async (line) => {
      const dir = line.split(' ').at(-1) as string
      const look = async () => {
        expect(await done(as, `cat ${dir}/etc/os-release`)).toBe(RELEASE)
        expect(await done(as, 'lazylayer status')).toContain(IMAGE)
      }
      await during(as, line, /is mounted on/, look, await umount(dir))
      expect(await done(as, `${line} --detach`)).toMatch(/is mounted on/)
      await look()
      await done(as, await umount(dir))
      expect(await done(as, 'lazylayer status')).toBe('nothing is mounted\n')
    })
  }

  async function serves(as: Person, then: () => Promise<void>) {
    const umounts = of(as, 'umount').filter((line) => !line.endsWith('mnt'))
    let ends = 0
    const end = () => {
      const line = umounts[ends++ % umounts.length] as string
      note(as, line)
      return line
    }
    const lines = of(as, 'serve')
    expect(lines.length).toBeGreaterThanOrEqual(umounts.length)
    for (const line of lines) {
      const look = async () => expect(await done(as, 'lazylayer status')).toMatch(/ store /)
      await during(as, as.serveThrough + line, /^serving /m, line === 'lazylayer serve' ? then : look, end())
      note(as, line)
    }
  }

  /** What is run beside an agent that serves. */
  async function asked(as: Person) {
    const setups = of(as, 'setup')
    const [changing, showing] = [/^lazylayer setup \w+$/, /--dry-run/].map((kind) => setups.filter((l) => kind.test(l)))
    for (const line of showing ?? []) expect(await done(as, line)).toMatch(/^\+/m)
    expect(await done(as, 'lazylayer setup podman --dry-run')).toMatch(/^\+.*lazylayer\/store\/images/m)
    for (const line of changing ?? []) expect(await done(as, line)).toMatch(/wrote|nothing to change/)
    await each(as, 'status', async (line) => expect(await done(as, line)).toMatch(/ store |"serves": "store"/))
    await each(as, 'explain', async (line) => expect(await done(as, line)).toContain('estargz'))
    await each(as, 'doctor', async (line) => {
      const said = await done(as, line, [0, 1])
      for (const name of ['node', 'native part', 'agent', 'storage.conf', 'auth helper', 'fuse']) {
        expect(said, said).toMatch(new RegExp(`^ok +${name} `, 'm'))
      }
    })
    await each(as, 'upgrade', async (line) => expect(await done(as, line)).toMatch(/ goes on/))
    // no containerd runs here
    await each(as, 'fill', async (line) => expect(await done(as, line, [1])).toContain('containerd'))
    await each(as, 'pull', async (line) => expect(await done(as, line)).toContain('1 of 1 layer listed'))
    await each(as, 'cache', async (line) => {
      const said = await done(as, line)
      if (!line.includes('pin ')) expect(said, line).toMatch(/\d/)
    })
    registry.seen.length = 0
    await done(as, `podman pull ${IMAGE}`)
    // the engine found the layer in the store
    expect(registry.count('manifest')).toBeGreaterThan(0)
    const config = registry.seen.filter((request) => request.kind === 'blob')
    expect(config.map(({ header }) => header('user-agent')).filter((agent) => agent !== 'lazylayer')).toHaveLength(1)
    await done(as, `podman rmi --force ${IMAGE}`)
    for (const engine of ['crio', 'podman']) {
      if (as === ROOT || engine === 'podman') await done(as, `lazylayer setup ${engine} --undo`)
    }
    for (const line of setups) note(as, line)
  }

  test('root types what the pages show', { timeout: FLOW_TIMEOUT_MS }, async () => {
    await readsImages(ROOT)
    await learns(ROOT)
    await mounts(ROOT)
    await serves(ROOT, () => asked(ROOT))
  })

  test('a plain user types what the pages show', { timeout: FLOW_TIMEOUT_MS }, async () => {
    await readsImages(PLAIN)
    await learns(PLAIN)
    await mounts(PLAIN)
    expect(await done(PLAIN, 'lazylayer serve', [1])).toContain('podman unshare')
    await serves(PLAIN, () => asked(PLAIN))
  })

  test('every command of the pages was run', () => {
    expect(
      pages.map(({ line, page }) => `${page}: ${line}`).filter((line) => !ran.has(line.replace(/^.*?: /, ''))),
    ).toEqual([])
    expect(pages.length).toBeGreaterThan(20)
  })

  test("the unit's commands are there, and its file", async () => {
    const unit = '/usr/lib/node_modules/lazylayer/packaging/lazylayer.service'
    const text = await asRoot(`cat ${unit}`)
    for (const [program] of text.matchAll(/\/usr\/bin\/lazylayer\b/g)) await asRoot(`test -x ${program}`)
    const lines = await readFile(join(CHECKOUT, 'docs/operations.md'), 'utf8')
    expect(lines).toContain(`install -m 644 ${unit} `)
  })
})

/** Whether a line is about what only root has. */
function isRoots(line: string): boolean {
  return (
    line.includes(' /var/lib/') ||
    /setup (crio|containerd|buildkit|nerdctl|k3s)/.test(line) ||
    line.includes('--containerd ')
  )
}

/** Packs this checkout, and installs it into a Debian root as README says. @returns the root, which is `dir`'s alone */
async function install(dir: string): Promise<string> {
  const lower = await debianRoot('user')
  const root = join(dir, 'root')
  for (const name of ['root', 'upper', 'work', 'package']) await mkdir(join(dir, name))
  const options = `lowerdir=${lower},upperdir=${dir}/upper,workdir=${dir}/work`
  await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, root])
  await succeed('npm', ['pack', '--pack-destination', join(dir, 'package')], { cwd: CHECKOUT })
  const [file] = await readdir(join(dir, 'package'))
  const args = ['install', '--global', `--prefix=${root}/usr`, '--prefer-offline', join(dir, 'package', file as string)]
  await succeed('npm', args, { cwd: dir, timeoutMs: SETUP_TIMEOUT_MS })
  return root
}

/** /etc/containers: the registry of the pages is the test's. */
async function configure(folder: string, { host, cert }: LayoutRegistry): Promise<void> {
  const certificates = join(folder, 'certs.d', host)
  await mkdir(certificates, { recursive: true })
  await writeFile(join(certificates, 'ca.crt'), cert)
  await writeFile(join(folder, 'policy.json'), JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }))
  await writeFile(
    join(folder, 'registries.conf'),
    `[[registry]]\nprefix = "registry.example.com"\nlocation = "${host}"\n`,
  )
}
