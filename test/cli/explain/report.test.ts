import { expect, test } from 'vitest'
import { waysOf } from '../../../src/cli/explain/layer.ts'
import { type Report, reportText } from '../../../src/cli/explain/report.ts'

const DIGESTS = ['a', 'b', 'c'].map((each) => `sha256:${each.repeat(64)}` as const)
const lazy = {
  format: { name: 'lazy' },
  proven: false,
  believed: { why: 'the DiffID is only claimed', fix: 'Have it proven.' },
}
const plain = { ...lazy, format: { why: 'the format \u001b[31mis plain' } }

function report(facts: Parameters<typeof waysOf>[0], more: Partial<Report> = {}): Report {
  const layers = waysOf(facts).map((ways, i) => ({
    digest: DIGESTS[i] as `sha256:${string}`,
    size: 1000,
    format: null,
    version: null,
    rung: 'fuse',
    ways,
  }))
  const digest = DIGESTS[0] as `sha256:${string}`
  return {
    reference: 'host/a:1',
    digest,
    platform: 'linux/amd64',
    rung: 'fuse',
    why: null,
    engines: [],
    silent: [],
    diffid: { policy: 'proven', trust: [], only: false, why: 'it is not proven' },
    notes: [],
    layers,
    clients: [],
    ...more,
  }
}

test('a line a layer, then each reason once with its layers and engines', () => {
  const lines = reportText(report([lazy, plain, lazy])).split('\n')
  expect(lines.filter((each) => /^[abc]{12} {2}/.test(each))).toEqual([
    expect.stringMatching(/^a{12} .* pulled +layers \(index\) +images \(index\)$/),
    expect.stringMatching(/^b{12} .* pulled +pulled +pulled$/),
    expect.stringMatching(/^c{12} .* pulled +layers \(index\) +pulled$/),
  ])
  expect(lines.filter((each) => /^a{12}, c{12} \(Podman ≤ 5.0\): .*DiffID/.test(each))).toHaveLength(1)
  expect(lines.filter((each) => /^b{12}: the format/.test(each))).toHaveLength(1)
  expect(lines.filter((each) => /^c{12} \(Podman ≥ 5.5\): a layer below it/.test(each))).toHaveLength(1)
})

test('a line a client, with what it takes, and each reason once with its clients', () => {
  const client = (name: string, why: string | null) => ({
    client: name,
    way: 'lazy' as const,
    why,
    fix: 'do \u001b[31mit',
  })
  const text = reportText(
    report([lazy], { clients: [client('one', 'by name'), client('two', null), client('three', 'by name')] }),
  )
  expect(text).toMatch(/^one +lazy +do \\x1b\[31mit$/m)
  expect(text).toContain('\none; three: by name\n')
})

test('nothing of it steers the terminal', () => {
  const text = reportText(
    report([plain], {
      why: 'no\u0007',
      platform: 'linux/\u001b',
      engines: [{ engine: 'podman', version: '5.4.2\u009b', era: 'index' }],
    }),
  )
  expect(text).toContain('\\x1b[31mis plain')
  expect(text).toContain('podman 5.4.2\\x9b (as')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
})

test('the last line says what this machine has', () => {
  const engines = [{ engine: 'podman' as const, version: '5.8.6', era: 'image' as const }]
  expect(
    reportText(report([lazy], { engines, why: 'no root' }))
      .trimEnd()
      .split('\n')
      .at(-1),
  ).toBe('on this machine: podman 5.8.6 (as Podman ≥ 5.5); rung fuse, not a higher one because: no root')
  const silent = [{ engine: 'crio' as const, why: 'it ended with 1: \u001b' }]
  expect(reportText(report([lazy], { engines, silent }))).toContain(
    'on this machine: podman 5.8.6 (as Podman ≥ 5.5), crio (does not say its version: it ended with 1: \\x1b); rung fuse\n',
  )
  expect(reportText(report([lazy], { rung: null })).trimEnd()).toMatch(/on this machine: no engine; rung none$/)
})

test('what is made of its signatures is said in a line, where they were looked for', () => {
  const lines = (diffid: Report['diffid']) =>
    reportText(report([lazy], { diffid }))
      .split('\n')
      .filter((each) => each.startsWith('--diffid'))
  expect(lines({ policy: 'signed', trust: [], only: false, why: null })).toEqual([
    '--diffid signed: the image is signed, so its DiffIDs are believed',
  ])
  expect(lines({ policy: 'signed', trust: [], only: false, why: 'no\u0007 signature' })).toEqual([
    '--diffid signed: they are not believed: no\\x07 signature',
  ])
  expect(lines({ policy: 'proven', trust: [], only: false, why: 'it is not proven' })).toEqual([])
})

test('what of it does not hold here is said', () => {
  expect(reportText(report([lazy], { notes: ['the layer store is left out\u0007'] }))).toContain(
    '\nthe layer store is left out\\x07\n',
  )
})
