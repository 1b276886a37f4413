import { expect, test } from 'vitest'
import { LIMITS } from '../../src/registry/limits.ts'
import { Pulse } from '../../src/registry/pulse.ts'

test('a request is overtaken by those that were made later and ended before it', () => {
  const pulse = new Pulse(LIMITS)
  const [earlier, stream, later, latest] = [pulse.stream(), pulse.stream(), pulse.stream(), pulse.stream()]
  earlier.overtake()
  earlier.end()
  expect(stream.overtaken).toBe(0)
  latest.overtake()
  later.overtake()
  expect([stream.overtaken, later.overtaken]).toEqual([2, 1])
  stream.moved()
  expect(stream.overtaken).toBe(0)
})

test('what is not under way any more is overtaken by nobody', () => {
  const pulse = new Pulse(LIMITS)
  const [given, other] = [pulse.stream(), pulse.stream()]
  given.end()
  other.overtake()
  expect(given.overtaken).toBe(0)
})
