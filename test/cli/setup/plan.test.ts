// Setup and its undoing, on files in a folder of the test.
import { chmod, mkdir, readdir, readFile, rm, rmdir, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { parse } from 'smol-toml'
import { expect, test } from 'vitest'
import { apply } from '../../../src/cli/setup/apply.ts'
import { hasUnit } from '../../../src/cli/setup/crio.ts'
import { type Plan, planSetup, planUndo, type Request } from '../../../src/cli/setup/plan.ts'
import { type Engine, type FoundEngine, foundEngine } from '../../../src/engines/versions.ts'
import { folder } from '../../store/folder.ts'

/** As distributions write it: comments, an empty array over lines, an inline table. */
const STORAGE_CONF = `# Settings of the container storage.
[storage]

# The driver
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"

[storage.options]
# Other image stores, to be read only
additionalimagestores = [
]

pull_options = {enable_partial_images = "false", ostree_repos=""}

[storage.options.overlay]
mountopt = "nodev,metacopy=on" # fast
#size = ""
`

interface Machine extends Request {
  file(path: string): Promise<string | undefined>
  setup(): Promise<Plan>
  undo(): Promise<Plan>
}

async function machine(
  engine: 'podman' | 'crio',
  versions: Partial<Record<Engine, string>>,
  more: Partial<Request> = {},
): Promise<Machine> {
  const dir = await folder()
  const root = join(dir, 'store')
  await mkdir(join(root, 'layers'), { recursive: true })
  await mkdir(join(root, 'images'))
  const request: Request = {
    engine,
    root,
    defaultRoot: root,
    places: { etc: join(dir, 'etc'), home: join(dir, 'home'), run: join(dir, 'run'), uid: 0, env: {} },
    vendor: join(dir, 'usr/storage.conf'),
    engines: Object.entries(versions).map(([name, text]) => foundEngine(name as Engine, text) as FoundEngine),
    silent: [],
    helper: '/usr/bin/lazylayer-auth-helper',
    ...more,
  }
  const applied = async (plan: Plan) => {
    for (const change of plan.changes) await apply(change)
    return plan
  }
  return {
    ...request,
    file: (path) => readFile(path, 'utf8').catch(() => undefined),
    setup: async () => applied(await planSetup(request)),
    undo: async () => applied(await planUndo(request)),
  }
}

const storageConf = (of: Request) => join(of.places.etc, 'containers/storage.conf')

async function put(path: string, text: string, mode = 0o644): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
  await chmod(path, mode)
}

test('the image store is added, nothing else changes, and undo restores the file byte by byte', async () => {
  const it = await machine('podman', { podman: 'podman version 5.4.2' })
  const path = storageConf(it)
  await put(path, STORAGE_CONF, 0o640)
  const { changes } = await it.setup()
  expect(changes.map((each) => each.path)).toEqual([join(dirname(path), 'registries.conf.d/50-lazylayer.conf'), path])
  const text = (await it.file(path)) as string
  const { storage } = parse(text) as { storage: { options: Record<string, unknown> } }
  expect(storage.options.additionallayerstores).toBeUndefined()
  expect(storage.options.additionalimagestores).toEqual([`${it.root}/images`])
  expect(text.split('\n').filter((line) => !line.includes(it.root))).toEqual(STORAGE_CONF.split('\n'))
  expect((await stat(path)).mode & 0o777).toBe(0o640)
  expect(await it.file(`${path}.before-lazylayer`)).toBe(STORAGE_CONF)

  expect((await it.setup()).changes).toEqual([])

  expect((await it.undo()).notes).toEqual([expect.stringMatching(/^lazy images are to be removed before this/)])
  expect(await it.file(path)).toBe(STORAGE_CONF)
  expect(await readdir(dirname(path))).toEqual(['registries.conf.d', 'storage.conf'])
  expect(await readdir(join(dirname(path), 'registries.conf.d'))).toEqual([])
  expect((await it.undo()).changes).toEqual([])
})

test('planning writes nothing', async () => {
  const it = await machine('crio', { crio: 'crio version 1.31.0' })
  await planSetup(it)
  expect(await it.file(storageConf(it))).toBeUndefined()
})

