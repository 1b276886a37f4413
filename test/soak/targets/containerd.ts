// What containerd's clients write, and the journal of what containerd was told.
import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Failure } from '../../../src/errors.ts'
import { parseFilters, wantedLabel } from '../../../src/snapshotter/filters.ts'
import { Journal } from '../../../src/snapshotter/journal.ts'
import { hostRoot } from '../../../src/snapshotter/mapping.ts'
import type { Snapshot } from '../../../src/snapshotter/snapshot.ts'
import { encodeRecord } from '../../../src/store/record.ts'
import type { Target } from '../target.ts'
import { attemptLater } from '../well-formed.ts'
import { textTarget } from './text.ts'

const LABEL = 'containerd.io/snapshot.ref'
const CHAIN = `sha256:${'ab'.repeat(32)}`
const snapshot: Snapshot = {
  key: 'default/1/layer',
  kind: 'committed',
  parent: '',
  labels: { [LABEL]: CHAIN },
  createdAt: 1,
  updatedAt: 2,
  id: 3,
}

const filters = textTarget(
  'filters',
  [
    `labels."${LABEL}"==${CHAIN},parent=="a \\"b\\""`,
    'kind!=active\nname~=^x,labels.a',
    `labels."${LABEL}"=="${CHAIN}"`,
  ],
  (text) => {
    const all = text.split('\n')
    assert.equal(typeof parseFilters(all)(snapshot), 'boolean')
    for (const value of wantedLabel(all, LABEL) ?? []) assert(text.includes(value) || text.includes('\\'))
  },
)

const mapping = textTarget('id-mapping', ['0:100000:65536', '1:1:1,0:4294967295:1'], (text) => {
  const id = hostRoot(text)
  assert(Number.isSafeInteger(id) && id >= 0)
})

const records = [
  { op: 'set', ...snapshot },
  { op: 'set', ...snapshot, key: 'default/2/other', parent: 'default/1/layer' },
  { op: 'remove', key: 'default/2/other' },
]
const lines = records.map((each) => new Uint8Array(encodeRecord(each)))

/** Only what was written comes back, whatever became of the lines around it. */
const journal: Target = {
  name: 'journal',
  seeds: [...lines, new Uint8Array(Buffer.concat(lines))],
  run: (bytes) =>
    attemptLater(async () => {
      const folder = mkdtempSync(join(tmpdir(), 'lazylayer-journal-'))
      try {
        writeFileSync(join(folder, 'journal'), bytes)
        const found = await Journal.read(folder)
        for (const each of found.records) assert(records.some((one) => JSON.stringify(one) === JSON.stringify(each)))
        if (found.records.length === 0) throw Failure.corrupt('nothing of it is left')
      } finally {
        rmSync(folder, { recursive: true })
      }
    }),
}

export const containerd: readonly Target[] = [filters, mapping, journal]
