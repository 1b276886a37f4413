import fc from 'fast-check'
import { parse } from 'smol-toml'
import { describe, expect, test } from 'vitest'
import { addStrings, removeStrings } from '../../src/engines/toml-edit.ts'
import { Failure } from '../../src/errors.ts'
import { runs } from '../fixtures/runs.ts'

const at = (...strings: string[]) => ({ table: ['storage', 'options'], key: 'stores', strings })
const add = (text: string) => addStrings(text, at('/new'))
const remove = (text: string, keepEmpty = true) => removeStrings(text, at('/new'), keepEmpty)

describe('adding changes nothing else', () => {
  const check = (title: string, before: string, after: string) =>
    test(title, () => {
      expect(add(before)).toBe(after)
      expect(add(after)).toBe(after)
    })

  check('an empty file', '', '[storage.options]\nstores = ["/new"]\n')
  check('no table', '[storage]\na = 1\n', '[storage]\na = 1\n\n[storage.options]\nstores = ["/new"]\n')
  check('no table, no line feed at the end', 'a = 1', 'a = 1\n\n[storage.options]\nstores = ["/new"]\n')
  check('no key', '[storage.options]  # here\na = 1\n', '[storage.options]  # here\nstores = ["/new"]\na = 1\n')
  check('a table at the end', '[storage.options]', '[storage.options]\nstores = ["/new"]\n')
  check(
    'only a table below',
    '[storage.options.overlay]\na = 1\n',
    '[storage.options.overlay]\na = 1\n\n[storage.options]\nstores = ["/new"]\n',
  )
  check('blanks and quotes in the header', '[ storage . "options" ]\n', '[ storage . "options" ]\nstores = ["/new"]\n')
  check('an empty array', '[storage.options]\nstores=[]#x\n', '[storage.options]\nstores=["/new"]#x\n')
  check(
    'an empty array over lines',
    '[storage.options]\nstores = [\n]\n',
    '[storage.options]\nstores = [\n  "/new",\n]\n',
  )
  check(
    'an array of comments',
    '[storage.options]\nstores = [ # none\n  # "/a",\n]\n',
    '[storage.options]\nstores = [\n  "/new", # none\n  # "/a",\n]\n',
  )
  check('one more', '[storage.options]\nstores = [ "/a" ]\n', '[storage.options]\nstores = [ "/a", "/new" ]\n')
  check(
    'a comma behind the last',
    "[storage.options]\nstores = ['/a',]\n",
    `[storage.options]\nstores = ['/a', "/new",]\n`,
  )
  check(
    'lines with a comma behind the last, and its comment',
    '[storage.options]\nstores = [\n\t"/a", # first\n]\n',
    '[storage.options]\nstores = [\n\t"/a", # first\n\t"/new",\n]\n',
  )
  check(
    'lines without it',
    '[storage.options]\nstores = [\n    "/a" # a, b\n    # more\n]\n',
    '[storage.options]\nstores = [\n    "/a", # a, b\n    "/new"\n    # more\n]\n',
  )
  check(
    'Windows lines',
    '[storage.options]\r\nstores = [\r\n  "/a",\r\n]\r\n',
    '[storage.options]\r\nstores = [\r\n  "/a",\r\n  "/new",\r\n]\r\n',
  )
  check('a dotted key', '[storage]\noptions.stores = ["/a"]\n', '[storage]\noptions.stores = ["/a", "/new"]\n')
  check('a quoted key', '[storage.options]\n"stores" = ["/a"]\n', '[storage.options]\n"stores" = ["/a", "/new"]\n')
  check(
    'what looks like it in strings and comments',
    '# [storage.options]\na = """\n[storage.options]\nstores = []\n"""\nb = \'\'\'\n[storage.options]\'\'\'\n',
    '# [storage.options]\na = """\n[storage.options]\nstores = []\n"""\nb = \'\'\'\n[storage.options]\'\'\'\n\n[storage.options]\nstores = ["/new"]\n',
  )
  check(
    'brackets and quotes in strings',
    '[storage.options]\nstores = ["a]\\"", \'b"]\'] # "]"\n',
    '[storage.options]\nstores = ["a]\\"", \'b"]\', "/new"] # "]"\n',
  )
  check(
    'it is there already',
    '[storage.options]\nstores = ["/b", "/new"]\n',
    '[storage.options]\nstores = ["/b", "/new"]\n',
  )
})

