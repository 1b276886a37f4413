// What monitoring asks of a store's agent: health while it serves, and the numbers of status as metrics.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { type Stage, setStage } from './stage.ts'

suite('an agent that is monitored', lacking(['fusermount3', 'mount']), () => {
  let stage: Stage

  beforeEach(async () => {
    stage = await setStage()
  })
  afterEach(() => stage.close())

  test('is ready, and counts what programs read and what they wait for', async () => {
    const { root, reference, image } = stage
    const agent = await stage.serve('cache', '--metrics', '127.0.0.1:0')
    const [, address] = /metrics are at (http:\/\/127\.0\.0\.1:\d+)\/metrics/.exec(agent.log()) ?? []
    const get = async (path: string) => {
      const answer = await fetch(`${address}${path}`)
      return [answer.status, await answer.text()] as const
    }
    expect(await get('/healthz')).toEqual([200, 'serving\n'])
    expect(await get('/readyz')).toEqual([200, 'ready\n'])
    const name = Buffer.from(reference).toString('base64')
    const layer = join(root, 'layers', name, image.layers[0]?.annotations[TOC_DIGEST] ?? '', 'diff')
    expect(await readFile(join(layer, '../info'), 'utf8')).toContain('{')
    expect(await readFile(join(layer, 'program'), 'utf8')).toBe('base\n')
    const { counters, metrics } = await agent.status()
    expect(`http://${metrics?.address}`).toBe(address)
    const [status, text] = await get('/metrics')
    const sample = (of: string) =>
      Number(
        text
          .split('\n')
          .find((line) => line.startsWith(`${of} `))
          ?.slice(of.length),
      )
    expect(status).toBe(200)
    expect(sample('lazylayer_fetched_bytes_total')).toBe(counters.bytes_fetched)
    expect(sample('lazylayer_reads_waited_total')).toBeGreaterThan(0)
    expect(sample('lazylayer_read_wait_seconds_count')).toBe(sample('lazylayer_reads_waited_total'))
    expect(sample('lazylayer_read_wait_seconds_sum')).toBeGreaterThan(0)
    expect(sample('lazylayer_reads_waiting')).toBe(0)
    expect(sample('lazylayer_registry_answer_seconds_count{kind="blob",code="2xx"}')).toBeGreaterThan(0)
    expect(text).toMatch(/^lazylayer_info\{version="[\d.]+",mount="(erofs|fuse)"\} 1$/m)
    expect(text).not.toContain('sha256') // nobody learns from it what runs
    await agent.stop()
    await expect(get('/healthz')).rejects.toThrow()
  }, 60_000)
})
