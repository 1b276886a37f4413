// What registries say in headers, and in answers of several ranges.
import { strict as assert } from 'node:assert'
import { Failure } from '../../../src/errors.ts'
import { ByteRanges, boundaryOf } from '../../../src/registry/byteranges.ts'
import { parseChallenge } from '../../../src/registry/challenge.ts'
import { isOffLimits } from '../../../src/registry/off-limits.ts'
import { redirectTarget } from '../../../src/registry/redirect.ts'
import { retryAfterMs } from '../../../src/registry/retry.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'
import { textTarget, utf8 } from './text.ts'

const NOW = Date.UTC(2026, 0, 1)
const SIZE = 100_000

const challenge = textTarget(
  'challenge',
  [
    'Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull"',
    'Basic realm="a \\"quoted\\" one", Bearer error="invalid_token" , realm=https://auth.example.com',
  ],
  (text) => {
    const found = parseChallenge(text)
    if (found === undefined) throw Failure.unsupported('no challenge that is known')
    if (found.scheme === 'bearer') assert(found.realm !== '')
  },
)

const redirect = textTarget(
  'redirect',
  ['https://storage.example.com/blobs/ab?X-Amz-Expires=900', '/v2/a/blobs/sha256:ab', 'https://8.8.8.8:1000/a#b'],
  (text) => {
    const to = redirectTarget(new URL('https://registry.example.com/v2/'), text)
    assert.equal(to.protocol, 'https:')
    assert(to.username === '' && to.password === '' && to.hash === '')
    assert(!isOffLimits(to.hostname), to.href)
  },
)

const retryAfter = textTarget('retry-after', ['120', 'Thu, 01 Jan 2026 00:00:30 GMT'], (text) => {
  const ms = retryAfterMs(text, NOW)
  assert(Number.isFinite(ms) && ms >= 0, `${ms} ms`)
  if (ms === 0) throw Failure.unsupported('it says nothing')
})

const boundary = textTarget(
  'content-type',
  ['multipart/byteranges; boundary=THIS_STRING', 'multipart/byteranges; charset=utf-8; boundary="a b"'],
  (text) => {
    const found = boundaryOf(text)
    if (found === undefined) throw Failure.unsupported('it is not in parts')
    assert(found.length >= 1 && found.length <= 70 && !/[\r\n]/.test(found))
  },
)

const part = (start: number, bytes: string) =>
  `\r\n--cut\r\ncontent-type: application/octet-stream\r\nContent-Range: bytes ${start}-${start + bytes.length - 1}/${SIZE}\r\n\r\n${bytes}`

const byteRanges: Target = {
  name: 'byteranges',
  seeds: [
    utf8(`${part(0, 'first').slice(2)}${part(5000, 'second'.repeat(20))}\r\n--cut--\r\n`),
    utf8(`${part(99_000, 'x'.repeat(1000))}${part(7, '\r\n--cut\r\n')}\r\n--cut--`),
  ],
  // whole, and cut anywhere: both say the same
  run: (bytes) =>
    attempt(() => {
      const pieces = taken([bytes])
      const cut = (bytes[0] ?? 0) % (bytes.length + 1)
      assert.deepEqual(taken([bytes.subarray(0, cut), bytes.subarray(cut)]), pieces)
      for (const [at] of pieces) assert(at >= 0 && at < SIZE)
      assert(pieces.length <= bytes.length)
    }),
}

/** What each byte is, by its place in the blob, in the order in which they came. @throws Failure */
function taken(parts: readonly Uint8Array[]): [number, number][] {
  const reader = new ByteRanges('cut', SIZE)
  const found: [number, number][] = []
  for (const each of parts) {
    for (const { at, bytes } of reader.take(each)) for (const [i, byte] of bytes.entries()) found.push([at + i, byte])
  }
  if (!reader.isOver) throw Failure.corrupt('it has no end')
  return found
}

export const headers: readonly Target[] = [challenge, redirect, retryAfter, boundary, byteRanges]