describe('removing changes nothing else', () => {
  const check = (title: string, before: string, after: string, keepEmpty = true) =>
    test(title, () => expect(remove(before, keepEmpty)).toBe(after))

  check('the only one', '[storage.options]\nstores = ["/new"] # x\n', '[storage.options]\nstores = [] # x\n')
  check(
    'the only one, with its key',
    '[storage.options]\nstores = ["/new"] # x\nb = 1\n',
    '[storage.options]\nb = 1\n',
    false,
  )
  check(
    'not the only one',
    '[storage.options]\nstores = ["/new", "/b"]\n',
    '[storage.options]\nstores = ["/b"]\n',
    false,
  )
  check('the last', '[storage.options]\nstores = ["/a", "/new"]\n', '[storage.options]\nstores = ["/a"]\n')
  check(
    'one in between',
    '[storage.options]\nstores = ["/a", "/new", "/b"]\n',
    '[storage.options]\nstores = ["/a", "/b"]\n',
  )
  check('twice', '[storage.options]\nstores = ["/new", "/new"]\n', '[storage.options]\nstores = []\n')
  check(
    'a line of its own',
    '[storage.options]\nstores = [\n  "/a", # x\n  "/new",\n  "/b"\n]\n',
    '[storage.options]\nstores = [\n  "/a", # x\n  "/b"\n]\n',
  )
  check('nothing', '[storage.options]\nstores = ["/a"]\n', '[storage.options]\nstores = ["/a"]\n')
  check('no key', 'a = 1\n', 'a = 1\n')
})

test.each([
  ['[storage]\noptions = { a = 1 }\n', 'unsupported', /by hand.*"\/new"/],
  ['[storage.options]\nstores = "/a"\n', 'usage', undefined],
  ['[storage.options]\nstores = [1]\n', 'usage', undefined],
  ['storage = 1\n', 'usage', undefined],
  ['[[storage]]\n', 'usage', undefined],
  ['[storage.options\n', 'usage', undefined],
  ['a = "\n', 'usage', undefined],
  ['a = 1\na = 2\n', 'usage', undefined],
])('%j is refused', (text, code, fix) => {
  let error: unknown
  try {
    add(text)
  } catch (thrown) {
    error = thrown
  }
  expect(error).toBeInstanceOf(Failure)
  expect(error).toMatchObject({ code, ...(fix === undefined ? {} : { fix: expect.stringMatching(fix) }) })
})

// Pieces that arrays of strings are written with, so that every mixture of them is tried.
const blank = fc.constantFrom('', ' ', '\n', '\n  ', '\t', ' # a ] " , comment\n', '\r\n')
const element = fc.constantFrom('"/a"', "'/b'", '"/c,]"', '"/d # \\""', "'''/e\n'''", '"""/f"""')
const array = fc
  .tuple(fc.array(fc.tuple(blank, element, blank), { maxLength: 4 }), blank, fc.boolean())
  .map(([elements, end, comma]) => {
    const text = elements.map(([before, what, behind]) => before + what + behind).join(',')
    return `[${text}${comma && elements.length > 0 ? ',' : ''}${end}]`
  })
const file = fc
  .tuple(
    fc.constantFrom('', '# x\n[storage]\na = 1\n'),
    array,
    fc.constantFrom('', ' # behind', '\n[b]\nc = {d = [1]}\n'),
  )
  .map(([head, value, tail]) => `${head}[storage.options]\nx = 1\nstores = ${value}${tail}\n`)

/** Whether `long` has all characters of `short` in their order. */
function isWithin(short: string, long: string): boolean {
  let at = 0
  for (const character of long) if (character === short[at]) at++
  return at === short.length
}

test('whatever the array looks like, adding appends and leaves every character, and removing takes it out again', () => {
  fc.assert(
    fc.property(file, (text) => {
      const before = parse(text) as { storage: { options: { stores: string[] } } }
      const added = add(text)
      const after = parse(added) as typeof before
      expect(after.storage.options.stores).toEqual([...before.storage.options.stores, '/new'])
      expect(isWithin(text, added)).toBe(true)
      expect(parse(remove(added))).toEqual(before)
    }),
    { numRuns: runs(200) },
  )
})

test('bytes that are no TOML end in an error of ours, never in another or in a change of something else', () => {
  const pieces = fc.constantFrom(
    '[',
    ']',
    '"',
    "'",
    '"""',
    '=',
    '\n',
    '#',
    '\\',
    ',',
    'a',
    '.',
    '{',
    '}',
    'storage',
    'options',
    'stores',
    ' ',
  )
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 20 }), (parts) => {
      const text = parts.join('')
      let added: string
      try {
        added = add(text)
      } catch (error) {
        expect(error).toBeInstanceOf(Failure)
        return
      }
      const after = parse(added) as { storage: { options: { stores?: string[] } } }
      expect(after.storage.options.stores?.at(-1)).toBe('/new')
    }),
    { numRuns: runs(500) },
  )
})
