import { expect, test } from 'vitest'
import type { Finding } from '../../../src/cli/doctor/check.ts'
import { adviceFor, engines } from '../../../src/cli/doctor/engines.ts'
import { authHelper, registries } from '../../../src/cli/doctor/registries.ts'
import { storage } from '../../../src/cli/doctor/storage.ts'
import { type Engine, type FoundEngine, foundEngine } from '../../../src/engines/versions.ts'
import { Settings } from '../../fake/settings.ts'
import { type Contents, DIRECTORY, files, PROGRAM, summary } from './machine.ts'

const found = (engine: Engine, version: string) => foundEngine(engine, version) as FoundEngine
const says = (finding: Finding, state: string, text: RegExp) =>
  expect(summary(finding)).toEqual({ state, text: expect.stringMatching(text) })

const NONE = { layers: false, images: false }
const BOTH = { layers: true, images: true }

test.each<[Engine, string, typeof BOTH, string, RegExp]>([
  ['podman', '4.3.1', NONE, 'warning', /DiffID only.*lazylayer pull --prove IMAGE/],
  ['podman', '5.1.0', BOTH, 'ok', /digest of a layer's index; runs no auth helper/],
  ['podman', '5.4.2', { layers: false, images: true }, 'ok', /digest of a layer's index$/],
  ['podman', '5.4.2', BOTH, 'warning', /get one ID.*Use the image store alone: run lazylayer setup podman/],
  ['podman', '5.8.6', BOTH, 'problem', /loses layers.*lazylayer setup podman/],
  ['podman', '5.8.6', { layers: false, images: true }, 'ok', /additional image store/],
  ['crio', '1.33.0', BOTH, 'problem', /lazylayer setup crio/],
  ['buildah', '1.40.1', BOTH, 'problem', /lazylayer setup podman/],
])('%s %s, with stores %j, is %s', (engine, version, names, state, text) => {
  const layersOfUse = engine === 'podman' && version === '5.1.0'
  says(adviceFor(found(engine, version), names, layersOfUse), state, text)
})

test('an engine that is not installed is no problem', async () => {
  for (const { run } of engines) {
    expect(await run({ engines: [], silent: [], names: () => BOTH, layersOfUse: true })).toEqual({
      state: 'ok',
      found: 'not installed',
    })
  }
})

test('an engine that is there and does not say its version is a problem, with the reason', async () => {
  const silent = [{ engine: 'podman' as const, why: 'it ended with 125: Error: bad configuration' }]
  const all = new Map(
    await Promise.all(
      engines.map(
        async (each) =>
          [each.name, await each.run({ engines: [], silent, names: () => BOTH, layersOfUse: true })] as const,
      ),
    ),
  )
  says(
    all.get('podman') as Finding,
    'problem',
    /is installed, .*ended with 125: Error: bad configuration\. Repair it: .*podman --version/,
  )
  says(all.get('crio') as Finding, 'ok', /^not installed$/)
})

const ROOT = '/s'
const CONF = '/etc/containers/storage.conf'
const THERE = {
  '/s/layers': DIRECTORY,
  '/s/images': DIRECTORY,
  '/s/images/overlay-layers/layers.lock': PROGRAM,
  '/s': DIRECTORY,
}
const options = (text: string) => `[storage]\ndriver = "overlay"\n[storage.options]\n${text}\n`

test.each<[string, string | undefined, string, RegExp]>([
  ['none', undefined, 'warning', /there is none.*lazylayer setup/],
  ['nothing of ours', options(''), 'warning', /names no store of \/s\. Run lazylayer setup/],
  [
    'both',
    options('additionallayerstores = ["/s/layers:ref"]\nadditionalimagestores = ["/s/images"]'),
    'ok',
    /layer store and the image store of \/s/,
  ],
  ['the image store', options('additionalimagestores = ["/s/images"]'), 'ok', /names the image store of/],
  ['no :ref', options('additionallayerstores = ["/s/layers"]'), 'problem', /lacks ":ref". Write "\/s\/layers:ref"/],
  ['the root as layer store', options('additionallayerstores = ["/s:ref"]'), 'problem', /is not the layer store/],
  [
    'layers among images',
    options('additionalimagestores = ["/s/layers"]'),
    'problem',
    /is not the image store. Write "\/s\/images"/,
  ],
  [
    'layers with :ref among images',
    options('additionalimagestores = ["/s/layers:ref"]'),
    'problem',
    /is not the image store/,
  ],
  ['images among layers', options('additionallayerstores = ["/s/images:ref"]'), 'problem', /is not the layer store/],
  [
    'a key in the wrong table',
    '[storage]\nadditionalimagestores = ["/s/images"]\n',
    'problem',
    /stands in \[storage\].*Move it/,
  ],
  [
    'a key in the driver’s table',
    options('[storage.options.overlay]\nadditionallayerstores = ["/s/layers:ref"]'),
    'problem',
    /stands in \[storage\.options\.overlay\]/,
  ],
  ['a key outside', 'additionallayerstores = ["/s/layers:ref"]\n', 'problem', /outside of all tables/],
  [
    'another driver',
    '[storage]\ndriver = "vfs"\n[storage.options]\nadditionalimagestores = ["/s/images"]\n',
    'problem',
    /driver is "vfs"/,
  ],
  ['another driver without us', '[storage]\ndriver = "vfs"\n', 'warning', /names no store/],
  [
    'a store of others that is gone',
    options('additionalimagestores = ["/gone"]'),
    'problem',
    /\/gone is not there: every command/,
  ],
  ['one string', options('additionalimagestores = "/s/images"'), 'problem', /no list of strings. Repair it/],
  ['no TOML', '[storage\n', 'problem', /no TOML.*Repair it/],
  ['closed to us', 'closed', 'problem', /cannot read/],
])('storage.conf: %s', async (_, text, state, message) => {
  const of = files({ texts: text === undefined ? {} : { [CONF]: text }, seen: THERE })
  says(await storage.run({ root: ROOT, storageConfs: ['/home/x/storage.conf', CONF], files: of }), state, message)
})

test.each<[string, Contents['seen'], RegExp]>([
  ['not there', {}, /\/s\/images is not there: every command of the engine fails/],
  ['dead', { '/s/images': { ...DIRECTORY, kind: 'dead' } }, /is a mount that is dead/],
  ['hung', { '/s/images': { ...DIRECTORY, kind: 'hung' } }, /is a mount that is hung/],
  ['a file', { '/s/images': PROGRAM }, /is no directory/],
  ['a directory that is no store', { '/s/images': DIRECTORY }, /layers\.lock is not there/],
])('a store of ours that is %s is a problem', async (_, seen, message) => {
  const texts = { [CONF]: options('additionalimagestores = ["/s/images"]') }
  says(
    await storage.run({ root: ROOT, storageConfs: [CONF], files: files({ texts, seen: seen ?? {} }) }),
    'problem',
    message,
  )
})

test('the first storage.conf that is there counts', async () => {
  const of = files({
    texts: { '/a': options(''), [CONF]: options('additionalimagestores = ["/s/images"]') },
    seen: THERE,
  })
  says(await storage.run({ root: ROOT, storageConfs: ['/a', CONF], files: of }), 'warning', /^\/a names no store/)
})

const KEY = 'additional-layer-store-auth-helper'
const MAIN = '/etc/containers/registries.conf'
const DROP_IN = '/etc/containers/registries.conf.d/50.conf'
const PLACES = { etc: '/etc', home: '/root', run: '/run', uid: 0, env: {} }

test.each<[string, string, Contents, string | undefined, string, RegExp]>([
  ['an engine without it', '4.3.1', {}, '/h', 'ok', /no engine here runs one/],
  ['not installed', '5.4.2', {}, undefined, 'ok', /not installed/],
  ['not named', '5.4.2', {}, '/h', 'warning', /names none.*lazylayer setup/],
  ['named', '5.4.2', { texts: { [MAIN]: `${KEY} = "/h"` }, seen: { '/h': PROGRAM } }, '/h', 'ok', /^\/h$/],
  [
    'named in a drop-in',
    '5.4.2',
    { texts: { [MAIN]: `${KEY} = "/x"`, [DROP_IN]: `${KEY} = "/h"` }, seen: { '/h': PROGRAM } },
    '/h',
    'ok',
    /^\/h$/,
  ],
  [
    'named and gone',
    '5.4.2',
    { texts: { [DROP_IN]: `${KEY} = "/h"` } },
    '/h',
    'problem',
    /\/h, which is not there.*setup/,
  ],
  [
    'named and no program',
    '5.4.2',
    { texts: { [DROP_IN]: `${KEY} = "/h"` }, seen: { '/h': DIRECTORY } },
    '/h',
    'problem',
    /cannot be run/,
  ],
  ['a file that is no TOML', '5.4.2', { texts: { [DROP_IN]: '[' } }, '/h', 'problem', /no TOML/],
])('auth helper: %s', async (_, version, contents, helper, state, text) => {
  const needs = { places: PLACES, engines: [found('podman', version)], files: files(contents), helper }
  says(await authHelper.run(needs), state, text)
})

test('a registries.conf that cannot be read is a problem that names the file', async () => {
  await using settings = await Settings.make()
  const needs = { places: settings.places, engines: [], files: files({}), helper: undefined }
  says(await registries.run(needs), 'ok', /^registries configured: 0, mirrors: 0$/)
  await settings.write(
    'etc/containers/registries.conf',
    '[[registry]]\nlocation = "a.example/b"\n[[registry.mirror]]\nlocation = "m.example"\n',
  )
  says(await registries.run(needs), 'ok', /^registries configured: 1, mirrors: 1$/)
  const path = await settings.write('etc/containers/registries.conf.d/x.conf', '[[registry]]\n')
  says(await registries.run(needs), 'problem', new RegExp(`${path}.*Repair`))
})
