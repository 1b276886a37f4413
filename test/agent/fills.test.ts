import { setImmediate } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { fills } from '../../src/agent/fills.ts'
import { Failure } from '../../src/errors.ts'
import type { FilledImage } from '../../src/snapshotter/fill.ts'

const FILLED: FilledImage = {
  namespace: 'default',
  name: 'registry.example.com/app:1',
  layers: 1,
  written: 1,
  bytes: 2,
}
const ask = { op: 'fill', image: 'registry.example.com/app:1' } as const

function door() {
  const asked: unknown[] = []
  const messages: string[] = []
  let running = Promise.withResolvers<FilledImage[]>()
  const answer = fills({
    door: {
      fill(...of) {
        asked.push(of)
        running = Promise.withResolvers()
        return running.promise
      },
    },
    progress: () => 0,
    patience: { stallMs: 0, totalMs: 60_000 },
    log: (message) => messages.push(message),
  })
  return { answer, asked, messages, running: () => running }
}

test('an image that takes long is filled once, however often it is asked for', async () => {
  const { answer, asked, running } = door()
  for (let i = 0; i < 2; i++) expect(await answer(ask)).toMatchObject({ ok: false, late: true })
  expect(asked).toEqual([[['registry.example.com/app:1'], undefined]])
  const last = answer(ask)
  running().resolve([FILLED])
  expect(await last).toEqual({ ok: true, filled: [FILLED] })
})

test('who was told that it takes long gets what came of it, once', async () => {
  const { answer, asked, running } = door()
  expect(await answer(ask)).toMatchObject({ late: true })
  running().resolve([FILLED])
  await setImmediate() // it ends while nobody waits for it
  expect(await answer(ask)).toEqual({ ok: true, filled: [FILLED] })
  expect(asked).toHaveLength(1)
  expect(await answer(ask)).toMatchObject({ late: true })
  expect(asked).toHaveLength(2)
  running().reject(Failure.unavailable('containerd ended'))
  await setImmediate()
  expect(await answer(ask)).toMatchObject({ ok: false, code: 'unavailable', late: false })
  expect(asked).toHaveLength(2)
})

test('a failure is told, and nobody is to ask again for it', async () => {
  const { answer, messages, running } = door()
  const asking = answer({ ...ask, namespace: 'moby' })
  running().reject(Failure.missing('containerd has no such image'))
  expect(await asking).toMatchObject({ ok: false, code: 'missing', late: false })
  expect(messages).toEqual([expect.stringContaining('no such image')])
})

test('a short name is looked for in full, too, and where no containerd is served that is said', async () => {
  const { answer, asked } = door()
  await answer({ op: 'fill', image: 'nginx' })
  expect(asked).toEqual([[['docker.io/library/nginx:latest', 'nginx'], undefined]])
  const without = fills({ door: undefined, progress: () => 0, patience: { stallMs: 0, totalMs: 1 }, log: () => {} })
  expect(await without(ask)).toMatchObject({ ok: false, fix: expect.stringContaining('--containerd') })
})
