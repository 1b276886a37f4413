import { expect, test } from 'vitest'
import { crioConf, crioNames } from '../../../src/cli/doctor/crio.ts'
import { readCrioConf } from '../../../src/engines/crio-conf.ts'
import { type FoundEngine, foundEngine } from '../../../src/engines/versions.ts'
import { type Contents, DIRECTORY, files, PROGRAM, summary } from './machine.ts'

const MAIN = '/etc/crio/crio.conf'
const DROP_IN = '/etc/crio/crio.conf.d/10-x.conf'
const STORAGE = '/etc/containers/storage.conf'
const THERE = {
  '/s/layers': DIRECTORY,
  '/s/images': DIRECTORY,
  '/s/images/overlay-layers/layers.lock': PROGRAM,
}
const NAMED = '[storage]\ndriver = "overlay"\n[storage.options]\nadditionalimagestores = ["/s/images"]\n'

const CRIO = [foundEngine('crio', 'crio version 1.37.0') as FoundEngine]

const needs = ({ seen = THERE, ...rest }: Contents, engines: readonly FoundEngine[] = []) => ({
  engines,
  silent: [],
  root: '/s',
  crioStorageConfs: [STORAGE],
  etc: '/etc',
  files: files({ seen, ...rest }),
})

test.each<[string, Contents, string, RegExp]>([
  ['none', {}, 'ok', /there is none in \/etc\/crio/],
  ['no word of storage', { texts: { [MAIN]: '[crio.image]\npause_image = "x"\n' } }, 'ok', /storage\.conf counts/],
  ['another root', { texts: { [MAIN]: '[crio]\nroot = "/r"\n' } }, 'ok', /crio\.conf: storage is in \/r, whatever/],
  ['another place for images', { texts: { [DROP_IN]: '[crio]\nimagestore = "/i"\n' } }, 'ok', /new images go to \/i/],
  [
    'the image store',
    { texts: { [DROP_IN]: '[crio]\nstorage_option = ["overlay.imagestore=/s/images"]\n' } },
    'ok',
    /10-x\.conf: \/s\/images beside the stores of storage\.conf/,
  ],
  ['an option without meaning', { texts: { [MAIN]: '[crio]\nstorage_option = ["overlay.x=1"]\n' } }, 'ok', /stores of/],
  ['no TOML', { texts: { [MAIN]: '[crio' } }, 'problem', /crio\.conf cannot be read.*Repair it: CRI-O does not start/],
  ['a file nobody may read', { texts: { [MAIN]: 'closed' } }, 'problem', /cannot read/],
  [
    'no :ref',
    { texts: { [MAIN]: '[crio]\nstorage_option = ["overlay.additionallayerstore=/s/layers"]\n' } },
    'problem',
    /lacks ":ref"\. Write "\/s\/layers:ref"/,
  ],
  [
    'layers among images',
    { texts: { [MAIN]: '[crio]\nstorage_option = ["overlay.imagestore=/s/layers"]\n' } },
    'problem',
    /is not the image store/,
  ],
  [
    'a store that is not there',
    { texts: { [MAIN]: '[crio]\nstorage_option = ["overlay.imagestore=/x/images"]\n' } },
    'problem',
    /\/x\/images is not there: every command of the engine fails/,
  ],
  [
    'another driver, over storage.conf',
    { texts: { [STORAGE]: NAMED, [DROP_IN]: '[crio]\nstorage_driver = "vfs"\n' } },
    'problem',
    /storage_driver is "vfs": only overlay.*Set storage_driver = "overlay"/,
  ],
  ['another driver without stores', { texts: { [DROP_IN]: '[crio]\nstorage_driver = "vfs"\n' } }, 'ok', /stores of/],
  [
    'a driver that a later drop-in puts right',
    {
      texts: {
        [STORAGE]: NAMED,
        [MAIN]: '[crio]\nstorage_driver = "vfs"\n',
        [DROP_IN]: '[crio]\nstorage_driver = "overlay"\n',
      },
    },
    'ok',
    /crio\.conf, .*10-x\.conf: the stores of storage\.conf count/,
  ],
])('CRI-O’s configuration: %s', async (_, contents, state, text) => {
  expect(summary(await crioConf.run(needs(contents)))).toEqual({ state, text: expect.stringMatching(text) })
})

test('CRI-O knows the stores of storage.conf and those of its own options', async () => {
  const named = async (texts: Record<string, string>) => {
    const machine = files({ texts })
    return await crioNames(await readCrioConf('/etc', machine), '/s', [STORAGE], machine)
  }
  const layers = { [MAIN]: '[crio]\nstorage_option = ["overlay.additionallayerstore=/s/layers:ref"]\n' }
  expect(await named({})).toEqual({ layers: false, images: false })
  expect(await named({ [STORAGE]: NAMED })).toEqual({ layers: false, images: true })
  expect(await named(layers)).toEqual({ layers: true, images: false })
  expect(await named({ ...layers, [STORAGE]: NAMED })).toEqual({ layers: true, images: true })
  expect(await named({ ...layers, [STORAGE]: 'no toml' })).toEqual({ layers: true, images: false })
})

test.each<[string, Record<string, string>, readonly FoundEngine[], string]>([
  ['nothing says otherwise', { [STORAGE]: NAMED }, CRIO, 'problem'],
  ['a drop-in says otherwise', { [STORAGE]: NAMED, [DROP_IN]: '[crio]\ninternal_repair = false\n' }, CRIO, 'ok'],
  [
    'a later drop-in turns it on again',
    { [STORAGE]: NAMED, [MAIN]: '[crio]\ninternal_repair = false\n', [DROP_IN]: '[crio]\ninternal_repair = true\n' },
    CRIO,
    'problem',
  ],
  [
    'its own option names the store',
    { [MAIN]: '[crio]\nstorage_option = ["overlay.imagestore=/s/images"]\n' },
    CRIO,
    'problem',
  ],
  ['no store is named', {}, CRIO, 'ok'],
  ['there is no CRI-O', { [STORAGE]: NAMED }, [], 'ok'],
  ['it is no switch', { [STORAGE]: NAMED, [MAIN]: '[crio]\ninternal_repair = "no"\n' }, CRIO, 'problem'],
])('internal_repair is a problem where CRI-O knows the image store: %s', async (_, texts, engines, state) => {
  const finding = summary(await crioConf.run(needs({ texts }, engines)))
  expect(finding.state).toBe(state)
  if (state === 'problem') expect(finding.text).toMatch(/internal_repair is/)
})

test('internal_repair is as bad in a CRI-O whose program is not found, if its settings are there', async () => {
  const state = async (seen: Contents['seen']) =>
    (await crioConf.run(needs({ texts: { [STORAGE]: NAMED }, seen: { ...THERE, ...seen } }))).state
  expect(await state({})).toBe('ok')
  expect(await state({ '/etc/crio': DIRECTORY })).toBe('problem')
})

test('internal_repair is as bad in a CRI-O that does not say its version', async () => {
  const silent = [{ engine: 'crio' as const, why: 'it ended with 1' }]
  const finding = summary(await crioConf.run({ ...needs({ texts: { [STORAGE]: NAMED } }), silent }))
  expect(finding).toEqual({
    state: 'problem',
    text: expect.stringMatching(/internal_repair is on.*setup crio \(or podman\)/),
  })
})
