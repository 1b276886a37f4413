// The bounds on what an image may have stand in one list, in docs/security.md: each is the code's, and none of the code's is missing.
import { readdir, readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'

const SOURCE = new URL('../src/', import.meta.url)
const UNITS: Record<string, number> = { '': 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, s: 1000 }
/** Rooms that read what an image's maker wrote. */
const ROOMS = ['image', 'tree', 'format']
/** What is named as a bound there and bounds no cost: what fields can hold, what is shown, what we choose. */
const NO_BOUND = new Set([
  'format/nydus/decode.ts LZ4_RATIO_MAX',
  'format/nydus/wanted-tables.ts BLOBS_AT_ONCE',
  'format/parser.ts CRAMPED_MAX_BYTES',
  'format/parser.ts LENT_MAX_BYTES',
  'format/parser.ts RAW_LENT_MAX_BYTES',
  'format/parser.ts RAW_LENT_TAR_MAX_BYTES',
  'format/parser.ts SHORT_MAX_BYTES',
  'format/parser.ts USUAL_MAX_BYTES',
  'format/tar/entry.ts ID_MAX',
  'format/tar/pax.ts LENGTH_DIGITS_MAX',
  'format/toc/text.ts WRITTEN_MAX_BYTES',
  'format/toc/toc.ts MAJOR_MAX',
  'format/toc/toc.ts MINOR_MAX',
  'format/zstd-frame.ts BLOCK_MAX_BYTES',
  'tree/compare-contents.ts NAMES_MAX',
  'tree/erofs-format.ts DEVICE_BLOCKS_MAX',
  'tree/metadata.ts ID_MAX',
  'tree/metadata.ts MAJOR_MAX',
  'tree/metadata.ts MINOR_MAX',
  'tree/pieces.ts HOLDERS_MAX',
  'tree/usually-read.ts FILE_MAX_BYTES',
])

/** Constants of a file that are numbers, by name: `512 << 20`, `2 ** 30`, `4_000_000`, `0xffff`. */
function numbersIn(text: string): Map<string, number> {
  const found = text.matchAll(
    /^(?:export )?const ([A-Z0-9_]+) = ([\dxa-f_]+)(?: (<<|\*|\*\*) ([\d_]+)(?: \*\* (\d+))?)?$/gm,
  )
  return new Map(
    [...found].map(([, name = '', one = '', operator, other = '', power]) => {
      const [a, b] = [Number(one.replaceAll('_', '')), Number(other.replaceAll('_', '')) ** Number(power ?? 1)]
      return [name, operator === '<<' ? a * 2 ** b : operator === '**' ? a ** b : operator === '*' ? a * b : a]
    }),
  )
}

const page = await readFile(new URL('../docs/security.md', import.meta.url), 'utf8')
const ROW = /^\| [^|]+ \| (\d+)(?: (\w+))? \| `([\w/.-]+)` `([A-Z0-9_]+)` \|$/gm
const listed = [...page.matchAll(ROW)].map(([, amount, unit = '', path = '', name = '']) => {
  const isMebibytes = name.endsWith('_MB') // as V8 counts heaps
  return { path, name, value: Number(amount) * (isMebibytes ? 1 : (UNITS[unit] ?? Number.NaN)) }
})

test('each bound that is listed is the code’s', async () => {
  expect(listed.length).toBeGreaterThan(60)
  const wrong: string[] = []
  for (const { path, name, value } of listed) {
    const found = numbersIn(await readFile(new URL(path, SOURCE), 'utf8')).get(name)
    if (found !== value) wrong.push(`${path} ${name}: ${found} in the code, ${value} on the page`)
  }
  expect(wrong).toEqual([])
})

test('no bound on what an image’s maker wrote is missing', async () => {
  const known = new Set([...listed.map(({ path, name }) => `${path} ${name}`), ...NO_BOUND])
  const found: string[] = []
  for (const room of ROOMS) {
    for (const path of await readdir(new URL(room, SOURCE), { recursive: true })) {
      if (!path.endsWith('.ts')) continue
      const names = numbersIn(await readFile(new URL(`${room}/${path}`, SOURCE), 'utf8')).keys()
      found.push(
        ...[...names].filter((name) => /_(MAX|AT_ONCE)(_|$)/.test(name)).map((name) => `${room}/${path} ${name}`),
      )
    }
  }
  expect(found.filter((each) => !known.has(each))).toEqual([])
  expect([...NO_BOUND].filter((each) => !found.includes(each))).toEqual([])
})
