// Names as archives write them (`./usr/bin/`, `/etc`) -> paths as the tree wants them (`usr/bin`, `etc`; the root is '').
import { Failure } from '../errors.ts'
import { DEPTH_MAX, NAME_MAX_BYTES, PATH_MAX_BYTES } from '../tree/entries.ts'

/** A component that a path of the tree does not have: an empty one, `.` or `..`. */
const UNCLEAN = /(?:^|\/)\.{0,2}(?:\/|$)/

/** `text` quoted for a message, shortened. */
export function quote(text: unknown): string {
  const quoted = JSON.stringify(text) ?? String(text)
  return quoted.length > 300 ? `${quoted.slice(0, 300)}…` : quoted
}

/**
 * Go's path.Clean but for `..`, which is refused even where it would stay inside: no tool that makes layers writes it.
 * @param of names the path's owner in errors; asked only then
 * @throws Failure corrupt (`..`, NUL, lone surrogates), limit
 */
export function cleanPath(name: string, of: { readonly what: string }): string {
  if (name.includes('\0')) throw Failure.corrupt(`${of.what}: the path has a NUL`)
  if (!name.isWellFormed()) throw Failure.corrupt(`${of.what}: the path is no Unicode text`)
  // most names; a character has at most three bytes a UTF-16 unit, so that no limit is near
  if (name.length * 3 <= NAME_MAX_BYTES && !UNCLEAN.test(name)) return name
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw Failure.corrupt(`${of.what}: the path has a ".."`)
  if (parts.length > DEPTH_MAX) throw Failure.limit(`${of.what}: the path is deeper than ${DEPTH_MAX}`)
  const path = parts.join('/')
  if (path.length * 3 > NAME_MAX_BYTES) {
    if (Buffer.byteLength(path) > PATH_MAX_BYTES) {
      throw Failure.limit(`${of.what}: the path is longer than ${PATH_MAX_BYTES} bytes`)
    }
    if (parts.some((part) => Buffer.byteLength(part) > NAME_MAX_BYTES)) {
      throw Failure.limit(`${of.what}: a name is longer than ${NAME_MAX_BYTES} bytes`)
    }
  }
  return path
}