test('an engine that loses what it finds in the layer store is given the image store alone', async () => {
  for (const versions of [{ podman: '5.8.6' }, { podman: '5.4.2', crio: '1.33.0' }]) {
    const it = await machine('podman', versions)
    await put(storageConf(it), STORAGE_CONF)
    await it.setup()
    const text = await it.file(storageConf(it))
    expect(text).toContain(`${it.root}/images`)
    expect(text).not.toContain('additionallayerstores')
  }
})

test.each<[string, Parameters<typeof machine>[1], Partial<Request>, string[]]>([
  ['engines that announce images', { podman: '5.2.0', buildah: '1.39.3' }, {}, ['images']],
  ['an engine that announces none', { podman: '5.1.0' }, {}, ['images', 'layers']],
  ['one of two that announces none', { podman: '5.4.2', skopeo: '1.15.0' }, {}, ['images', 'layers']],
  ['a machine without the helper', { podman: '5.4.2' }, { helper: undefined }, ['images', 'layers']],
  ['one that loses it, which reads the same file', { podman: '4.3.1', crio: '1.33.0' }, {}, ['images']],
  ['a root that the helper does not announce to', { podman: '5.4.2' }, { defaultRoot: '/other' }, ['images', 'layers']],
])('%s: of use are', async (_, versions, more, stores) => {
  const it = await machine('podman', versions, more)
  await it.setup()
  const { options } = (parse((await it.file(storageConf(it))) as string) as { storage: { options: object } }).storage
  const keys = { additionallayerstores: 'layers', additionalimagestores: 'images' }
  expect(
    Object.keys(options)
      .map((key) => keys[key as keyof typeof keys])
      .sort(),
  ).toEqual(stores)
})

test('an engine for which the layer store is left out is told so, and what to do', async () => {
  const { notes } = await (await machine('podman', { podman: '4.3.1', crio: '1.37.0' })).setup()
  expect(notes).toContainEqual(
    expect.stringMatching(
      /left out, because crio 1\.37\.0 loses.*podman 4\.3\.1 is lazy only for images that lazylayer pull/,
    ),
  )
  for (const versions of [
    { podman: '4.3.1' },
    { podman: '5.4.2', crio: '1.37.0' },
    { podman: '4.3.1', crio: '1.32.0' },
  ]) {
    const { notes } = await (await machine('podman', versions)).setup()
    expect(notes.filter((each) => each.includes('left out'))).toEqual([])
  }
})

test('CRI-O, which does not read it, takes no store out of a file', async () => {
  const it = await machine('podman', { podman: '4.3.1', crio: '1.37.0' })
  const own = join(it.places.home, '.config/containers/storage.conf')
  const other = join(it.root, '../other.conf')
  for (const places of [
    { ...it.places, uid: 1000 },
    { ...it.places, env: { CONTAINERS_STORAGE_CONF: other } },
  ]) {
    const { changes, notes } = await planSetup({ ...it, places })
    const change = changes.find(({ path }) => path === own || path === other)
    expect(change?.after).toContain(`${it.root}/layers:ref`)
    expect(notes.filter((each) => each.includes('left out'))).toEqual([])
  }
  // nor has a user's setup anybody run a helper that only CRI-O would run
  const paths = (await planSetup({ ...it, places: { ...it.places, uid: 1000 } })).changes.map(({ path }) => path)
  expect(paths).toEqual([own])
})

test('another engine that reads the same files has the helper named, so that doctor has nothing to ask for', async () => {
  const it = await machine('podman', { podman: '4.3.1', crio: '1.37.0' })
  const { notes } = await it.setup()
  expect(await it.file(join(it.places.etc, 'containers/registries.conf.d/50-lazylayer.conf'))).toContain(it.helper)
  expect(notes).toContainEqual(
    expect.stringMatching(/podman 4\.3\.1 runs no auth helper: .*lazylayer pull --prove IMAGE$/),
  )
})

test('setup after an upgrade takes the layer store out, and undo still restores the file', async () => {
  const it = await machine('podman', { podman: '5.1.0' })
  await put(storageConf(it), STORAGE_CONF)
  await it.setup()
  expect(await it.file(storageConf(it))).toContain('/layers:ref')
  const upgraded: Request = { ...it, engines: [foundEngine('podman', '5.5.0') as FoundEngine] }
  for (const change of (await planSetup(upgraded)).changes) await apply(change)
  expect(await it.file(storageConf(it))).not.toContain('/layers:ref')
  await it.undo()
  expect(parse((await it.file(storageConf(it))) as string)).toMatchObject({
    storage: { options: { additionalimagestores: [] } },
  })
})

