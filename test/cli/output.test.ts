import { expect, test } from 'vitest'
import { printable } from '../../src/agent/log.ts'
import { count, errorText, exitCode, sizeText, table } from '../../src/cli/output.ts'
import { Failure } from '../../src/errors.ts'

test('columns are as wide as their widest cell, and no line ends in blanks', () => {
  expect(
    table(
      ['A', 'LONG', 'C'],
      [
        ['wide cell', 'x', ''],
        ['y', 'z', 'end'],
      ],
    ),
  ).toBe('A          LONG  C\nwide cell  x\ny          z     end\n')
  expect(table(['A', 'B'], [])).toBe('A  B\n')
})

test('a table may have more rows than a call may have arguments', () => {
  const rows = Array.from({ length: 300_000 }, () => ['x'])
  expect(table(['A'], rows).length).toBe(600_002)
})

test.each([
  [0, '0 B'],
  [1, '1 B'],
  [999, '999 B'],
  [1000, '1.0 kB'],
  [12_345_678, '12.3 MB'],
  [5e9, '5.0 GB'],
  [7e15, '7000.0 TB'],
])('%d bytes are %s', (bytes, text) => {
  expect(sizeText(bytes)).toBe(text)
})

test('one is not many', () => {
  expect([0, 1, 2].map((n) => count(n, 'layer'))).toEqual(['0 layers', '1 layer', '2 layers'])
})

test('an error is at most three lines: what, why, what to do', () => {
  expect(errorText(Failure.missing('no such image'))).toBe('lazylayer: no such image\n')
  expect(errorText(Failure.denied('refused', { why: 'no rights', fix: 'Log in.' }))).toBe(
    'lazylayer: refused\n  why: no rights\n  try: Log in.\n',
  )
  const deep = Failure.unavailable('no answer', { cause: new Error('socket hang up', { cause: new Error('reset') }) })
  expect(errorText(deep)).toBe('lazylayer: no answer\n  why: socket hang up: reset\n')
})

test('what a registry or an image says makes no lines and steers no terminal', () => {
  const text = errorText(Failure.corrupt('a\nb', { why: '\u001b]0;title\u0007\r', fix: 'c\u009b2J' }))
  expect(text).toBe('lazylayer: a\\x0ab\n  why: \\x1b]0;title\\x07\\x0d\n  try: c\\x9b2J\n')
  expect(printable('grüße ✓')).toBe('grüße ✓')
})

test('an error of the system is one line; a fault of ours comes with its stack', () => {
  expect(errorText(Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' }))).toBe(
    'lazylayer: EACCES: permission denied\n',
  )
  expect(errorText(new TypeError('oops'))).toMatch(/^lazylayer: TypeError: oops\n\s+at /)
  expect(errorText('just text')).toBe('lazylayer: just text\n')
})

test('the exit code tells a wrong command line from a failure', () => {
  expect(exitCode(Failure.usage('no'))).toBe(2)
  expect(exitCode(Failure.missing('no'))).toBe(1)
  expect(exitCode(new Error('no'))).toBe(1)
})
