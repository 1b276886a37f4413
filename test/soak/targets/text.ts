// Targets whose inputs are text.
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** @param read throws a Failure for what it refuses, and an AssertionError where a promise is broken */
export function textTarget(name: string, seeds: readonly string[], read: (text: string) => unknown): Target {
  const decoder = new TextDecoder()
  return { name, seeds: seeds.map(utf8), run: (bytes) => attempt(() => read(decoder.decode(bytes))) }
}