test.each([[STORAGE_CONF], [undefined]])(
  'a setup that names fewer stores than an earlier one is undone as if it were the first',
  async (conf) => {
    const it = await machine('podman', { podman: '5.1.0' })
    if (conf !== undefined) await put(storageConf(it), conf)
    await it.setup()
    const upgraded: Request = { ...it, engines: [foundEngine('podman', '5.4.2') as FoundEngine] }
    for (const change of (await planSetup(upgraded)).changes) await apply(change)
    expect(await it.file(storageConf(it))).not.toContain('/layers:ref')
    const { notes } = await it.undo()
    expect(notes).toEqual([expect.stringMatching(/^lazy images are to be removed before this/)])
    expect(await it.file(storageConf(it))).toBe(conf)
  },
)

test('what others wrote since stays, and only our stores go', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  const path = storageConf(it)
  await put(path, STORAGE_CONF)
  await it.setup()
  await writeFile(path, `${await it.file(path)}# mine\n`)
  const { notes } = await it.undo()
  expect(notes).toEqual([
    expect.stringContaining('was changed since setup'),
    expect.stringMatching(/^lazy images are to be removed before this/),
  ])
  expect(await it.file(path)).toBe(`${STORAGE_CONF}# mine\n`)
})

test('without a storage.conf a copy of the vendor’s is made, because engines read one only', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  await put(it.vendor, STORAGE_CONF)
  await it.setup()
  const text = (await it.file(storageConf(it))) as string
  expect(
    text
      .split('\n')
      .slice(1)
      .filter((line) => !line.includes(it.root)),
  ).toEqual(STORAGE_CONF.split('\n'))
  await it.undo()
  expect(await it.file(storageConf(it))).toBeUndefined()
})

test('without either, the file has what engines insist on', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  await it.setup()
  expect(parse((await it.file(storageConf(it))) as string)).toEqual({
    storage: {
      driver: 'overlay',
      runroot: '/run/containers/storage',
      graphroot: '/var/lib/containers/storage',
      options: { additionalimagestores: [`${it.root}/images`] },
    },
  })
  await it.undo()
  expect(await it.file(storageConf(it))).toBeUndefined()
})

test('a user has files of their own, with places that the engine chooses', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  const rootless: Request = { ...it, places: { ...it.places, uid: 1000 } }
  await put(it.vendor, STORAGE_CONF)
  const { changes } = await planSetup(rootless)
  const own = join(it.places.home, '.config/containers')
  expect(changes.map((each) => each.path)).toEqual([
    join(own, 'registries.conf.d/50-lazylayer.conf'),
    join(own, 'storage.conf'),
  ])
  expect(parse(changes[1]?.after ?? '')).toMatchObject({ storage: { driver: 'overlay' } })
  expect(changes[1]?.after).not.toContain('graphroot')
})

test('CONTAINERS_STORAGE_CONF names the file', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  const named = join(it.root, '../other.conf')
  const { changes } = await planSetup({ ...it, places: { ...it.places, env: { CONTAINERS_STORAGE_CONF: named } } })
  expect(changes.at(-1)?.path).toBe(named)
})

test('a symlink stays one, and what it names is changed', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  const path = storageConf(it)
  await put(`${path}.real`, STORAGE_CONF)
  await symlink('storage.conf.real', path)
  await it.setup()
  expect(await it.file(`${path}.real`)).toContain(it.root)
  await it.undo()
  expect(await it.file(`${path}.real`)).toBe(STORAGE_CONF)
})

test('CRI-O starts behind the agent and does not wipe its storage after an unclean stop', async () => {
  const it = await machine('crio', { crio: 'crio version 1.33.0' })
  const { notes } = await it.setup()
  const unit = join(it.places.etc, 'systemd/system/crio.service.d/50-lazylayer.conf')
  const conf = join(it.places.etc, 'crio/crio.conf.d/50-lazylayer.conf')
  expect(await it.file(unit)).toMatch(/\[Unit\]\nWants=lazylayer.service\nAfter=lazylayer.service\n$/)
  expect(parse((await it.file(conf)) as string)).toEqual({ crio: { internal_repair: false } })
  expect(notes).toEqual([expect.stringContaining('daemon-reload')])
  expect((await it.setup()).changes).toEqual([])
  await it.undo()
  for (const path of [unit, conf]) expect(await it.file(path)).toBeUndefined()
  // nor is there an empty folder that was made for it
  expect(await readdir(dirname(dirname(unit)))).toEqual([])
})

