import { expect, test } from 'vitest'
import { type ContainerNeeds, containerFindings, NAME, rootsOf } from '../../../src/cli/doctor/containers.ts'
import { findingsText } from '../../../src/cli/doctor.ts'
import type { MountEntry } from '../../../src/mount/mount-table.ts'
import type { Stranded } from '../../../src/mount/stranded.ts'
import { DIRECTORY, files } from './machine.ts'

const ROOT = '/var/lib/s'
const GRAPH = '/var/lib/containers/storage'
const LAYER = 'ab'.repeat(32)
const ID = 'cd'.repeat(32)
const MERGED = `${GRAPH}/overlay/${LAYER}/merged`

const entry = (point: string, type: string, source: string): MountEntry => ({
  ...{ id: '1', parent: '0', device: '0:1', point, shared: true, kept: false, type, source, options: [] },
})
const fuse = (point: string) => entry(point, 'fuse.lazylayer', 'lazylayer')
const erofs = (point: string) => entry(point, 'erofs', '/proc/self/fd/9')
const alive = { dir: ROOT, isAlive: true }

function needs(found: Stranded[], of: Partial<ContainerNeeds> = {}, name = 'web'): ContainerNeeds {
  const list = JSON.stringify([{ id: ID, layer: LAYER, names: [name] }])
  return {
    root: ROOT,
    real: ROOT,
    files: files({ texts: { [`${GRAPH}/overlay-containers/containers.json`]: list } }),
    mounts: async () => [],
    stranded: async () => found,
    processName: async () => 'sleep',
    ...of,
  }
}

test('no line names a container where none has to be started anew', async () => {
  expect(await containerFindings(needs([]))).toEqual([
    { state: 'ok', found: 'none reads layers of a mount that is gone' },
  ])
})

test('each container has a line, by its name, ID and process, and with what to do', async () => {
  const found = await containerFindings(
    needs([
      { root: alive, points: ['/', MERGED], pid: 12 },
      { root: { dir: ROOT, isAlive: false }, points: ['/'], pid: 13 },
      { root: alive, points: ['/mnt/it'], pid: undefined },
      { root: alive, points: ['/run/x/io.containerd.runtime.v2.task/k8s.io/a1/rootfs'], pid: undefined },
    ]),
  )
  expect(found.map(({ state }) => state)).toEqual(['problem', 'problem', 'problem', 'problem'])
  const gone = expect.stringContaining(`reads layers of a mount of ${ROOT} that is gone`)
  expect(found[0]).toMatchObject({ found: gone, fix: 'Run podman stop cdcdcdcdcdcd, and podman start cdcdcdcdcdcd.' })
  expect(found[0]?.found).toMatch(/^container web, cdcdcdcdcdcd, of Podman \(process 12, sleep\) reads/)
  expect(found[1]).toMatchObject({ found: gone, fix: `Start lazylayer serve ${ROOT}. Stop it, and start it again.` })
  expect(found[2]?.found).toMatch(/^a container \(on \/mnt\/it\) reads/)
  expect(found[3]).toMatchObject({ fix: 'Run crictl stop a1: kubelet starts another.' })
})

test('names that steer a terminal, or pass for something else, do not', async () => {
  const name = 'a\u001b[2J\nok  mounts: all is well. Run reboot\u202e'
  const found = await containerFindings(
    needs([{ root: alive, points: ['/', MERGED], pid: 12 }], { processName: async () => 'x\n\u001b) is fine' }, name),
  )
  const text = findingsText(found.map((each) => ({ name: NAME, ...each })))
  expect(text.split('\n')).toHaveLength(3)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
  expect(text).not.toMatch(/[\u001b\u202e]/)
  expect(text).toContain('container "a\\u001b[2J\\nok  mounts: all is well. Run reboot')
  expect(text).toContain('Run podman stop cdcdcdcdcdcd, and podman start cdcdcdcdcdcd.\n')
})

test('layers are looked for where they are mounted and in the store, of mounts in mounts in the outer one', async () => {
  const roots = async (table: MountEntry[], dead: string[] = []) => {
    const seen = Object.fromEntries(
      table.map(({ point }) => [point, { ...DIRECTORY, kind: dead.includes(point) ? 'dead' : 'directory' } as const]),
    )
    return await rootsOf(needs([], { mounts: async () => table, files: files({ seen }) }))
  }
  expect(await roots([])).toEqual([{ dir: ROOT, isAlive: false }])
  expect(await roots([fuse(ROOT), erofs(`${ROOT}/layers/a`)])).toEqual([alive])
  expect(await roots([fuse(ROOT), erofs(`${ROOT}/layers/a`)], [ROOT])).toEqual([{ dir: ROOT, isAlive: false }])
  expect(await roots([fuse('/m')])).toEqual([
    { dir: ROOT, isAlive: false },
    { dir: '/m', isAlive: true },
  ])
  expect(await roots([erofs('/m')])).toEqual([
    { dir: ROOT, isAlive: false },
    { dir: '/m', isAlive: false },
  ])
})
