// Bodies that are read as a whole: documents, signatures, tokens.
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { Failure } from '../errors.ts'
import type { Answer } from './client.ts'

const LABEL_MAX_LENGTH = 40

/** What an answer calls its encoding; undefined: nothing. We ask for none. */
export function contentEncoding(answer: Answer): string | undefined {
  const labels = (answer.header('content-encoding') ?? '').toLowerCase().split(',')
  const real = labels.map((each) => each.trim()).filter((each) => each !== '' && each !== 'identity')
  return real.length === 0 ? undefined : JSON.stringify(real.join(', ').slice(0, LABEL_MAX_LENGTH))
}

/**
 * A body that is no larger than `max` bytes. Bytes that are called gzip, and are, come as what they hold, as engines have it.
 * @throws Failure limit, corrupt
 */
export async function readAll(answer: Answer, max: number, what: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  const announced = Number(answer.header('content-length') ?? 0)
  if (announced > max) throw Failure.limit(`${what} has ${announced} bytes, at most ${max} are read`)
  await answer.body((bytes) => {
    size += bytes.length
    if (size > max) throw Failure.limit(`${what} has more than ${max} bytes`)
    parts.push(bytes)
    return undefined
  })
  const bytes = Buffer.concat(parts)
  const gzipped = contentEncoding(answer)?.includes('gzip') && bytes[0] === 0x1f && bytes[1] === 0x8b
  return new Uint8Array(gzipped ? await inflated(bytes, max, what) : bytes)
}

async function inflated(bytes: Uint8Array, max: number, what: string): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: max })
  } catch (cause) {
    if (cause instanceof RangeError) throw Failure.limit(`${what} has more than ${max} bytes`)
    throw Failure.corrupt(`${what} is called gzip, and cannot be inflated`, { cause })
  }
}