test('a folder of drop-ins of somebody else stays', async () => {
  const it = await machine('crio', { crio: 'crio version 1.33.0' })
  const other = join(it.places.etc, 'systemd/system/crio.service.d/10-mine.conf')
  await put(other, '[Unit]\n')
  await it.setup()
  await it.undo()
  expect(await it.file(other)).toBe('[Unit]\n')
})

test('the unit of the agent is looked for where units are', async () => {
  const it = await machine('crio', { crio: 'crio version 1.33.0' })
  expect(await hasUnit(it.places)).toBe(false)
  await put(join(it.places.etc, 'systemd/system/lazylayer.service'), '[Unit]\n')
  expect(await hasUnit(it.places)).toBe(true)
})

const crioConf = (of: Request) => join(of.places.etc, 'crio/crio.conf.d/50-lazylayer.conf')
const crioUnit = (of: Request) => join(of.places.etc, 'systemd/system/crio.service.d/50-lazylayer.conf')

test('whatever ends setup or its undoing early, CRI-O never knows the image store while it would repair', async () => {
  const it = await machine('crio', { crio: 'crio version 1.33.0' })
  const { changes } = await it.setup()
  expect(changes.map((each) => each.path)).toEqual([
    crioConf(it),
    crioUnit(it),
    join(it.places.etc, 'containers/registries.conf.d/50-lazylayer.conf'),
    storageConf(it),
  ])
  const undone = (await it.undo()).changes.map((each) => each.path)
  expect([undone[0], undone.at(-1)]).toEqual([storageConf(it), crioConf(it)])
})

test.each<[string, Partial<Request>]>([
  ['is found', {}],
  ['does not say its version', { silent: [{ engine: 'crio', why: 'it ended with 1' }] }],
])('setup podman keeps a CRI-O that %s from wiping its storage: it reads the same file', async (_, more) => {
  const crio = more.silent === undefined ? { crio: '1.33.0' } : {}
  const it = await machine('podman', { podman: '5.4.2', ...crio }, more)
  const { changes, notes } = await it.setup()
  expect(changes[0]?.path).toBe(crioConf(it))
  expect(parse((await it.file(crioConf(it))) as string)).toEqual({ crio: { internal_repair: false } })
  expect(await it.file(crioUnit(it))).toBeUndefined()
  expect(notes).toContainEqual(expect.stringMatching(/CRI-O reads .*storage\.conf, too.*does not wipe its storage/))
  expect(await it.setup()).toMatchObject({ changes: [] })
  const undone = await it.undo()
  expect(undone.changes.at(-1)?.path).toBe(crioConf(it))
  expect(await it.file(crioConf(it))).toBeUndefined()
})

test('setup podman leaves CRI-O alone where it does not read the file, or no image store is named', async () => {
  const it = await machine('podman', { podman: '5.4.2', crio: '1.31.0' })
  const paths = async (more: Partial<Request>) => (await planSetup({ ...it, ...more })).changes.map((each) => each.path)
  expect(await paths({})).toContain(crioConf(it))
  expect(await paths({ places: { ...it.places, uid: 1000 } })).not.toContain(crioConf(it))
  const env = { CONTAINERS_STORAGE_CONF: join(it.root, '../other.conf') }
  expect(await paths({ places: { ...it.places, env } })).not.toContain(crioConf(it))
  await rmdir(join(it.root, 'images'))
  expect(await paths({ helper: undefined })).not.toContain(crioConf(it))
})

