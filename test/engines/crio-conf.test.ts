import { expect, test } from 'vitest'
import { readCrioConf, storesNamed } from '../../src/engines/crio-conf.ts'
import { type Contents, DIRECTORY, files } from '../cli/doctor/machine.ts'

const read = (contents: Contents) => readCrioConf('/etc', files(contents))
const MAIN = '/etc/crio/crio.conf'

test('a machine without CRI-O has no settings of it', async () => {
  expect(await read({})).toBeUndefined()
})

test('the last file that sets a value counts, and options are put together', async () => {
  const texts = {
    [MAIN]:
      '[crio]\nroot = "/a"\nrunroot = "/r"\nstorage_driver = "overlay"\nstorage_option = ["overlay.x=1", "overlay.y=2"]\n',
    '/etc/crio/crio.conf.d/10-b.conf': '[crio]\nroot = "/b"\nstorage_option = ["overlay.z=3", "overlay.x=1"]\n',
    '/etc/crio/crio.conf.d/20-runtime': '[crio.runtime]\nlog_level = "debug"\n',
    '/etc/crio/crio.conf.d/30-empty': '[crio]\nroot = ""\nstorage_driver = ""\nstorage_option = []\n',
  }
  expect(await read({ texts })).toEqual({
    paths: [MAIN, '/etc/crio/crio.conf.d/10-b.conf', '/etc/crio/crio.conf.d/30-empty'],
    root: '/b',
    run: '/r',
    imageStore: undefined,
    driver: 'overlay',
    options: ['overlay.y=2', 'overlay.z=3', 'overlay.x=1'],
  })
})

test('drop-ins count without a main file, those in folders too', async () => {
  const dir = '/etc/crio/crio.conf.d'
  const listed = files({
    texts: { [`${dir}/sub/x`]: '[crio]\nimagestore = "/i"\n' },
    seen: { [`${dir}/sub`]: DIRECTORY },
  })
  const list = async (at: string) => (at === dir ? ['sub'] : at === `${dir}/sub` ? ['x'] : [])
  expect(await readCrioConf('/etc', { ...listed, list })).toMatchObject({ imageStore: '/i' })
  // folders without end
  const endless = { ...listed, look: async () => DIRECTORY, list: async () => ['a'] }
  expect(await readCrioConf('/etc', endless)).toBeUndefined()
  await expect(
    readCrioConf('/etc', {
      ...listed,
      look: async () => undefined,
      list: async () => Array.from({ length: 300 }, () => 'a'),
    }),
  ).rejects.toMatchObject({ code: 'limit' })
})

test.each([
  ['no TOML', '[crio'],
  ['no table', 'crio = 7'],
  ['no text', '[crio]\nroot = 7'],
  ['no list', '[crio]\nstorage_option = "overlay.x=1"'],
  ['a list of numbers', '[crio]\nstorage_option = [1]'],
])('%s is an error that names the file', async (_, text) => {
  await expect(read({ texts: { [MAIN]: text } })).rejects.toMatchObject({
    code: 'usage',
    message: expect.stringContaining(MAIN),
  })
})

test('stores are named by options of several spellings', () => {
  expect(
    storesNamed([
      'overlay.imagestore=/a,/b',
      'overlay2.additionalimagestore = /c',
      '.ADDITIONALLAYERSTORE=/d:ref',
      'additionallayerstore=/e:ref,/f',
      'overlay.mount_program=/x',
      'overlay.imagestore=',
      'imagestore',
      '=',
      'vfs.imagestore=/g',
    ]),
  ).toEqual({ layers: ['/d:ref', '/e:ref', '/f'], images: ['/a', '/b', '/c'] })
})
