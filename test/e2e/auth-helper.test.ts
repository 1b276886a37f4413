// The auth helper as a plain user's engine runs it: as root of a user namespace, which is not root.
import { chmod, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { command } from './engines/command.ts'
import { lacking, program } from './engines/needs.ts'
import { suite } from './engines/suite.ts'

const HELPER = fileURLToPath(new URL('../../src/cli/auth-helper.js', import.meta.url))

suite('the auth helper', lacking(['setpriv', 'unshare']), () => {
  for (const namespace of [[], ['unshare', '--user', '--map-root-user']]) {
    test(`finds a plain user's agent ${namespace.length > 0 ? 'from a user namespace' : 'as that user'}`, async () => {
      const dir = await mkdtemp(join(tmpdir(), 'lazy-'))
      onTestFinished(() => rm(dir, { recursive: true }))
      await chmod(dir, 0o755)
      await mkdir(join(dir, 'lazylayer/store'), { recursive: true })
      await symlink(join(dir, 'socket'), join(dir, 'lazylayer/store/agent.sock'))
      const asked = new Promise<string>((done) => {
        const server = createServer((connection) => {
          connection.once('data', (text) => {
            done(text.toString())
            connection.end()
            server.close()
          })
        })
        server.listen({ path: join(dir, 'socket'), writableAll: true })
      })
      const input = '{"r.example/app:1": {"username": "", "password": "", "identityToken": ""}}'
      const line = `echo '${input}' | ${process.execPath} ${HELPER}`
      const user = ['--reuid', '12345', '--regid', '12345', '--clear-groups']
      const outcome = await command(program('setpriv'), [...user, ...namespace, 'sh', '-c', line], {
        env: { PATH: process.env.PATH, HOME: '/nowhere', XDG_DATA_HOME: dir },
      })
      expect(outcome).toEqual({ code: 0, stdout: '', stderr: '' })
      expect(JSON.parse(await asked)).toMatchObject({ op: 'list', reference: 'r.example/app:1' })
    })
  }
})