test('what keeps CRI-O from wiping stays while setup crio is in force, or the image store is still named', async () => {
  const it = await machine('podman', { podman: '5.4.2', crio: '1.33.0' })
  await it.setup()
  const crio: Request = { ...it, engine: 'crio' }
  for (const change of (await planSetup(crio)).changes) await apply(change)
  expect((await it.undo()).changes.map((each) => each.path)).not.toContain(crioConf(it))
  expect(await it.file(crioConf(it))).toBeDefined()
  await put(storageConf(it), `[storage.options]\nadditionalimagestores = ["${it.root}/images"]\n`)
  const kept = await planUndo(crio)
  expect(kept.changes.map((each) => each.path)).toEqual([crioUnit(it)])
  expect(kept.notes).toContainEqual(expect.stringMatching(/stays, because .*storage\.conf still names .*\/images/))
  await put(storageConf(it), '')
  expect((await planUndo(crio)).changes.map((each) => each.path)).toEqual([crioUnit(it), crioConf(it)])
})

async function planned(plan: Promise<Plan>): Promise<Plan> {
  const made = await plan
  for (const change of made.changes) await apply(change)
  return made
}

/** The same machine with the stores of a second root. */
async function secondRoot(it: Machine): Promise<Request> {
  const root = `${it.root}-2`
  await mkdir(join(root, 'images'), { recursive: true })
  return { ...it, root }
}

test('the undoing of a root that was never set up takes nothing from CRI-O that the other one needs', async () => {
  const it = await machine('crio', { crio: '1.33.0' })
  await put(storageConf(it), STORAGE_CONF)
  const other = await secondRoot(it)
  await planned(planSetup(other))
  const text = await it.file(storageConf(it))
  const { changes, notes } = await it.undo()
  expect(changes.map((each) => each.path)).not.toContain(storageConf(it))
  expect(notes).toContainEqual(expect.stringContaining(`does not name the stores of ${it.root}`))
  expect(notes).toContainEqual(expect.stringContaining(`stays, because ${storageConf(it)} still names ${other.root}`))
  expect(await it.file(storageConf(it))).toBe(text)
  expect(await it.file(`${storageConf(it)}.before-lazylayer`)).toBe(STORAGE_CONF)
  expect(await it.file(crioConf(it))).toBeDefined()
  await planned(planUndo(other))
  expect(await it.file(storageConf(it))).toBe(STORAGE_CONF)
  expect(await it.file(crioConf(it))).toBeUndefined()
})

test('of two roots one is undone, then the other, and the file is as it was', async () => {
  const it = await machine('crio', { crio: '1.33.0' })
  await put(storageConf(it), STORAGE_CONF)
  const other = await secondRoot(it)
  await it.setup()
  await planned(planSetup(other))
  const first = await it.undo()
  expect(first.notes).toContainEqual(expect.stringContaining(`still names ${other.root}/images`))
  expect(await it.file(crioConf(it))).toBeDefined()
  expect(await it.file(storageConf(it))).not.toContain(`${it.root}/images`)
  await planned(planUndo(other))
  expect(await it.file(storageConf(it))).toBe(STORAGE_CONF)
  expect(await it.file(crioConf(it))).toBeUndefined()
  expect(await readdir(dirname(storageConf(it)))).toEqual(['registries.conf.d', 'storage.conf'])
})

const PLAIN = '[storage.options]\nadditionalimagestores = ["/plain"]\n'

test.each<[string, (of: Request) => readonly [string, string], RegExp]>([
  [
    'a plain store in storage.conf',
    (of) => [storageConf(of), PLAIN],
    /stays, because .*storage\.conf still names \/plain$/,
  ],
  ['one in the vendor’s file', (of) => [of.vendor, PLAIN], /stays, because .*usr\/storage\.conf still names \/plain$/],
  [
    'one in an option of its own',
    (of) => [join(of.places.etc, 'crio/crio.conf'), '[crio]\nstorage_option = ["overlay.imagestore=/own"]\n'],
    /stays, because .*crio\.conf.* still names \/own$/,
  ],
  [
    'a file that cannot be read',
    (of) => [storageConf(of), '[storage'],
    /stays, because .*storage\.conf cannot be read/,
  ],
  ['a crio.conf that cannot be read', (of) => [join(of.places.etc, 'crio/crio.conf'), '[crio'], /crio\.conf cannot be/],
])('what keeps CRI-O from wiping stays for any additional image store: %s', async (_, file, note) => {
  const it = await machine('crio', { crio: '1.33.0' })
  await it.setup()
  await rm(storageConf(it))
  await put(...file(it))
  const { changes, notes } = await planUndo(it)
  expect(changes.map((each) => each.path)).not.toContain(crioConf(it))
  expect(notes).toContainEqual(expect.stringMatching(note))
})

