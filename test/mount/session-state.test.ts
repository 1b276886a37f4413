import { ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { SessionState } from '../../src/mount/session-state.ts'
import { folder } from '../store/folder.ts'

async function made() {
  const path = join(await folder(), 'state')
  const holes: number[][] = []
  const disk = {
    memoryFile: () => openSync(path, 'wx+'),
    punchHoles: async (_: number, ranges: Float64Array) => void holes.push([...ranges]),
  }
  const state = SessionState.create(disk)
  /** What a process that goes on finds. */
  const found = () => Object.fromEntries(SessionState.read(openSync(path, 'r+'), disk).of(''))
  return { path, holes, disk, state, found }
}

test('whoever goes on finds each record as it was set last, and none that was deleted', async () => {
  const { state, found } = await made()
  expect(found()).toEqual({})
  state.set('tree 1', { path: ['a', 'new\nline'] })
  state.set('tree 2', 'b')
  state.set('tree 1', 'c')
  state.set('mounted', true)
  state.delete('tree 2')
  state.delete('nothing')
  expect(found()).toEqual({ 'tree 1': 'c', mounted: true })
  expect([...state.of('tree ')]).toEqual([['1', 'c']])
})

test('a process may die anywhere in a line: the records before it count, and whoever goes on writes behind them', async () => {
  const { path, disk, state, found } = await made()
  state.set('a', 1)
  const whole = readFileSync(path).length
  state.set('a', 2)
  const bytes = readFileSync(path)
  for (let length = bytes.length - 1; length >= whole; length--) {
    ftruncateSync(state.fd, 0)
    writeSync(state.fd, bytes, 0, length, 0)
    expect(found()).toEqual({ a: 1 })
    SessionState.read(openSync(path, 'r+'), disk).set('b', 3)
    expect(found()).toEqual({ a: 1, b: 3 })
  }
})

test('what is no more is taken away, and the rest says the same, also before it was', async () => {
  const { path, holes, disk, state, found } = await made()
  const long = 'x'.repeat(10_000)
  state.set('kept', 'first')
  for (let i = 0; i < 300; i++) state.set('changing', `${i}${long}`)
  expect(holes.length).toBeGreaterThan(1)
  const wanted = { kept: 'first', changing: `299${long}` }
  expect(found()).toEqual(wanted)
  for (const [start = 0, end = 0] of holes) writeSync(state.fd, new Uint8Array(end - start), 0, end - start, start)
  expect(found()).toEqual(wanted)
  // and whoever goes on writes on
  const next = SessionState.read(openSync(path, 'r+'), disk)
  next.set('more', 1)
  expect(found()).toEqual({ ...wanted, more: 1 })
})

test('what another version wrote is refused, with both versions', async () => {
  const { state, found } = await made()
  writeSync(state.fd, 'lazylayer 9\n', 0)
  expect(found).toThrow(
    expect.objectContaining({ code: 'unsupported', why: expect.stringMatching(/lazylayer 9.*lazylayer 1/) }),
  )
})
