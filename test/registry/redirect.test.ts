import { expect, test } from 'vitest'
import { lifetimeMs, redirectTarget, refererOf } from '../../src/registry/redirect.ts'

test('redirects lead only where they may', () => {
  const from = new URL('https://r.example/v2/a/blobs/x')
  const to = (location: string | undefined, start = from) => redirectTarget(start, location).href
  expect(to('https://cdn.example/x?sig=1#fragment')).toBe('https://cdn.example/x?sig=1')
  expect(to('/y')).toBe('https://r.example/y')
  // a host that settings allow to be there leads to itself, and no other leads to it
  expect(to('/y', new URL('https://169.254.1.1:5000/x'))).toBe('https://169.254.1.1:5000/y')
  expect(() => to('//169.254.1.1/y', new URL('https://169.254.1.1:5000/x'))).toThrow()
  expect(to('http://cdn.example/x', new URL('http://r.example/'))).toBe('http://cdn.example/x')
  for (const location of [
    undefined,
    'http://cdn.example/x',
    'http://r.example/x',
    'file:///etc/passwd',
    'ftp://cdn.example/x',
    'https://user:password@cdn.example/x',
    'https://169.254.169.254/latest/meta-data',
    'https://[fe80::1]/',
    'https://2852039166/',
    'https://100.100.100.200/',
    'https://[64:ff9b::a9fe:a9fe]/',
    'https://[::ffff:169.254.169.254]/',
    'https://',
    'javascript:alert(1)',
  ]) {
    expect(() => to(location), location).toThrow(expect.objectContaining({ code: 'denied' }))
  }
})

test('signed URLs say how long they last', () => {
  const now = Date.parse('2026-03-01T12:00:00Z')
  const check = (query: string, want: number | undefined) =>
    expect(lifetimeMs(new URL(`https://s.example/x?${query}`), now), query).toBe(want)
  check('X-Amz-Expires=600&X-Amz-Date=20260301T115500Z', 300_000)
  check('X-Amz-Expires=600', 600_000)
  check('X-Goog-Expires=60&X-Goog-Date=20260301T120000Z', 60_000)
  check('se=2026-03-01T12%3A01%3A00Z', 60_000)
  check(`Expires=${now / 1000 + 5}`, 5_000)
  check('X-Amz-Expires=x', undefined)
  check('Expires=never', undefined)
  check('', undefined)
})

test('a Referer holds neither query, nor user, nor fragment, and goes from HTTPS to nobody over HTTP', () => {
  const from = new URL('https://ada:x@r.example:5000/v2/a/blobs/x?token=1#y')
  expect(refererOf(from, new URL('https://cdn.example/'))).toBe('https://r.example:5000/v2/a/blobs/x')
  expect(refererOf(from, new URL('http://cdn.example/'))).toBeUndefined()
  expect(refererOf(new URL('http://r.example/a?b'), new URL('https://cdn.example/'))).toBe('http://r.example/a')
})