test('setup podman protects a CRI-O whose program is not found, if its settings are there', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  const paths = async (more: Partial<Request> = {}) =>
    (await planSetup({ ...it, ...more })).changes.map((each) => each.path)
  expect(await paths()).not.toContain(crioConf(it))
  await mkdir(join(it.places.etc, 'crio'), { recursive: true })
  expect((await paths())[0]).toBe(crioConf(it))
  expect(await paths({ places: { ...it.places, uid: 1000 } })).not.toContain(crioConf(it))
})

test('the file that CRI-O reads is known by whatever name, before it is there and after', async () => {
  const it = await machine('podman', { podman: '5.4.2', crio: '1.33.0' })
  const alias = join(it.root, '../alias')
  await mkdir(dirname(storageConf(it)), { recursive: true })
  await symlink(dirname(storageConf(it)), alias)
  const places = { ...it.places, env: { CONTAINERS_STORAGE_CONF: join(alias, 'storage.conf') } }
  const first = () => planSetup({ ...it, places }).then(({ changes }) => changes[0]?.path)
  expect(await first()).toBe(crioConf(it))
  await put(`${alias}.conf`, STORAGE_CONF)
  await symlink(`${alias}.conf`, storageConf(it))
  places.env.CONTAINERS_STORAGE_CONF = `${alias}.conf`
  expect(await first()).toBe(crioConf(it))
})

test.each<[string, string, string, RegExp | undefined]>([
  [
    'a later file',
    '99-mine.conf',
    '[crio]\ninternal_repair = true\n',
    /after 50-lazylayer\.conf turns internal_repair on/,
  ],
  ['an earlier file', '10-mine.conf', '[crio]\ninternal_repair = true\n', undefined],
  ['a later file that says the same', '99-mine.conf', '[crio]\ninternal_repair = false\n', undefined],
  ['a file that cannot be read', '10-mine.conf', '[crio', /cannot be read.*is not known/],
])('setup says so where CRI-O repairs all the same: %s', async (_, name, text, note) => {
  for (const engine of ['crio', 'podman'] as const) {
    const it = await machine(engine, { podman: '5.4.2', crio: '1.33.0' })
    await put(join(dirname(crioConf(it)), name), text)
    const { notes } = await it.setup()
    const found = notes.filter((each) => /internal_repair|is not known/.test(each))
    expect(found).toEqual(note === undefined ? [] : [expect.stringMatching(note)])
    expect((await planSetup(it)).notes.filter((each) => found.includes(each))).toEqual(found)
  }
})

test('undoing Podman says that CRI-O loses its stores, too, where it reads the same file', async () => {
  const it = await machine('podman', { podman: '5.4.2', crio: '1.33.0' })
  await planned(planSetup({ ...it, engine: 'crio' }))
  const note = expect.stringMatching(/^CRI-O reads .*storage\.conf, too, so its stores go as well/)
  expect((await planUndo({ ...it, engine: 'crio' })).notes).not.toContainEqual(note)
  expect((await it.undo()).notes).toContainEqual(note)
  expect(await it.undo()).toMatchObject({ changes: [], notes: [] })
})

test('the auth helper is set only where the engine runs one and it is installed', async () => {
  const dropIn = (of: Request) => join(of.places.etc, 'containers/registries.conf.d/50-lazylayer.conf')
  const old = await machine('podman', { podman: '4.3.1' })
  expect((await old.setup()).notes).toEqual([expect.stringContaining('runs no auth helper')])
  expect(await old.file(dropIn(old))).toBeUndefined()
  const without = await machine('podman', { podman: '5.4.2' }, { helper: undefined })
  expect((await without.setup()).notes).toEqual([expect.stringContaining('not installed')])
  expect(await without.file(dropIn(without))).toBeUndefined()
  const it = await machine('podman', { podman: '5.4.2' })
  await it.setup()
  expect(parse((await it.file(dropIn(it))) as string)).toEqual({
    'additional-layer-store-auth-helper': '/usr/bin/lazylayer-auth-helper',
  })
})

test('a helper that somebody else has named stays', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  await put(join(it.places.etc, 'containers/registries.conf'), 'additional-layer-store-auth-helper = "/other"\n')
  const { changes, notes } = await planSetup(it)
  expect(changes.map((each) => each.path)).toEqual([storageConf(it)])
  expect(notes).toEqual([expect.stringContaining('/other as auth helper, which stays')])
})

