import { expect, test } from 'vitest'
import { growthPlot } from '../../bench/growth-plot.ts'
import { svg } from '../../bench/plot.ts'

const RECORD = {
  case: 'growth-things',
  rounds: 3,
  subjects: [
    { name: 'us, 1 things', median: { 's & so': 0.5, requests: 4 } },
    { name: 'us, 1,000 things', median: { 's & so': 12_500, requests: 0 } },
    { name: 'them, 1 things', median: { requests: 8 } },
  ],
}

test('a panel a metric, a line a subject, a point a size', () => {
  expect(growthPlot(RECORD)).toEqual({
    title: 'growth-things, medians of 3',
    unit: 'things',
    panels: [
      {
        metric: 's & so',
        lines: [
          {
            name: 'us',
            points: [
              { x: 1, y: 0.5 },
              { x: 1000, y: 12_500 },
            ],
          },
          { name: 'them', points: [] },
        ],
      },
      {
        metric: 'requests',
        lines: [
          {
            name: 'us',
            points: [
              { x: 1, y: 4 },
              { x: 1000, y: 0 },
            ],
          },
          { name: 'them', points: [{ x: 1, y: 8 }] },
        ],
      },
    ],
  })
})

test('a picture is well-formed, names its metrics, and writes each value at its point', () => {
  const picture = svg(growthPlot(RECORD))
  expect(picture).toContain('>s &amp; so<')
  for (const value of ['0.5', '12.5k', '8']) expect(picture).toContain(`>${value}</text>`)
  // a value of 0 has no place on an axis of ratios
  expect(picture.match(/<circle /g)).toHaveLength(4)
  expect(picture).not.toMatch(/NaN|Infinity|undefined/)
  expect(picture.match(/<(svg|g|text)\b/g)).toHaveLength((picture.match(/<\/(svg|g|text)>/g) ?? []).length)
})
