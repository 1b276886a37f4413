// Whatever the bytes, parsers answer with a value or a Failure.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { parseConfig, parseManifest } from '../../src/image/manifest.ts'
import { parseReference, referenceText } from '../../src/image/reference.ts'
import { json, OCI_MANIFEST } from '../fake/image.ts'
import { runs } from '../fixtures/runs.ts'

function orFailure<T>(parse: () => T): T | undefined {
  try {
    return parse()
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    return undefined
  }
}

test('a reference parses or is refused, and parses again to itself', () => {
  const piece = fc.constantFrom(
    'a',
    'A',
    '.',
    ':',
    '/',
    '@',
    '-',
    '_',
    '5000',
    'docker://',
    'oci:',
    'sha256:',
    '[',
    ']',
    '..',
    '\0',
  )
  const texts = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 12 }).map((each) => each.join('')),
  )
  fc.assert(
    fc.property(texts, (text) => {
      const parsed = orFailure(() => parseReference(text))
      if (parsed?.transport === 'docker') expect(parseReference(referenceText(parsed))).toEqual(parsed)
    }),
    { numRuns: runs(600) },
  )
})

test('manifests and configs parse or are refused', () => {
  const digest = fc.constantFrom(`sha256:${'0'.repeat(64)}`, 'sha256:x', null)
  const size = fc.oneof(fc.integer(), fc.double(), fc.constant('1'))
  const descriptor = fc.oneof(
    fc.record({ digest, size, annotations: fc.jsonValue() }, { requiredKeys: [] }),
    fc.jsonValue(),
  )
  const document = fc.record(
    {
      schemaVersion: fc.constantFrom(2, 1, '2'),
      mediaType: fc.constantFrom(OCI_MANIFEST, 'x', 1),
      config: descriptor,
      layers: fc.oneof(fc.array(descriptor), fc.jsonValue()),
      manifests: fc.oneof(fc.array(descriptor), fc.jsonValue()),
      rootfs: fc.jsonValue(),
    },
    { requiredKeys: ['schemaVersion'] },
  )
  const bytes = fc.oneof(fc.uint8Array(), fc.jsonValue().map(json), document.map(json))
  fc.assert(
    fc.property(bytes, (each) => {
      orFailure(() => parseManifest(each, 'x'))
      orFailure(() => parseConfig(each, 1, 'x'))
    }),
    { numRuns: runs(600) },
  )
})