test('a helper of ours that has moved is named anew', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  await it.setup()
  const { changes } = await planSetup({ ...it, helper: '/opt/lazylayer-auth-helper' })
  expect(changes).toEqual([expect.objectContaining({ after: expect.stringContaining('"/opt/lazylayer-auth-helper"') })])
})

test('another root is told to the auth helper by the environment, which is said', async () => {
  const it = await machine('podman', { podman: '5.4.2' }, { defaultRoot: '/elsewhere' })
  expect((await planSetup(it)).notes).toEqual([expect.stringContaining(`LAZYLAYER_ROOT=${it.root}`)])
})

test('a store that is not there is not named, because every command of the engine would fail', async () => {
  const it = await machine('podman', { podman: '5.1.0' })
  await rmdir(join(it.root, 'images'))
  const { notes } = await it.setup()
  expect(notes).toContainEqual(expect.stringContaining(`${it.root}/images is not there`))
  expect(await it.file(storageConf(it))).not.toContain('/images')
  await rmdir(join(it.root, 'layers'))
  await expect(planSetup(it)).rejects.toMatchObject({
    code: 'missing',
    fix: expect.stringContaining('lazylayer serve'),
  })
})

test.each<[string, Partial<Request>, string | undefined, string]>([
  ['an engine that is not installed', { engines: [] }, undefined, 'missing'],
  [
    'an engine that does not work',
    { engines: [], silent: [{ engine: 'podman', why: 'it ended with 125' }] },
    undefined,
    'unavailable',
  ],
  ['a root with a colon', { root: '/a:b' }, undefined, 'usage'],
  ['a storage.conf that is no TOML', {}, '[storage\n', 'usage'],
  ['an inline table', {}, '[storage]\noptions = {size = ""}\n', 'unsupported'],
  ['a key that holds something else', {}, '[storage.options]\nadditionalimagestores = "/a"\n', 'usage'],
])('%s is refused', async (_, more, conf, code) => {
  const it = await machine('podman', { podman: '5.4.2' }, more)
  if (conf !== undefined) await put(storageConf(it), conf)
  await expect(planSetup(it)).rejects.toMatchObject({ code })
  expect(await it.file(storageConf(it))).toBe(conf)
})

test('drop-ins of others at our names are neither written over nor removed', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  await put(join(it.places.etc, 'containers/registries.conf.d/50-lazylayer.conf'), '# mine\n')
  await expect(planSetup(it)).rejects.toMatchObject({ code: 'unsupported' })
  expect(await planUndo(it)).toMatchObject({ changes: [], notes: [expect.stringContaining('stays')] })
})

test('stores that somebody wrote by hand are not undone', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  await put(storageConf(it), `[storage.options]\nadditionallayerstores = ["${it.root}/layers:ref"]\n`)
  expect((await planUndo(it)).changes).toEqual([])
})

test('a file that changes between plan and change is left alone', async () => {
  const it = await machine('podman', { podman: '5.4.2' })
  await put(storageConf(it), STORAGE_CONF)
  const { changes } = await planSetup(it)
  await writeFile(storageConf(it), '# other\n')
  await expect(apply(changes.at(-1) as (typeof changes)[number])).rejects.toMatchObject({
    code: 'system',
    fix: 'Try again.',
  })
  expect(await it.file(storageConf(it))).toBe('# other\n')
})

/** The real file, where a distribution has put it. */
const VENDOR = process.env.LAZYLAYER_STORAGE_CONF ?? '/usr/share/containers/storage.conf'
const real = await readFile(VENDOR, 'utf8').catch(() => undefined)

test.skipIf(real === undefined)(`this distribution’s own file round-trips (needs ${VENDOR})`, async () => {
  const it = await machine('podman', { podman: '5.1.0' })
  await put(storageConf(it), real as string)
  await it.setup()
  const text = (await it.file(storageConf(it))) as string
  const { storage } = parse(text) as { storage: { options: Record<string, string[]> } }
  expect(storage.options.additionallayerstores).toContain(`${it.root}/layers:ref`)
  expect(storage.options.additionalimagestores).toContain(`${it.root}/images`)
  await it.undo()
  expect(await it.file(storageConf(it))).toBe(real)
})
