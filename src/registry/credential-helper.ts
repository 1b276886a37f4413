// Credential helpers, as Docker defined them: programs `docker-credential-NAME` that keep credentials.

import { execFile } from 'node:child_process'
import { isAbsolute } from 'node:path'
import { Failure } from '../errors.ts'
import type { Credentials } from './login.ts'
import type { Places } from './places.ts'

/** A helper may ask a hardware token or a cloud; nobody waits longer for it. */
const HELPER_DEADLINE_MS = 10_000
const HELPER_ANSWER_MAX_BYTES = 1 << 20

/**
 * Runs `docker-credential-NAME get` with the server on its input. No credentials there is no error.
 * @throws Failure usage (no such program), denied, timeout
 */
export async function askHelper(name: string, server: string, env: Places['env']): Promise<Credentials | undefined> {
  // a name with a slash would run any program
  if (!/^[\w.-]+$/.test(name) || isAbsolute(name))
    throw Failure.usage(`${JSON.stringify(name)} is no credential helper`)
  const program = `docker-credential-${name}`
  const answer = await new Promise<string | undefined>((resolve, reject) => {
    const options = {
      timeout: HELPER_DEADLINE_MS,
      killSignal: 'SIGKILL',
      maxBuffer: HELPER_ANSWER_MAX_BYTES,
      env,
    } as const
    const child = execFile(program, ['get'], options, (error, stdout) => {
      if (error === null) resolve(stdout)
      else if (stdout.includes('credentials not found')) resolve(undefined)
      else if (error.killed === true)
        reject(Failure.timeout(`${program} did not answer within ${HELPER_DEADLINE_MS} ms`))
      else if (error.code === 'ENOENT')
        reject(
          Failure.usage(`${program} is not installed`, { why: `it is named to keep the credentials for ${server}` }),
        )
      else
        reject(
          Failure.denied(`${program} failed with ${error.code ?? error.signal}`, {
            why: `no credentials for ${server}`,
          }),
        )
    })
    // a helper that does not read its input ends the pipe: its exit tells
    child.stdin?.on('error', () => {})
    child.stdin?.end(server)
  })
  if (answer === undefined) return undefined
  let raw: { Username?: unknown; Secret?: unknown } | null
  try {
    raw = JSON.parse(answer)
  } catch {
    throw Failure.denied(`${program} answered no JSON`)
  }
  const { Username: username, Secret: secret } = raw ?? {}
  if (typeof username !== 'string' || typeof secret !== 'string' || secret === '') return undefined
  return username === '<token>' ? { identityToken: secret } : { username, password: secret }
}
