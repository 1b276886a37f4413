// Kills and power cuts: after each call by which snapshots are written, what containerd was told is there; or what it is told next.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Snapshots } from '../../src/snapshotter/snapshots.ts'
import { Random } from '../soak/random.ts'
import { folder } from '../store/folder.ts'
import { recording } from '../store/write-log.ts'

const record = recording()

const seen = (snapshots: Snapshots) => [...snapshots.all()].map(({ key, kind, labels }) => ({ key, kind, labels }))

test('after any call a cut leaves the snapshots that were told of, or those of the change that was under way', async () => {
  const root = await folder()
  const log = await record(root)
  const dir = join(root, 'records')
  let live = await Snapshots.open(dir, () => {})
  const change = async (work: () => Promise<unknown>, how: 'synced' | 'written' = 'synced') => {
    log.note('begun')
    await work()
    log.note({ how, now: seen(live) })
  }
  const labels = { 'x.y/z': 'first' }
  const add = (key: string, parent = '') =>
    live.add({ key, kind: 'active', parent, labels, id: live.reserve() }).then(() => {})
  for (const key of ['a', 'b', 'c']) await change(() => add(key))
  await change(() => live.relabel('b', () => ({ 'x.y/z': 'second' })), 'written')
  await change(() => live.commit('a', 'base', {}, ''))
  await change(() => add('d', 'base'))
  await change(() => live.remove('c'))
  await change(() => live.relabel('d', () => ({})), 'written')
  await live.close()
  // it is written anew
  live = await Snapshots.open(dir, () => {})
  await change(() => live.remove('d'))
  await live.close()
  log.end()

  const moments = log.moments()
  for (const moment of moments) {
    const notes = log.notes(moment) as ('begun' | { how: string; now: unknown })[]
    const told = notes.filter((note) => note !== 'begun')
    const next = log.notes(Number.POSITIVE_INFINITY).filter((note) => note !== 'begun') as typeof told
    const isUnderWay = notes.at(-1) === 'begun'
    for (let cut = 0; cut < 4; cut++) {
      const to = join(root, 'left')
      log.restore(moment, to, cut === 0 ? undefined : new Random(moment * 1000 + cut))
      const after = await Snapshots.open(join(to, 'records'), () => {})
      // a kill loses no answer; a power cut may lose labels that were put on since something was synced
      const sure = told.findLastIndex(({ how }) => cut === 0 || how === 'synced')
      const may = [
        ...(sure < 0 ? [{ now: [] }] : []),
        ...next.slice(Math.max(0, sure), told.length + Number(isUnderWay)),
      ]
      expect(
        may.map(({ now }) => now),
        `moment ${moment} of ${moments.at(-1)}, cut ${cut}`,
      ).toContainEqual(seen(after))
      await after.close()
      rmSync(to, { recursive: true })
    }
  }
})
