import { expect, test } from 'vitest'
import { filled } from '../../bench/report.ts'

const RECORD = {
  case: 'race',
  rounds: 3,
  subjects: [
    { name: 'us', median: { s: 0.5, requests: 12_345 } },
    { name: 'them', median: { s: 2 } },
  ],
}
const recordOf = (name: string) => (name === 'race' ? RECORD : undefined)

test('a table is made anew from its record, with all that stands around it as it was', () => {
  const page = 'before\n<!-- record race -->\nold\n\n| table |\n<!-- end -->\nafter\n'
  const made = filled(page, recordOf)
  expect(made).toBe(`before
<!-- record race -->

| \`race\`, medians of 3 | s | requests |
|---|--:|--:|
| us | 0.500 | 12,345 |
| them | 2.00 |  |

<!-- end -->
after
`)
  expect(filled(made, recordOf)).toBe(made)
})

test('a plot stands below its table', () => {
  const made = filled('<!-- record race: s -->\n<!-- end -->', recordOf, ['race'])
  expect(made).toContain('| them | 2.00 |\n\n![race](race.svg)\n\n<!-- end -->')
  expect(filled(made, recordOf, ['race'])).toBe(made)
})

test('a table may have some of the metrics, and one without a record stays as it is', () => {
  expect(filled('<!-- record race: requests -->\n<!-- end -->', recordOf)).toContain('| us | 12,345 |')
  const other = '<!-- record other -->\nkept\n<!-- end -->'
  expect(filled(other, recordOf)).toBe(other)
})
