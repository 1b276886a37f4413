import fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type LazyLayer, TARGET } from '../../src/snapshotter/snapshot.ts'
import { Snapshots } from '../../src/snapshotter/snapshots.ts'

let folder: string
const said: string[] = []
beforeEach(async () => {
  said.length = 0
  folder = join(await fs.mkdtemp(join(tmpdir(), 'snapshots-')), 'records')
})
afterEach(() => fs.rm(join(folder, '..'), { recursive: true }))

const open = () => Snapshots.open(folder, (message) => said.push(message))
const digest = (digit: string) => `sha256:${digit.repeat(64)}` as const
const layer: LazyLayer = {
  reference: 'registry.example.com/app:1',
  manifest: digest('1'),
  place: 0,
  diffId: digest('2'),
  blob: digest('3'),
  index: digest('4'),
  tree: digest('5'),
  together: false,
}
const keys = (of: Snapshots) => [...of.all()].map(({ key }) => key).sort()

async function filled(): Promise<Snapshots> {
  const snapshots = await open()
  const labels = { [TARGET]: 'sha256:ab' }
  await snapshots.add({ key: 'base', kind: 'committed', parent: '', labels, id: snapshots.reserve(), layer })
  await snapshots.add({ key: 'container', kind: 'active', parent: 'base', labels: {}, id: snapshots.reserve() })
  return snapshots
}

describe('snapshots', () => {
  test('are the same after a restart, however often, and their numbers go on', async () => {
    const before = await filled()
    await before.relabel('base', (labels) => ({ ...labels, more: 'x' }))
    const all = [...before.all()]
    await before.close()
    for (let i = 0; i < 3; i++) {
      const after = await open()
      expect([...after.all()]).toEqual(all)
      expect(after.reserve()).toBe(3)
      expect(after.madeFor('sha256:ab').map(({ key }) => key)).toEqual(['base'])
      await after.close()
    }
    expect(said).toEqual([])
  })

  test('that are cut off while they are written were promised to nobody', async () => {
    const snapshots = await filled()
    await snapshots.close()
    const path = join(folder, 'journal')
    const whole = await fs.readFile(path)
    for (let cut = 1; cut < 200; cut += 13) {
      await fs.writeFile(path, whole.subarray(0, whole.length - cut))
      const after = await open()
      expect(keys(after)).toEqual(['base'])
      await after.close()
    }
    expect(said).toEqual([])
  })

  test('around a damaged record are there; it, and what stood on it, is set aside, which is said', async () => {
    const snapshots = await filled()
    await snapshots.add({ key: 'other', kind: 'active', parent: '', labels: {}, id: snapshots.reserve() })
    await snapshots.close()
    const path = join(folder, 'journal')
    const broken = (await fs.readFile(path, 'utf8')).replace('"key":"base"', '"key":"bass"')
    await fs.writeFile(path, broken)
    const after = await open()
    expect(keys(after)).toEqual(['other'])
    expect(after.isDamaged).toBe(true)
    expect(said).toEqual([expect.stringMatching(/1 records of snapshots are damaged, and 1 snapshots stood on them/)])
    await after.close()
    const again = await open()
    expect([keys(again), again.isDamaged]).toEqual([['other'], false])
    await again.close()
    const aside = (await fs.readFile(join(folder, 'journal.damaged'), 'utf8')).split('\n')
    expect(aside[0]).toBe(broken.split('\n').find((each) => each.includes('bass')))
    expect(aside[1]).toContain('"key":"container"')
  })

  test('stand on what is committed alone, under names of their own', async () => {
    const snapshots = await filled()
    const add = (key: string, parent: string) =>
      snapshots.add({ key, kind: 'active', parent, labels: {}, id: snapshots.reserve() })
    await expect(add('x', 'gone')).rejects.toMatchObject({ code: 'missing' })
    await expect(add('x', 'container')).rejects.toMatchObject({ code: 'unsupported' })
    await expect(add('base', '')).rejects.toMatchObject({ code: 'exists' })
    await expect(snapshots.commit('container', 'base', {}, '')).rejects.toMatchObject({ code: 'exists' })
    await expect(snapshots.commit('base', 'x', {}, '')).rejects.toMatchObject({ code: 'unsupported' })
    await expect(snapshots.remove('base')).rejects.toMatchObject({ code: 'unsupported' })
    await expect(snapshots.remove('gone')).rejects.toMatchObject({ code: 'missing' })
    await snapshots.commit('container', 'top', { more: 'y' }, '')
    expect(snapshots.get('top')).toMatchObject({ kind: 'committed', parent: 'base', labels: { more: 'y' }, id: 2 })
    await snapshots.remove('top')
    await snapshots.remove('base')
    expect(snapshots.size).toBe(0)
    await snapshots.close()
  })

  test('get a parent when they are committed, if they had none', async () => {
    const snapshots = await filled()
    await snapshots.add({ key: 'loose', kind: 'active', parent: '', labels: {}, id: snapshots.reserve() })
    await expect(snapshots.commit('loose', 'y', {}, 'gone')).rejects.toMatchObject({ code: 'missing' })
    expect(await snapshots.commit('loose', 'y', {}, 'base')).toMatchObject({ parent: 'base' })
    await expect(snapshots.remove('base')).rejects.toMatchObject({ code: 'unsupported' })
    await snapshots.close()
  })

  test('asked for at once come one after the other', async () => {
    const snapshots = await filled()
    const add = () => snapshots.add({ key: 'one', kind: 'view', parent: '', labels: {}, id: snapshots.reserve() })
    const outcomes = await Promise.allSettled([add(), add(), snapshots.remove('one'), add()])
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled'])
    await snapshots.close()
  })

  test('whose labels come and go leave a short file', async () => {
    const snapshots = await filled()
    for (let i = 0; i < 2_500; i++) await snapshots.relabel('base', (labels) => ({ ...labels, turn: String(i) }))
    await snapshots.close()
    expect((await fs.readFile(join(folder, 'journal'), 'utf8')).split('\n').length).toBeLessThan(1_100)
    const after = await open()
    expect(after.get('base')?.labels.turn).toBe('2499')
    await after.close()
  })

  test('are kept though the journal could not be opened again when it was tidied', async () => {
    const snapshots = await filled()
    const { open: really } = fs
    const opening = vi.spyOn(fs, 'open').mockImplementation((path, flags, mode) => {
      return flags === 'a' ? Promise.reject(new Error('EMFILE')) : really(path, flags, mode)
    })
    const turns = async () => {
      for (let i = 0; i < 1_000; i++) await snapshots.relabel('base', (labels) => ({ ...labels, turn: String(i) }))
    }
    await expect(turns()).rejects.toMatchObject({ code: 'system' })
    opening.mockRestore()
    await snapshots.relabel('base', (labels) => ({ ...labels, turn: 'last' }))
    await snapshots.close()
    const after = await open()
    expect(after.get('base')?.labels.turn).toBe('last')
    await after.close()
  })

  test('leave no file of a process that died while it wrote', async () => {
    await (await filled()).close()
    await fs.writeFile(join(folder, 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'), 'half')
    const after = await open()
    expect(await fs.readdir(folder)).toEqual(['journal'])
    expect(after.size).toBe(2)
    await after.close()
  })

  test('with more labels than a client sends are refused', async () => {
    const snapshots = await filled()
    const labels = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`label${i}`, 'x'.repeat(4_000)]))
    await expect(snapshots.relabel('base', () => labels)).rejects.toMatchObject({ code: 'limit' })
    await snapshots.close()
  })
})
