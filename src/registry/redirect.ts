// Where a redirect may lead, and how long its target (a signed URL) lasts.
import { Failure } from '../errors.ts'
import { isOffLimits } from './off-limits.ts'

/** Registries redirect once, storage behind them perhaps again. */
export const REDIRECTS_MAX = 5

/**
 * The URL a redirect leads to.
 * @throws Failure denied: to HTTP from HTTPS, to link-local and metadata addresses, with credentials in it, or no HTTP URL at all
 */
export function redirectTarget(from: URL, location: string | undefined): URL {
  const refuse = (why: string) => Failure.denied(`${from.host}: its redirect is not followed`, { why })
  if (location === undefined) throw refuse('it leads nowhere')
  let to: URL
  try {
    to = new URL(location, from)
  } catch {
    throw refuse('its location is no URL')
  }
  if (to.protocol !== 'https:' && to.protocol !== 'http:') throw refuse(`it leads to ${to.protocol}`)
  if (to.protocol === 'http:' && from.protocol === 'https:') throw refuse(`it leads from HTTPS to HTTP at ${to.host}`)
  if (to.username !== '' || to.password !== '') throw refuse('it holds credentials')
  // a host that is there itself, because settings name it, may lead to another path
  if (isOffLimits(to.hostname) && to.host !== from.host) {
    throw refuse(`it leads to the link-local or metadata address ${to.hostname}`)
  }
  to.hash = ''
  return to
}

/**
 * The Referer of a request that `from` led to `to`, as storage that is protected from hotlinks wants it (RFC 9110 10.1.3): without query
 * and user, which may hold what gives access, and none from HTTPS to HTTP.
 */
export function refererOf(from: URL, to: URL): string | undefined {
  if (from.protocol === 'https:' && to.protocol !== 'https:') return undefined
  return from.origin + from.pathname
}

/**
 * Milliseconds that a signed URL says it will last, undefined when it says nothing. Absolute times are taken relative to `now`,
 * which is the server's clock where it told it. Amazon, Google: X-…-Expires with X-…-Date; Azure: se; CloudFront: Expires.
 */
export function lifetimeMs(url: URL, now: number): number | undefined {
  const query = url.searchParams
  for (const vendor of ['X-Amz', 'X-Goog']) {
    const seconds = Number(query.get(`${vendor}-Expires`) ?? Number.NaN)
    if (!Number.isFinite(seconds)) continue
    const stamp = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(query.get(`${vendor}-Date`) ?? '')
    const [, year, month, day, hour, minute, second] = stamp ?? []
    const signed = stamp ? Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`) : now
    return signed + seconds * 1000 - now
  }
  const until = query.get('se')
  if (until !== null && !Number.isNaN(Date.parse(until))) return Date.parse(until) - now
  const expires = query.get('Expires')
  if (expires !== null && /^\d{9,11}$/.test(expires)) return Number(expires) * 1000 - now
  return undefined
}
