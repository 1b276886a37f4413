// Text of a table of contents that JSON could not hold: writers replace what is no UTF-8 in names, targets and names of attributes by
// U+FFFD, so that files are lost or renamed. Where a table has that character, the tar's own headers are asked whether it is theirs.
//
// The header of an entry stands behind the contents of the file before it, in the same member or frame or in one that follows:
//   offset                                          next offset
//   │ chunk, padding, headers, header of the next file │ its chunk …
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Failure } from '../../errors.ts'
import type { Range } from '../../image/blob.ts'
import type { Entry } from '../../tree/entry.ts'
import { searchInTurns } from '../index-bytes.ts'
import { quote } from '../path.ts'
import type { Member } from '../tar/entry.ts'
import { membersIn } from '../tar/members.ts'
import { Fields } from './fields.ts'
import { type Place, placeBehind } from './place.ts'
import { type Raw, scanToc } from './scan.ts'
import { entryOf } from './toc.ts'

const REPLACEMENT = '\ufffd'
/** As UTF-8 and as JSON may write it; the table is searched as latin1. */
const WRITTEN = /\xef\xbf\xbd|\\u[fF]{3}[dD]/
const WRITTEN_MAX_BYTES = 6
/** Tables that are searched for it are parsed on the main thread, in turns. */
const JSON_MAX_BYTES = 32 << 20
const TURN_ENTRIES = 1000
/** Members that are read for it: real names with that character are rare. */
const ENTRIES_MAX = 1000
const PLACES_MAX = 16
/** As they are stored, with the contents before them. */
const HEADERS_MAX_BYTES = 16 << 20

/** An entry with that character, the number `nth` of those whose headers stand from `place` on. */
interface Suspect {
  entry: Entry
  place: Place
  nth: number
}

/**
 * @param json the table of contents of a layer whose files end at `end` of the blob
 * @param decoded what a stored range of the blob decodes to; undefined: it is too much, or cannot be decoded
 * @param what names the layer
 * @throws Failure unsupported: text was replaced, or it cannot be told; corrupt, limit; what reading the blob throws
 */
export async function checkText(
  json: Uint8Array,
  end: number,
  decoded: (stored: Range) => Promise<Uint8Array | undefined>,
  what: string,
): Promise<void> {
  if (!(await searchInTurns(json, WRITTEN, WRITTEN_MAX_BYTES))) return
  if (json.length > JSON_MAX_BYTES) throw replaced(what, `its table of contents has ${json.length} bytes`)
  const { suspects, offsets } = await suspectsIn(json, what)
  const byOffset = Map.groupBy(suspects, ({ place }) => place.offset)
  if (suspects.length > ENTRIES_MAX || byOffset.size > PLACES_MAX) {
    throw replaced(what, `${suspects.length} of its entries have it`)
  }
  const ascending = Float64Array.from(offsets).sort()
  let left = HEADERS_MAX_BYTES
  for (const [offset, group] of byOffset) {
    const range = { start: offset, end: Math.min(ascending.find((each) => each > offset) ?? end, end) }
    left -= range.end - range.start
    if (range.start >= range.end || left < 0) throw replaced(what, 'its tar headers cannot be read cheaply')
    const tar = await decoded(range)
    if (tar === undefined) throw replaced(what, 'its tar headers cannot be read')
    for (const [at, from] of Map.groupBy(group, ({ place }) => place.at)) checkGroup(from, tar, at, what)
  }
}

/** The entries that have it in a text that matters, and all offsets. */
async function suspectsIn(json: Uint8Array, what: string): Promise<{ suspects: Suspect[]; offsets: Set<number> }> {
  const suspects: Suspect[] = []
  const offsets = new Set<number>()
  let place: Place = { offset: 0, at: 0 }
  let nth = 0
  let size = 0 // of the file that chunks belong to
  let count = 0
  for (const raw of scanToc(json, `${what}: table of contents`)) {
    if (++count % TURN_ENTRIES === 0) await nextTurn()
    if (raw.type !== 'chunk') {
      if (isSuspect(raw)) suspects.push({ entry: entryOf(new Fields(raw, raw.name, what)), place, nth })
      nth++
      size = raw.type === 'reg' && typeof raw.size === 'number' ? raw.size : 0
      if (size === 0) continue
    }
    place = placeBehind(raw, size)
    nth = 0
    offsets.add(place.offset)
  }
  return { suspects, offsets }
}

function isSuspect({ name, linkName, xattrs }: Raw): boolean {
  return [name, linkName, ...Object.keys(xattrs ?? {})].some(
    (text) => typeof text === 'string' && text.includes(REPLACEMENT),
  )
}

/** @param group entries whose headers stand from `at` on, by their numbers */
function checkGroup(group: readonly Suspect[], tar: Uint8Array, at: number, what: string): void {
  const wanted = new Map(group.map((each) => [each.nth, each.entry]))
  const last = Math.max(...wanted.keys())
  const members = membersIn(tar, at, what)
  for (let nth = 0; nth <= last; nth++) {
    const member = next(members, what)
    const entry = wanted.get(nth)
    if (entry === undefined) continue
    if (member === undefined || !isSame(entry, member.entry)) {
      throw replaced(what, `entry ${quote(entry.path)} is called otherwise in its tar`)
    }
  }
}

function next(members: Iterator<Member>, what: string): Member | undefined {
  try {
    const { done, value } = members.next()
    return done ? undefined : value
  } catch (cause) {
    if (!(cause instanceof Failure)) throw cause
    throw replaced(what, cause.message) // a name that is no UTF-8, for one
  }
}

/** Whether all text that may have been replaced is the same. */
function isSame(one: Entry, other: Entry): boolean {
  const names = ({ xattrs }: Entry) => [...(xattrs?.keys() ?? [])].sort().join('\0')
  return (
    one.path === other.path && one.link === other.link && one.target === other.target && names(one) === names(other)
  )
}

function replaced(what: string, why: string): Failure {
  return Failure.unsupported(`${what}: its table of contents has text with U+FFFD, which stands for what is no UTF-8`, {
    why,
  })
}
