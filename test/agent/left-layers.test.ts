import { expect, test } from 'vitest'
import { LEFT, LeftLayers } from '../../src/agent/left-layers.ts'
import { Failure } from '../../src/errors.ts'

function leaving() {
  const said: string[] = []
  const left = new LeftLayers((message) => void said.push(message))
  return { left, said, counts: () => Object.fromEntries(LEFT.map((why) => [why, left.count(why)])) }
}

test('layers are counted by what kept them from being shown', () => {
  const { left, counts } = leaving()
  left.leave('a', 1, Failure.unsupported('it is not lazy'))
  left.leave('b', 1, Failure.denied('the registry refuses us'))
  left.leave('c', 1, Failure.unavailable('it does not answer'))
  left.leave('d', 1, Failure.timeout('it does not answer'))
  left.leave('e', 1, Failure.corrupt('other bytes'))
  left.leave('f', 3, 'it is not proven')
  left.leave('g', 1, Failure.limit('too many'))
  expect(counts()).toEqual({ unsupported: 1, denied: 1, unavailable: 2, corrupt: 1, other: 4 })
})

test('one that engines look for again is said and counted once', () => {
  const { left, said, counts } = leaving()
  for (let i = 0; i < 3; i++) left.leave('layer 1 is left to the engine', 1, Failure.unsupported('it is not lazy'))
  expect(said).toEqual(['layer 1 is left to the engine'])
  expect(counts()).toMatchObject({ unsupported: 1 })
})

test('what was said is forgotten before it fills the memory', () => {
  const { left, said } = leaving()
  for (let i = 0; i <= 10_000; i++) left.leave(`layer ${i}`, 1, undefined)
  left.leave('layer 0', 1, undefined)
  expect(said.filter((each) => each === 'layer 0')).toHaveLength(2)
})
