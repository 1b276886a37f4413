import { expect, test } from 'vitest'
import { IDLE_MAX, type Known, References } from '../../src/stores/references.ts'

function fixture() {
  const it = { now: 0, gone: [] as string[], closed: [] as string[] }
  const references = new References(
    ({ name }) => void it.gone.push(name),
    () => it.now,
  )
  let last = 0n
  const add = (name: string, user = 0): Known => {
    const asked = { listing: async () => undefined, close: () => void it.closed.push(name) }
    const known = { node: ++last, name, text: name, asked, user }
    references.add(known)
    return known
  }
  return Object.assign(it, { references, add })
}

test('one that is used stays, whoever comes; of the others the one that was used the longest ago leaves first', () => {
  const it = fixture()
  const [used, first, second] = [it.add('used'), it.add('first'), it.add('second')]
  const end = it.references.use(used)
  it.references.use(first)()
  for (let i = 0; i < IDLE_MAX - 1; i++) it.add(`other ${i}`)
  expect(it.gone).toEqual(['second'])
  expect(it.closed).toEqual(['second'])
  expect(it.references.get(second.node)).toBeUndefined()
  expect(it.references.get(used.node)).toBe(used)
  end()
  end()
  expect(it.gone).toEqual(['second', 'first'])
  expect(it.references.size).toBe(IDLE_MAX)
})

test('whoever has most makes room, whoever comes', () => {
  const it = fixture()
  for (let user = 1; user <= 3; user++) for (let i = 0; i < 10; i++) it.add(`${user} ${i}`, user)
  for (let i = 0; i < 3 * IDLE_MAX; i++) it.add(`flood ${i}`, 9)
  it.add('of a new user', 4)
  expect(it.gone.every((name) => name.startsWith('flood'))).toBe(true)
  expect(it.references.size).toBe(IDLE_MAX)
})

test('what is of no use for long leaves, and what was opened for it is closed sooner, also of those in use', () => {
  const it = fixture()
  const used = it.add('used')
  it.references.use(used)
  it.add('old')
  it.now = 50
  it.add('new')
  it.references.expire(100, 60)
  expect([it.gone, it.closed]).toEqual([[], []])
  it.now = 70
  it.references.expire(100, 60)
  expect([it.gone, it.closed]).toEqual([[], ['old', 'used']])
  it.now = 100
  it.references.expire(100, 60)
  expect(it.gone).toEqual(['old'])
  expect(it.references.size).toBe(2)
})
