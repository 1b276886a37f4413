// Scripted faults of a registry: what is done to its answers and connections.
import type { Http2ServerResponse } from 'node:http2'
import { setTimeout as pause } from 'node:timers/promises'
import {
  answer,
  type RegistryAnswer,
  type RegistryRequest,
  type RegistryResponse,
  refusal,
  type Shelf,
} from '../../src/build/registry.ts'
import type { Seen } from './registry.ts'

/** What goes wrong, with which requests. All that is named happens. */
export interface Fault {
  /** Of the path with its query. */
  match: RegExp
  /** Only the n-th (from 1), or those up to `until`. Default: each. */
  nth?: number
  until?: number
  delayMs?: number
  /** The answer waits for it. */
  held?: Promise<unknown>
  bytesPerSecond?: number
  /** The body ends there: the connection (HTTP/1.1) or the stream (HTTP/2) is reset. */
  cutAfter?: number
  /** The body ends there as if that were all of it. */
  endAfter?: number
  /** No byte follows. */
  stallAfter?: number
  /** The byte there is another one. */
  flipAt?: number
  /** So many bytes more than announced (Content-Length is left out). */
  extra?: number
  status?: number
  /** '' removes a header. */
  headers?: Record<string, string>
  redirect?: string
  ignoreRange?: true
  /** Before the answer: the connection is destroyed. */
  reset?: true
  /** Sends GOAWAY for this request's session: refusing it, or after so many bytes of it. */
  goaway?: 'refuse' | number
  /** Its error code (RFC 9113 7); with `refuse` alone. Default: none. */
  goawayCode?: number
  /** Over HTTP/2 the answer is a stream's reset with this code (RFC 9113 7), or ends by it at `cutAfter`. */
  rst?: number
  /** Only what is asked over this protocol. */
  over?: 'h1' | 'h2'
}

/** Faults of status and headers. */
export async function tampered(
  reply: RegistryAnswer,
  fault: Partial<Fault>,
  entry: Seen,
  shelf: Shelf,
): Promise<RegistryAnswer> {
  let { status, headers, body } = reply
  if (fault.ignoreRange) {
    const whole = await answer(shelf, entry.method, entry.path, () => undefined)
    ;({ status, headers, body } = whole)
  }
  if (fault.status !== undefined) {
    status = fault.status
    if (status >= 300) ({ headers, body } = refusal(status, 'FAULT', 'as scripted'))
  }
  if (fault.redirect !== undefined && reply.status !== 401) {
    status = fault.status ?? 307
    headers = { location: fault.redirect, 'content-length': '0' }
    body = (async function* () {})()
  }
  const all: Record<string, string> = { ...headers, ...fault.headers }
  const short = fault.endAfter !== undefined || fault.extra !== undefined
  const kept = Object.entries(all).filter(([name, value]) => value !== '' && !(short && name === 'content-length'))
  return { status, headers: Object.fromEntries(kept), body }
}

/** Faults of the body. */
export async function* paced(
  body: AsyncIterable<Uint8Array>,
  fault: Partial<Fault>,
  entry: Seen,
  leave: () => void,
): AsyncGenerator<Uint8Array> {
  const end = Math.min(fault.cutAfter ?? Infinity, fault.endAfter ?? Infinity, fault.stallAfter ?? Infinity)
  const goaway = typeof fault.goaway === 'number' ? fault.goaway : Infinity
  const rate = fault.bytesPerSecond
  for await (const whole of body) {
    // slow bodies come in small pieces
    const step = rate === undefined ? whole.length : Math.max(1, Math.ceil(rate / 20))
    for (let from = 0; from < whole.length; from += step) {
      let bytes = Uint8Array.from(whole.subarray(from, from + step))
      const flip = (fault.flipAt ?? -1) - entry.sent
      if (flip >= 0 && flip < bytes.length) bytes[flip] = (bytes[flip] ?? 0) ^ 0xff
      if (entry.sent + bytes.length > end) bytes = bytes.subarray(0, end - entry.sent)
      if (bytes.length > 0) yield bytes
      if (entry.sent < goaway && entry.sent + bytes.length >= goaway) leave()
      entry.sent += bytes.length
      if (rate !== undefined) await pause((bytes.length / rate) * 1000)
      if (entry.sent < end) continue
      if (fault.endAfter !== undefined) return
      if (fault.stallAfter !== undefined) await pause(60_000, undefined, { ref: false })
      throw new Error('cut')
    }
  }
  if (fault.extra !== undefined) yield new Uint8Array(fault.extra)
}

/** GOAWAY for the request's session, or the end of its connection. */
export function goAway(request: RegistryRequest, fault: Partial<Fault>, refuse: boolean): void {
  const stream = 'stream' in request ? request.stream : undefined
  const session = stream?.session
  if (fault.goaway === undefined || stream === undefined || session === undefined) {
    if (session) session.destroy()
    else request.socket.destroy()
    return
  }
  // RFC 9113 6.8: streams above the last one were not and will not be processed
  session.goaway(fault.goawayCode ?? 0, refuse ? Math.max(0, (stream.id ?? 1) - 2) : (stream.id ?? 0))
  if (refuse) setTimeout(() => session.destroy(), 50).unref()
}

/** Resets the stream (HTTP/2; default: INTERNAL_ERROR) or ends the connection (HTTP/1.1). */
export function reset(response: RegistryResponse, code = 2): void {
  const stream = (response as Http2ServerResponse).stream
  if (stream !== undefined && typeof stream.close === 'function') stream.close(code)
  else response.socket?.destroySoon() // what was sent before arrives
}
