// A real forward proxy of a test's own: Debian's tinyproxy, which takes a name that nobody else knows for this machine.
import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { program } from './needs.ts'
import { answers, end, freePort, start } from './registry.ts'

export interface TinyProxy {
  /** `127.0.0.1:PORT` */
  readonly host: string
  /** `METHOD target` of each request that it took up, in their order. */
  log(): Promise<string[]>
  stop(): Promise<void>
}

export const PROXY_PROGRAMS = ['tinyproxy', 'unshare', 'mount', 'setpriv'] as const

/**
 * Needs `PROXY_PROGRAMS` and root, for a hosts file of its own.
 * @param name what it resolves to 127.0.0.1
 * @param login `user:password` that it wants
 */
export async function startTinyProxy(dir: string, name: string, login: string): Promise<TinyProxy> {
  const path = await mkdtemp(join(dir, 'proxy-'))
  const [user, password] = login.split(':')
  const port = await freePort()
  const log = join(path, 'log')
  await writeFile(join(path, 'hosts'), `127.0.0.1 ${name}\n`)
  await writeFile(
    join(path, 'conf'),
    `Port ${port}
Listen 127.0.0.1
Timeout 60
MaxClients 100
LogFile "${log}"
LogLevel Connect
BasicAuth ${user} ${password}
`,
  )
  const script = `mount --bind "$1/hosts" /etc/hosts && exec "$2" -d -c "$1/conf"`
  const args = ['--mount', 'sh', '-c', script, 'sh', path, program('tinyproxy')]
  const proxy = await start(program('unshare'), args, () => answers(port))
  return {
    host: `127.0.0.1:${port}`,
    async log() {
      const lines = (await readFile(log, 'utf8')).split('\n')
      return lines.flatMap((line) => /Request \(file descriptor \d+\): (\S+ \S+)/.exec(line)?.[1] ?? [])
    },
    stop: () => end(proxy),
  }
}
