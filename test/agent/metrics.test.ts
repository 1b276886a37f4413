import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { type Distribution, distributionsOf, type Gauge, gaugesOf, type Measured } from '../../src/agent/gauges.ts'
import { DISTRIBUTIONS, INFO, METRICS, metricsText } from '../../src/agent/metrics.ts'
import { MEASURED } from './measured.ts'

const INFO_LABELS = { version: '1.2.3', mount: 'erofs' }

const textOf = async (measured: Measured) =>
  await metricsText(gaugesOf(measured), distributionsOf(measured), INFO_LABELS)

/** `name{labels}` -> value. */
function samples(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ')
      return [line.slice(0, at), Number(line.slice(at + 1))]
    }),
  )
}

function nameAndLabels({ name, labels }: { name: string; labels?: Readonly<Record<string, string>> }): string {
  const [label] = Object.entries(labels ?? {})
  return label === undefined ? name : `${name}{${label[0]}="${label[1]}"}`
}

test('each gauge of status is one sample, of the same value', async () => {
  const found = samples(await textOf(MEASURED))
  const gauges: Gauge[] = gaugesOf(MEASURED)
  expect(gauges.map(({ name }) => [name, found.get(nameAndLabels(METRICS[name]))])).toEqual(
    gauges.map(({ name, value }) => [name, value]),
  )
  const names = new Set([...found.keys()].map((each) => each.replace(/\{.*/, '').replace(/_(bucket|sum|count)$/, '')))
  const told = [...Object.values(METRICS), ...Object.values(DISTRIBUTIONS), INFO].map(({ name }) => name)
  expect([...names].sort()).toEqual([...new Set(told)].sort())
})

test('counters end in _total, and what is measured in bytes or seconds says so', async () => {
  const text = await textOf(MEASURED)
  for (const { name, kind, unit } of gaugesOf(MEASURED)) {
    const { name: metric } = METRICS[name]
    expect(metric.endsWith('_total'), metric).toBe(kind === 'counter')
    if (unit === 'bytes' || unit === 'seconds') expect(metric, name).toContain(`_${unit}`)
    expect(text).toContain(`# TYPE ${metric} ${kind}\n`)
  }
  expect(text).not.toMatch(/_(ms|milliseconds|kb|kilobytes)\b/i)
})

test('a histogram counts what took no longer than each bound, and all', async () => {
  const waits: Distribution = { name: 'read_waits', upTo: [0.5, 2], counts: [3, 2, 1], seconds: 7.5 }
  const found = samples(await metricsText([], [waits], INFO_LABELS))
  const { name } = DISTRIBUTIONS.read_waits
  expect([...found].filter(([each]) => each.startsWith(name))).toEqual([
    [`${name}_bucket{le="0.5"}`, 3],
    [`${name}_bucket{le="2"}`, 5],
    [`${name}_bucket{le="+Inf"}`, 6],
    [`${name}_sum`, 7.5],
    [`${name}_count`, 6],
  ])
})

test('what was not measured yet is not told as nothing', async () => {
  const found = samples(await textOf({ ...MEASURED, cache: undefined, cacheLimit: undefined }))
  expect([...found.keys()].filter((each) => each.startsWith('lazylayer_cache_')).sort()).toEqual([
    'lazylayer_cache_freed_bytes_total',
    'lazylayer_cache_memory_bytes',
  ])
})

test('docs/metrics.md has every metric, with its type and labels, and no other', async () => {
  const page = await readFile(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| `(\w+)` \| (\w+) \| ([^|]*) \|/gm)].map(([, name, type, labels]) => [
    name,
    type,
    [...(labels as string).matchAll(/`(\w+)`/g)].map(([, label]) => label).join(),
  ])
  const labelsOf = (name: string) =>
    Object.values(METRICS).flatMap((each) => (each.name === name ? Object.keys(each.labels ?? {}) : []))
  const told = new Map<string, [string, string, string]>()
  for (const { name, kind } of gaugesOf(MEASURED)) {
    const { name: metric } = METRICS[name]
    told.set(metric, [metric, kind, [...new Set(labelsOf(metric))].join()])
  }
  for (const { name, call, kind, code } of distributionsOf(MEASURED)) {
    const { name: metric } = DISTRIBUTIONS[name]
    const labels = Object.entries({ call, kind, code }).flatMap(([label, value]) =>
      value === undefined ? [] : [label],
    )
    told.set(metric, [metric, 'histogram', labels.join()])
  }
  told.set(INFO.name, [INFO.name, 'gauge', Object.keys(INFO_LABELS).join()])
  expect(rows.sort()).toEqual([...told.values()].sort())
})

test('the dashboard asks for nothing that is not there', async () => {
  const text = await readFile(new URL('../../packaging/grafana-dashboard.json', import.meta.url), 'utf8')
  const known = new Set([...samples(await textOf(MEASURED)).keys()].map((each) => each.replace(/\{.*/, '')))
  const asked = new Set([...text.matchAll(/\b(?:lazylayer|process)_\w+/g)].map(([name]) => name))
  expect([...asked].filter((each) => !known.has(each))).toEqual([])
  expect(asked.size).toBeGreaterThan(15)
  const dashboard = JSON.parse(text) as { panels: { title: string; targets?: unknown[] }[] } // our own file
  expect(new Set(dashboard.panels.map(({ title }) => title)).size).toBe(dashboard.panels.length)
})

test('each alert is of metrics that there are, and docs/metrics.md says what to do', async () => {
  const file = await readFile(new URL('../../packaging/prometheus-alerts.yaml', import.meta.url), 'utf8')
  const { groups } = parse(file) as { groups: { rules: { alert: string; expr: string }[] }[] } // our own file
  const rules = groups.flatMap((each) => each.rules)
  const known = new Set([...samples(await textOf(MEASURED)).keys()].map((each) => each.replace(/\{.*/, '')))
  const named = rules.flatMap(({ expr }) => expr.match(/\blazylayer_\w+/g) ?? [])
  expect(named.filter((each) => !known.has(each))).toEqual([])
  const page = await readFile(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| (Lazylayer\w+) \| `(.*?)` \| [^|]+ \| [^|]+ \|$/gm)]
  // a bar within a table is written with a backslash
  expect(rows.map(([, alert, expr]) => [alert, expr?.replaceAll('\\|', '|')])).toEqual(
    rules.map(({ alert, expr }) => [alert, expr]),
  )
})
