// The key that seals credentials on disk. It lies outside of the cache, so that a copy of the cache opens nothing.
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { mkdir, open, realpath } from 'node:fs/promises'
import { join, sep } from 'node:path'
import { Failure } from '../errors.ts'
import { isAbsent } from '../registry/file.ts'
import { SECRET_MIN_BYTES } from '../registry/sealed.ts'
import { claimFile } from '../store/durable.ts'

/** What systemd calls it: LoadCredentialEncrypted=lazylayer-key:FILE. */
const CREDENTIAL = 'lazylayer-key'
const FILE = 'credentials.key'
/** Nobody's key is longer; it may be text. */
const SECRET_MAX_BYTES = 4096

/**
 * systemd's credential where the service has one, else the file of `state`, which is made at its first use.
 * @param state a directory of this user, outside of the cache
 * @throws Failure usage (a key that others may read, that is too short, or that lies in the cache), system
 */
export async function sealKey(env: NodeJS.ProcessEnv, state: string, cache: string): Promise<Uint8Array> {
  if (env.CREDENTIALS_DIRECTORY) {
    const path = join(env.CREDENTIALS_DIRECTORY, CREDENTIAL)
    // systemd has seen to who may read it, with access lists that modes do not show
    const given = await readKey(path, false)
    if (given !== undefined) return given
  }
  await mkdir(state, { recursive: true, mode: 0o700 })
  if (await isWithin(state, cache)) {
    throw Failure.usage(`the key that seals credentials would lie in the cache, ${cache}`, {
      why: 'whoever copies the cache would have it',
      fix: 'Name a cache that is not above it with --cache DIR.',
    })
  }
  const path = join(state, FILE)
  const found = await readKey(path, true)
  if (found !== undefined) return found
  await claimFile(state, path, randomBytes(SECRET_MIN_BYTES)).catch((cause) => {
    throw Failure.system(`cannot make ${path}`, {
      cause,
      fix: `Check that ${state} belongs to this user and is writable.`,
    })
  })
  const made = await readKey(path, true) // whoever made it
  if (made === undefined) throw Failure.system(`${path} was removed while it was made`)
  return made
}

async function readKey(path: string, own: boolean): Promise<Uint8Array | undefined> {
  try {
    // neither a FIFO nor a device may keep us waiting
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const { mode, size } = await file.stat()
      const isFile = (mode & constants.S_IFMT) === constants.S_IFREG
      if (!isFile || size < SECRET_MIN_BYTES || size > SECRET_MAX_BYTES) {
        throw Failure.usage(`${path} is no key`, {
          why: `it is ${isFile ? `${size} bytes long, not ${SECRET_MIN_BYTES} to ${SECRET_MAX_BYTES}` : 'no regular file'}`,
          fix: `Make one with: head -c ${SECRET_MIN_BYTES} /dev/urandom`,
        })
      }
      if (own && (mode & 0o077) !== 0) {
        throw Failure.usage(`${path} is open to other users`, {
          why: 'they could read the credentials that it seals',
          fix: `Run chmod 600 ${path}, or remove it: then another is made, and credentials are asked for again.`,
        })
      }
      return await file.readFile()
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (isAbsent(cause)) return undefined
    if (cause instanceof Failure) throw cause
    throw Failure.system(`cannot read ${path}`, { cause })
  }
}

/** Whether `path`, which is there, is `dir` or below it; a `dir` that is not there has nothing below it. */
async function isWithin(path: string, dir: string): Promise<boolean> {
  const real = await realpath(dir).catch(() => undefined)
  if (real === undefined) return false
  const own = await realpath(path)
  return own === real || own.startsWith(real.endsWith(sep) ? real : `${real}${sep}`)
}
