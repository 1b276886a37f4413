// A unified diff of two texts, as diff -u writes it and patch reads it.
import { createTwoFilesPatch, FILE_HEADERS_ONLY } from 'diff'

const CONTEXT = 3
const NO_FILE = '/dev/null'

/** '' when the texts are equal. `undefined` is no file. */
export function unifiedDiff(path: string, before: string | undefined, after: string | undefined): string {
  if (before === after) return ''
  const name = (side: string | undefined, prefix: string) => (side === undefined ? NO_FILE : `${prefix}${path}`)
  const options = { context: CONTEXT, headerOptions: FILE_HEADERS_ONLY }
  return createTwoFilesPatch(name(before, 'a'), name(after, 'b'), before ?? '', after ?? '', '', '', options)
}
