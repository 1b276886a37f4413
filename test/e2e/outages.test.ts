// What programs see of a registry that goes away: with the limits of the product, so most of this is waiting. All scenes wait together.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { RUNGS } from '../../src/mount/ladder.ts'
import { pattern } from '../fake/image.ts'
import { Outage } from '../fake/outage.ts'
import { startAgent } from './agent.ts'
import { command } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

/** A read bears 45 s of silence; the rest is for busy machines. */
const TIMEOUT_MS = 280_000
const FILES = 16
/** Far enough apart that none comes along with another. */
const FILE_BYTES = 1 << 20

suite('a registry that goes away', lacking(['umount', 'fusermount3', 'dd']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const entries = Array.from({ length: FILES }, (_, i) => ({
      path: `file${i}`,
      type: 'file' as const,
      content: pattern(FILE_BYTES, i + 1),
    }))
    await writeImage({ dir: layout, tag: 'image', layers: [{ kind: 'estargz', entries }] })
    registry = await serveLayout(layout, work.path)
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function mounted(name: string, rung: string) {
    const outage = await Outage.before(Number(registry.host.split(':')[1]))
    const dir = join(work.path, name)
    await mkdir(dir)
    const reach = ['--cert-dir', registry.certDir, '--cache', join(work.path, `${name}-cache`)]
    const agent = await startAgent(work.path, dir, [
      'mount',
      `${outage.host}/image:image`,
      dir,
      '--mount',
      rung,
      ...reach,
    ])
    /** The first page of a file: 'right', or what reading it fails with. */
    const read = async (i: number): Promise<string> => {
      const { code, stdout, stderr } = await command('sh', ['-c', `dd if=${dir}/file${i} bs=4096 count=1 | sha256sum`])
      if (stderr.includes('Input/output error')) return 'EIO'
      const wanted = await crypto.subtle.digest(
        'SHA-256',
        Uint8Array.from(pattern(FILE_BYTES, i + 1).subarray(0, 4096)),
      )
      return code === 0 && stdout.startsWith(Buffer.from(wanted).toString('hex'))
        ? 'right'
        : `${code} ${stdout}${stderr}`
    }
    return { outage, agent, read }
  }

  test.concurrent.each([...RUNGS])(
    'that is silent fails one read, then those that follow at once, until it speaks (%s)',
    async (rung) => {
      const { outage, agent, read } = await mounted(`silent-${rung}`, rung)
      await using _ = outage
      try {
        expect(await read(0)).toBe('right')
        outage.beSilent()
        expect(await read(3)).toBe('EIO')
        const before = await agent.status()
        expect(before.counters.outages).toBe(1)
        expect(before.outages).toEqual([expect.stringContaining(outage.host)])
        expect(await read(6)).toBe('EIO')
        expect(await read(9)).toBe('EIO')
        const after = await agent.status()
        expect(after.counters.reads_failed_at_once).toBeGreaterThanOrEqual(2)
        expect(after.counters).toMatchObject({ outages: 1, expired: 0 })
        expect(agent.log()).toContain(`${outage.host}: reads fail at once until it gives again`)
        outage.speak()
        let found = await read(12)
        while (found === 'EIO') {
          await pause(200)
          found = await read(12)
        }
        expect(found).toBe('right')
        // a failure is not remembered
        expect(await read(3)).toBe('right')
        expect((await agent.status()).outages).toEqual([])
      } finally {
        await agent.stop()
      }
    },
    TIMEOUT_MS,
  )

  test.concurrent.each([...RUNGS])(
    'for a few seconds fails no read (%s)',
    async (rung) => {
      const { outage, agent, read } = await mounted(`restarted-${rung}`, rung)
      await using _ = outage
      try {
        expect(await read(0)).toBe('right')
        await outage.refuse()
        const reading = [read(3), read(6)]
        await pause(5_000) // as long as a restart takes
        await outage.listenAgain()
        expect(await Promise.all(reading)).toEqual(['right', 'right'])
        expect((await agent.status()).counters).toMatchObject({ outages: 0, reads_failed: 0 })
      } finally {
        await agent.stop()
      }
    },
    TIMEOUT_MS,
  )
})
