import { expect, test } from 'vitest'
import type { Finding } from '../../../src/cli/doctor/check.ts'
import { NO_REGISTRY, NOT_ASKED, notAsked, registryFindings } from '../../../src/cli/doctor/registry.ts'
import { Failure } from '../../../src/errors.ts'
import type { Probe } from '../../../src/registry/probe.ts'
import { summary } from './machine.ts'

const HOST = 'r.example.com'

function probe(of: Partial<Probe> & { host?: string; insecure?: boolean } = {}): Probe {
  const { host = HOST, insecure = false, ...rest } = of
  return {
    endpoint: { host, repository: 'a', insecure },
    scheme: 'https',
    protocol: 'HTTP/2',
    standing: 'credentials',
    ranges: { honoured: true, storage: undefined },
    failure: undefined,
    ...rest,
  }
}

const says = (finding: Finding | undefined, state: string, text: RegExp) =>
  expect(finding && summary(finding)).toEqual({ state, text: expect.stringMatching(text) })

const DENIED = Failure.denied('a: refused', { why: 'none', fix: 'Log in.' })

test.each<[string, Parameters<typeof probe>[0], string, RegExp]>([
  [
    'all is well',
    {},
    'ok',
    /^r\.example\.com\/a: HTTP\/2, its certificate is trusted, takes the credentials, ranges are honoured$/,
  ],
  ['HTTP/1.1', { protocol: 'HTTP/1.1' }, 'ok', /HTTP\/1\.1/],
  ['everybody', { standing: 'open' }, 'ok', /lets everybody in,/],
  ['a token for everybody', { standing: 'anonymous' }, 'ok', /with a token/],
  ['a redirect', { ranges: { honoured: true, storage: 's.example.com' } }, 'ok', /redirect to s\.example\.com$/],
  ['no layer', { ranges: undefined }, 'ok', /no layer is there/],
  ['no ranges', { ranges: { honoured: false, storage: undefined } }, 'problem', /HTTP\/2.*ranges are ignored.*\. Put/],
  [
    'no ranges behind a redirect',
    { ranges: { honoured: false, storage: 's.example.com' } },
    'problem',
    /ignored, through a redirect to s\.example\.com/,
  ],
  ['no TLS', { scheme: 'http', insecure: true }, 'warning', /nothing is encrypted.*\. Have/],
  ['no check', { insecure: true }, 'warning', /not checked.*\. Put its authority into/],
  ['a refusal', { failure: DENIED }, 'problem', /a: refused: none\. Log in\.$/],
  [
    'a failure that names the image',
    { failure: Failure.denied('r.example.com/a:1: refused') },
    'problem',
    /^r\.example\.com\/a:1: refused\./,
  ],
  [
    'a failure that names another',
    { failure: Failure.denied('r.example.com/ab:1: x') },
    'problem',
    /^r\.example\.com\/a: r\.example\.com\/ab:1/,
  ],
  ['no such image', { failure: Failure.missing('x') }, 'problem', /x\. Check the name and the tag/],
  ['nobody there', { failure: Failure.unavailable('x') }, 'problem', /x\. Check its name and the network/],
  ['a lie', { failure: Failure.corrupt('x') }, 'problem', /push the image again/],
])('a registry: %s', (_, of, state, text) => says(registryFindings([probe(of)])[0], state, text))

test('a mirror that fails is a warning, one without the image is not, and the origin is one while a mirror answers', () => {
  const missing = probe({ host: 'm.example.com', failure: Failure.missing('x') })
  const dead = probe({ host: 'd.example.com', failure: Failure.unavailable('x') })
  const [first, second, origin] = registryFindings([missing, dead, probe()])
  says(first, 'ok', /^mirror m\.example\.com\/a: does not have the image$/)
  says(second, 'warning', /^mirror d\.example\.com/)
  says(origin, 'ok', /^r\.example\.com/)
  const [well, refused] = registryFindings([probe({ host: 'm.example.com' }), probe({ failure: DENIED })])
  says(well, 'ok', /^mirror/)
  says(refused, 'warning', /refused/)
  const [, nobody] = registryFindings([dead, probe({ failure: DENIED })])
  says(nobody, 'problem', /refused/)
})

test('where no registry was asked, that is said, and how to', () => {
  says(NOT_ASKED, 'ok', /none was asked.*lazylayer doctor IMAGE/)
  says(NO_REGISTRY, 'ok', /none was asked/)
  says(notAsked(Failure.denied('blocked')), 'problem', /blocked\. Repair registries\.conf/)
  says(notAsked(Failure.usage('wrong', { fix: 'Mend it.' })), 'problem', /wrong\. Mend it\./)
})
