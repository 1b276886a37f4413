// Damage, as hostile or broken writers would do it: flipped bits, cut ends, moved pieces, and integers at the edges of what they can hold.
import type { Random } from './random.ts'

/** Of what is copied or removed. */
const PIECE_MAX_BYTES = 600
/** In a row; more would leave nothing that a parser gets far into. */
const DAMAGES_MAX = 4

const QUOTE = 0x22

/** What widths of integers are set to, also one more and one less. */
const EDGES = [0n, 1n, 0x7fn, 0xffn, 0xfffn, 0x7fffn, 0xffffn, 1n << 20n, 1n << 24n, 0x7fff_ffffn, 0xffff_ffffn]
const EDGES_64 = [1n << 32n, 1n << 53n, 1n << 63n]

/** A damaged copy of one of the seeds, on memory of its own. */
export function mutate(seeds: readonly Uint8Array[], random: Random): Uint8Array {
  const seed = random.oneOf(seeds)
  let bytes: Uint8Array = Uint8Array.from(seed)
  let left = 1 + random.below(DAMAGES_MAX)
  // some damage changes nothing, as where there is no text
  while (bytes.length > 0 && (left > 0 || Buffer.compare(bytes, seed) === 0)) {
    bytes = random.oneOf(DAMAGES)(bytes, random, seeds)
    left--
  }
  return bytes
}

/** May write to `bytes`. */
type Damage = (bytes: Uint8Array, random: Random, seeds: readonly Uint8Array[]) => Uint8Array

const DAMAGES: readonly Damage[] = [
  flip,
  flip,
  setByte,
  setInteger,
  setInteger,
  setInteger,
  setDigits,
  setDigits,
  setDigits,
  copyText,
  copyInteger,
  overwrite,
  insert,
  remove,
  cut,
  extend,
]

function flip(bytes: Uint8Array, random: Random): Uint8Array {
  const at = placeIn(bytes, random)
  bytes[at] = (bytes[at] as number) ^ (1 << random.below(8))
  return bytes
}

function setByte(bytes: Uint8Array, random: Random): Uint8Array {
  bytes[placeIn(bytes, random)] = random.below(256)
  return bytes
}

function setInteger(bytes: Uint8Array, random: Random): Uint8Array {
  const width = random.oneOf([2, 4, 8] as const)
  const at = aligned(bytes, width, random)
  if (at === undefined) return bytes
  const view = new DataView(bytes.buffer)
  const near = BigInt(random.below(3) - 1)
  if (width === 8)
    view.setBigUint64(
      at,
      BigInt.asUintN(64, edge(view.getBigUint64(at, true), bytes, random, [...EDGES, ...EDGES_64]) + near),
      true,
    )
  else if (width === 4)
    view.setUint32(
      at,
      Number(BigInt.asUintN(32, edge(BigInt(view.getUint32(at, true)), bytes, random, EDGES) + near)),
      true,
    )
  else
    view.setUint16(
      at,
      Number(BigInt.asUintN(16, edge(BigInt(view.getUint16(at, true)), bytes, random, EDGES) + near)),
      true,
    )
  return bytes
}

/** An edge of integers, the value itself (its neighbours are what is wanted), or what has to do with how long all is. */
function edge(value: bigint, { length }: Uint8Array, random: Random, edges: readonly bigint[]): bigint {
  return random.oneOf([...edges, value, value, value * 2n, BigInt(length), BigInt(length >> 3)])
}

/** Numbers in text: JSON's, and the octal ones of tars. */
function setDigits(bytes: Uint8Array, random: Random): Uint8Array {
  const isDigit = (at: number) => (bytes[at] ?? 0) >= 0x30 && (bytes[at] ?? 0) <= 0x39
  let start = placeIn(bytes, random)
  for (let steps = 0; steps < PIECE_MAX_BYTES && start < bytes.length && !isDigit(start); steps++) start++
  if (!isDigit(start)) return bytes
  let end = start
  while (isDigit(end)) end++
  const value = edge(BigInt(Buffer.from(bytes.subarray(start, end)).toString('latin1')), bytes, random, [
    ...EDGES,
    ...EDGES_64,
  ])
  const text = `${value + BigInt(random.below(3) - 1)}`
  // half of them keep the length of what is around, as fields of fixed width have to
  const digits = random.below(2) === 0 ? text : text.slice(-(end - start)).padStart(end - start, '0')
  return join(bytes.subarray(0, start), Buffer.from(digits, 'latin1'), bytes.subarray(end))
}

/** One of its JSON strings, in the place of another. */
function copyText(bytes: Uint8Array, random: Random): Uint8Array {
  const quoted = () => {
    const start = bytes.indexOf(QUOTE, placeIn(bytes, random))
    const end = start < 0 ? -1 : bytes.indexOf(QUOTE, start + 1)
    return end < 0 ? undefined : { start, end: end + 1 }
  }
  const [from, to] = [quoted(), quoted()]
  if (!from || !to) return bytes
  return join(bytes.subarray(0, to.start), bytes.subarray(from.start, from.end), bytes.subarray(to.end))
}

/** One of its integers, in the place of another. */
function copyInteger(bytes: Uint8Array, random: Random): Uint8Array {
  const width = random.oneOf([2, 4, 8])
  const from = aligned(bytes, width, random)
  const to = aligned(bytes, width, random)
  if (from !== undefined && to !== undefined) bytes.copyWithin(to, from, from + width)
  return bytes
}

function overwrite(bytes: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  const piece = pieceOf(random.oneOf([bytes, ...seeds]), random).slice()
  bytes.set(piece.subarray(0, bytes.length), random.below(Math.max(1, bytes.length - piece.length)))
  return bytes
}

function insert(bytes: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  const at = placeIn(bytes, random)
  return join(bytes.subarray(0, at), pieceOf(random.oneOf([bytes, ...seeds]), random), bytes.subarray(at))
}

function remove(bytes: Uint8Array, random: Random): Uint8Array {
  const at = placeIn(bytes, random)
  return join(bytes.subarray(0, at), bytes.subarray(at + 1 + random.below(PIECE_MAX_BYTES)))
}

function cut(bytes: Uint8Array, random: Random): Uint8Array {
  return bytes.slice(0, random.below(bytes.length))
}

function extend(bytes: Uint8Array, random: Random): Uint8Array {
  return join(bytes, new Uint8Array(random.below(PIECE_MAX_BYTES)).fill(random.oneOf([0, 0xff, 0x20])))
}

/** Anywhere; in two of three cases where something is, since tables have much padding. */
function placeIn(bytes: Uint8Array, random: Random): number {
  const at = random.below(bytes.length)
  if (random.below(3) === 0) return at
  for (let next = at; next < bytes.length; next++) if (bytes[next] !== 0) return next
  return at
}

function aligned(bytes: Uint8Array, width: number, random: Random): number | undefined {
  const at = placeIn(bytes, random)
  const start = at - (at % width)
  return start + width <= bytes.length ? start : undefined
}

function pieceOf(bytes: Uint8Array, random: Random): Uint8Array {
  const at = random.below(Math.max(1, bytes.length))
  return bytes.subarray(at, at + 1 + random.below(PIECE_MAX_BYTES))
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
