// RFC 3339 times with up to nine digits of a second, as Go writes them -> nanoseconds since 1970.

const PATTERN = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/
/** Go's zero time; it means "no time". */
const GO_ZERO = '0001-01-01T00:00:00Z'

/** Undefined when `text` is no such time. */
export function parseModtime(text: string): bigint | undefined {
  if (text === GO_ZERO) return 0n
  const match = PATTERN.exec(text)
  if (!match) return undefined
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ] // as many as the pattern's groups
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  const milliseconds = date.setUTCHours(hour, minute, second)
  // a 30 February or a 25:00 rolls over into another day
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return undefined
  if (hour > 23 || minute > 59 || second > 59) return undefined
  const [hours, minutes] = [Number(match[9] ?? 0), Number(match[10] ?? 0)]
  if (hours > 23 || minutes > 59) return undefined
  const east = (match[8] === '-' ? -1 : 1) * (hours * 60 + minutes) * 60
  return BigInt(milliseconds / 1000 - east) * 1_000_000_000n + BigInt((match[7] ?? '').padEnd(9, '0'))
}
