// How long a program waits whose start is page faults in one large mapped file.
import { execFile } from 'node:child_process'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { lazylayerAgent, stargzAgent, withAgent } from '../agents.ts'
import type { Case, Sample } from '../case.ts'
import { type Served, serveTree } from '../image.ts'
import { BY_EROFS } from '../product.ts'
import { fullPull } from '../pull.ts'

const run = promisify(execFile)

const PULLED = 'full pull'
const READY = 'ready s'
const SAYS = 'served\n'
/** A server that asks itself once: what a service loads until it answers its first request. */
const PROGRAM = `
const http = require('node:http')
const server = http.createServer((_, response) => response.end('served\\n'))
server.listen(0, '127.0.0.1', () => http.get({ port: server.address().port, host: '127.0.0.1' }, (answer) => {
  answer.pipe(process.stdout)
  answer.on('end', () => server.close())
}))
`

export const mappedStart: Case = {
  name: 'mapped-start',
  explains: `Node (one program of some 120 MB, mapped, with the libraries of this machine that it is linked to) is started (chroot) from an eStargz image of one layer that does not say what
    a start needs, over the link of --link, and has its own web server answer once. "ready": from when the agent, which runs before, with an empty cache, is
    asked for the image, until the line. "full pull" fetches and unpacks all of it first. stargz-store: LAZYLAYER_STARGZ_STORE.`,
  rounds: 5,
  ratios: [
    { metric: READY, of: stargzAgent.name, over: BY_EROFS },
    { metric: READY, of: PULLED, over: BY_EROFS },
  ],
  async prepare({ dir, link, defer }) {
    const source = join(dir, 'tree')
    await writeNode(source)
    const image = await serveTree({ source, dir: join(dir, 'image'), link, defer })
    const measured = async (of: Served, show: () => Promise<string>): Promise<Sample> => {
      const begin = { at: performance.now(), ...of.counters() }
      const root = await show()
      // by a shell's exec: see probe.ts
      const { stdout } = await run('/bin/sh', ['-c', 'exec "$0" "$@"', 'chroot', root, '/bin/node', '/program.js'])
      if (stdout !== SAYS) throw new Error(`the program said ${stdout}`)
      const { requests, bytesDown } = of.counters()
      return {
        [READY]: (performance.now() - begin.at) / 1000,
        requests: requests - begin.requests,
        'MB down': (bytesDown - begin.bytesDown) / 1e6,
      }
    }
    return [
      { name: PULLED, open: async () => () => measured(image, () => fullPull(image, join(dir, 'pulled'))) },
      ...[stargzAgent, lazylayerAgent()].map((each) =>
        withAgent(
          each,
          dir,
          async () => image,
          (agent, of) => measured(of, async () => (await agent.show(of))[0] as string),
        ),
      ),
    ]
  },
}

/** This Node as /bin/node, and what ldd says that it needs, where it is. */
async function writeNode(dir: string): Promise<void> {
  const { stdout } = await run('ldd', [process.execPath])
  const libraries = stdout.match(/\/\S+/g) ?? []
  const files = [[process.execPath, '/bin/node'], ...libraries.map((each) => [each, each])] as [string, string][]
  for (const [from, to] of files) {
    await mkdir(join(dir, dirname(to)), { recursive: true })
    await copyFile(from, join(dir, to))
  }
  await writeFile(join(dir, 'program.js'), PROGRAM)
}
