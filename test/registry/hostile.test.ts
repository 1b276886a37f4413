// Whatever peers and files say, parsers answer with a value or a Failure, and soon.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { parseChallenge } from '../../src/registry/challenge.ts'
import { parseAuthFile } from '../../src/registry/credentials.ts'
import { parseRegistriesConf } from '../../src/registry/hosts.ts'
import { lifetimeMs, redirectTarget } from '../../src/registry/redirect.ts'
import { retryAfterMs } from '../../src/registry/retry.ts'
import { runs } from '../fixtures/runs.ts'

function orFailure(parse: () => unknown): void {
  try {
    parse()
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
  }
}

test('headers of any kind', () => {
  const piece = fc.constantFrom('Bearer', 'Basic', ' ', ',', '=', '"', '\\', 'realm', 'https://a/', '\t', 'é')
  const text = fc.oneof(
    fc.string(),
    fc.array(piece).map((each) => each.join('')),
  )
  const from = new URL('https://r.example/')
  fc.assert(
    fc.property(text, (each) => {
      parseChallenge(each)
      expect(retryAfterMs(each, 0)).toBeGreaterThanOrEqual(0)
      orFailure(() => redirectTarget(from, each))
    }),
    { numRuns: runs(600) },
  )
})

test('a challenge made to be slow is not', () => {
  // were it quadratic, it would take longer than a test may
  for (const unit of [' ', ',', ', ', '"', '\\"', 'a', 'a=', 'a="', 'a =', '\t,'])
    parseChallenge(unit.repeat(1_000_000))
})

test('signed URLs of any kind', () => {
  const name = fc.constantFrom('X-Amz-Expires', 'X-Amz-Date', 'X-Goog-Expires', 'se', 'Expires', 'sig')
  const query = fc.array(fc.tuple(name, fc.oneof(fc.string(), fc.integer().map(String))))
  fc.assert(
    fc.property(query, (pairs) => {
      const url = new URL('https://s.example/')
      for (const [key, value] of pairs) url.searchParams.append(key, value)
      expect(lifetimeMs(url, 0)).not.toBeNaN()
    }),
  )
})

test('auth files and registries.conf of any kind', () => {
  const value = fc.jsonValue()
  const auths = fc.record({
    auths: fc.oneof(value, fc.dictionary(fc.string(), value)),
    credHelpers: value,
    credsStore: value,
  })
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        auths.map((each) => JSON.stringify(each)),
      ),
      (text) => {
        orFailure(() => parseAuthFile(text, 'f'))
      },
    ),
  )
  const line = fc.constantFrom(
    '[[registry]]',
    '[registry]',
    'location = "a"',
    'prefix = 1',
    'mirror = []',
    '[[registry.mirror]]',
    'x',
    '=',
  )
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(line).map((each) => each.join('\n')),
      ),
      (text) => {
        orFailure(() => parseRegistriesConf(text, 'f'))
      },
    ),
  )
})
