// The entries of a directory of a RAFS v6 bootstrap, as EROFS has them: blocks, each of which begins with its entries and goes on with
// their names.
//
//   entry, 12 bytes:   0 nid u64   8 where its name begins in the block u16   10 type u8
//   The first name begins where the entries end; a name ends where the next begins, the last with a NUL or the block.
import { isUtf8 } from 'node:buffer'
import { Failure } from '../../../errors.ts'
import { quote } from '../../path.ts'
import { BLOCK_BYTES } from './superblock.ts'

const ENTRY_BYTES = 12
const NAME_AT = 8
const REPLACEMENT = '\ufffd'

export interface Child6 {
  name: string
  nid: number
}

/** Without `.` and `..`. @param of names the directory in errors @throws Failure corrupt, unsupported (names that are no UTF-8) */
export function childrenIn(content: Uint8Array, of: { readonly what: string }): Child6[] {
  const children: Child6[] = []
  const names = new Set<string>()
  for (let at = 0; at < content.length; at += BLOCK_BYTES) {
    addChildren(
      content.subarray(at, at + BLOCK_BYTES),
      () => `${of.what}: block ${at / BLOCK_BYTES}`,
      (child) => {
        if (names.has(child.name)) throw Failure.corrupt(`${of.what}: the name ${quote(child.name)} stands in it twice`)
        names.add(child.name)
        if (child.name !== '.' && child.name !== '..') children.push(child)
      },
    )
  }
  return children
}

function addChildren(block: Uint8Array, what: () => string, add: (child: Child6) => void): void {
  const text = Buffer.from(block.buffer, block.byteOffset, block.length)
  const view = new DataView(block.buffer, block.byteOffset, block.length)
  const broken = (at: number, why: string) => Failure.corrupt(`${what()}: its entry at ${at} is broken`, { why })
  if (block.length < ENTRY_BYTES) throw broken(0, `the block has ${block.length} bytes`)
  const namesAt = view.getUint16(NAME_AT, true)
  if (namesAt < ENTRY_BYTES || namesAt % ENTRY_BYTES !== 0 || namesAt > block.length) {
    throw broken(0, `names begin at ${namesAt} of ${block.length}`)
  }
  for (let at = 0, start = namesAt; at < namesAt; at += ENTRY_BYTES) {
    const isLast = at + ENTRY_BYTES === namesAt
    const end = isLast ? endOfLast(block, start) : view.getUint16(at + ENTRY_BYTES + NAME_AT, true)
    if (end <= start || end > block.length) throw broken(at, `its name would lie between ${start} and ${end}`)
    const name = text.toString('utf8', start, end)
    // what is no UTF-8 becomes that
    if (name.includes(REPLACEMENT) && !isUtf8(block.subarray(start, end))) {
      throw Failure.unsupported(`${what()}: the name at ${start} is no UTF-8`)
    }
    if (name.includes('/') || name.includes('\0')) throw broken(at, `${quote(name)} is no name`)
    add({ name, nid: view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true) })
    start = end
  }
}

function endOfLast(block: Uint8Array, start: number): number {
  const end = block.indexOf(0, start)
  return end < 0 ? block.length : end
}
