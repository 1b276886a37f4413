// RFC 3339 times with up to nine digits of a second, as Go writes them -> nanoseconds since 1970.

const PATTERN = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/
/** Go's zero time; it means "no time". */
const GO_ZERO = '0001-01-01T00:00:00Z'

const FOUR_CENTURIES_MS = 146_097 * 86_400_000
const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** Undefined when `text` is no such time. */
export function parseModtime(text: string): bigint | undefined {
  if (text === GO_ZERO) return 0n
  const match = PATTERN.exec(text)
  if (!match) return undefined
  const [year, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])]
  const [hour, minute, second] = [Number(match[4]), Number(match[5]), Number(match[6])]
  if (day < 1 || day > daysOf(year, month) || hour > 23 || minute > 59 || second > 59) return undefined
  // Date.UTC takes years below 100 for those of the last century; 400 years later the calendar is the same
  const milliseconds = Date.UTC(year + 400, month - 1, day, hour, minute, second) - FOUR_CENTURIES_MS
  const [hours, minutes] = [Number(match[9] ?? 0), Number(match[10] ?? 0)]
  if (hours > 23 || minutes > 59) return undefined
  const east = (match[8] === '-' ? -1 : 1) * (hours * 60 + minutes) * 60
  return BigInt(milliseconds / 1000 - east) * 1_000_000_000n + BigInt((match[7] ?? '').padEnd(9, '0'))
}

/** 0: there is no such month. */
function daysOf(year: number, month: number): number {
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  return month === 2 && isLeap ? 29 : (DAYS[month - 1] ?? 0)
}
