import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { gaugesOf, totalsOf } from '../../src/agent/gauges.ts'
import { MEASURED } from './measured.ts'

test('each number has a name of its own, and is told of what was measured', () => {
  const gauges = gaugesOf(MEASURED)
  expect(new Set(gauges.map(({ name }) => name)).size).toBe(gauges.length)
  expect(new Set(gauges.map(({ value }) => value)).size).toBe(gauges.length) // none is told as another
  expect(gauges).toContainEqual({ name: 'hedges', kind: 'counter', unit: 'requests', value: 14 })
  expect(gauges).toContainEqual({ name: 'cache_in_memory', kind: 'gauge', unit: 'bytes', value: 29 })
  for (const { name } of gauges) expect(name).toMatch(/^[a-z]+(_[a-z]+)*$/)
})

test('what scripts read is the same list', () => {
  const gauges = gaugesOf(MEASURED)
  const { bytes, requests, counters } = totalsOf(gauges)
  expect([bytes, requests]).toEqual([{ served: 1, fetched: 9, verified: 18 }, 8])
  expect(Object.entries(counters)).toEqual(gauges.map(({ name, value }) => [name, value]))
})

test('a cache that was not measured is not told as an empty one', () => {
  const { counters } = totalsOf(gaugesOf({ ...MEASURED, cache: undefined }))
  expect(Object.keys(counters)).not.toContain('cache_bytes')
  expect(counters.cache_freed).toBe(28)
})

test('the operations page says of each number its kind and its unit', async () => {
  const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const rows = page.split('\n').filter((line) => line.startsWith('| `'))
  for (const { name, kind, unit } of gaugesOf(MEASURED)) {
    const row = rows.find(
      (each) => each.split('|')[1]?.includes(`\`${name}\``) && each.includes(`| ${kind}, ${unit} |`),
    )
    expect(row, `${name}: ${kind}, ${unit}`).toBeDefined()
  }
})
