// What both versions' tests ask of a bootstrap that was parsed, or was not.
import { expect } from 'vitest'
import type { Rafs } from '../../../src/format/nydus/rafs.ts'
import type { Entry } from '../../../src/tree/entry.ts'

export function entry({ entries }: Rafs, path: string): Entry {
  const found = entries.find((each) => each.path === path)
  if (!found) throw new Error(`${path} is missing`)
  return found
}

export function refuses(parsing: () => unknown, code: string, text: RegExp): void {
  expect(parsing).toThrow(expect.objectContaining({ code, message: expect.stringMatching(text) }))
}
