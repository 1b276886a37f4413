// Agents that die with their mounts in use: the keeper starts the next, which goes on, and programs notice nothing.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { Random } from '../soak/random.ts'
import { type Agent, startAgent } from './agent.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { verifyingReader } from './verifying-reader.ts'

const TIMEOUT_MS = 300_000
/** SIGKILLs of each kind of mount; more of them: npm run soak. */
const KILLS = Number(process.env.LAZYLAYER_KILLS ?? 5)

suite('an agent that dies', lacking(['fusermount3']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let plain: string
  let agent: Agent | undefined
  const at = (...path: string[]) => join(work.path, ...path)

  beforeAll(async () => {
    work = await makeWorkDirectory()
    plain = at('plain')
    const bytes = new Random(1)
    const layers = []
    for (const layer of ['one', 'two']) {
      const entries = [{ path: layer, type: 'dir' as const }]
      await mkdir(join(plain, layer), { recursive: true })
      const files = []
      for (let i = 0; i < 24; i++) {
        const content = Buffer.from(Array.from({ length: i % 4 === 0 ? 700_000 : 9_000 }, () => bytes.below(256)))
        await writeFile(join(plain, layer, `f${i}`), content)
        files.push({ path: `${layer}/f${i}`, type: 'file' as const, content })
      }
      layers.push({ kind: 'estargz' as const, entries: [...entries, ...files] })
    }
    await writeImage({ dir: at('layout'), tag: 'image', layers })
    registry = await serveLayout(at('layout'), work.path)
  }, TIMEOUT_MS)
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  const start = async (dir: string, ...args: string[]) => {
    await mkdir(dir, { recursive: true })
    agent = await startAgent(work.path, dir, [
      ...args,
      '--cert-dir',
      registry.certDir,
      '--cache',
      at(`cache-${args.length}`),
    ])
    return agent
  }

  /** Kills agents until as many as that were followed by another. */
  async function killAgents(running: Agent, kills: number): Promise<number[]> {
    const pids: number[] = []
    let { pid } = running
    for (let i = 0; i < kills; i++) {
      pids.push(pid)
      process.kill(pid, 'SIGKILL')
      await expect
        .poll(
          () =>
            running.status().then(
              (status) => status.pid,
              () => pid,
            ),
          { timeout: TIMEOUT_MS, interval: 20 },
        )
        .not.toBe(pid)
      ;({ pid } = await running.status())
    }
    return [...pids, pid]
  }

  for (const rung of ['erofs', 'fuse'] as const) {
    test(`programs that read an image go on (${rung})`, { timeout: TIMEOUT_MS + KILLS * 5_000 }, async () => {
      const dir = at(`mount-${rung}`)
      const running = await start(dir, 'mount', `${registry.host}/image:image`, dir, '--mount', rung)
      const hidden = (await readdir(at('run'))).filter((name) => name.endsWith('.devices'))
      const devices = hidden.map((name) => at('run', name, '.devices'))
      const also = await Promise.all(devices.map(async (each) => (await readdir(each)).map((name) => join(each, name))))
      const before = await mountsBelow(work.path)
      const reader = await verifyingReader(dir, plain, also.flat())
      const pids = await killAgents(running, KILLS)
      const found = await reader.end()
      console.log(`${rung}: ${KILLS} kills, ${JSON.stringify(found)}`)
      expect(found).toMatchObject({ wrong: 0, errors: [] })
      expect(found.reads).toBeGreaterThan(KILLS)
      expect(new Set(pids).size).toBe(KILLS + 1)
      // the very mounts of before
      expect(await mountsBelow(work.path)).toEqual(before)
      expect(await running.stop()).toBe(0)
      expect(await mountsBelow(dir)).toEqual([])
      expect(await readFile(join(plain, 'one/f0'))).toHaveLength(700_000)
    })
  }
})
