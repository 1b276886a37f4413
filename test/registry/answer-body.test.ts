// How a body is handed on to whoever reads it.
import { PassThrough } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { LIMITS } from '../../src/registry/limits.ts'
import { type AnswerBody, Pulse, Watch } from '../../src/registry/pulse.ts'

let source: PassThrough
let watch: Watch
let body: AnswerBody
let came: number

beforeEach(() => {
  source = new PassThrough()
  const pulse = new Pulse(LIMITS)
  watch = new Watch('registry.example.com', LIMITS, pulse, pulse.stream(), () => {})
  came = 0
  body = watch.through(source, (bytes) => {
    came += bytes
  })
})
afterEach(() => {
  watch.close()
  source.destroy()
})

test('it ends when all of it was handed on', async () => {
  const parts: string[] = []
  const read = body((bytes) => {
    parts.push(Buffer.from(bytes).toString())
    return undefined
  })
  source.write('one')
  await turn()
  source.end('two')
  await read
  expect(parts.join('')).toBe('onetwo')
  expect(came).toBe(6)
})

test('nothing more comes while the reader takes his time', async () => {
  const goOn = Promise.withResolvers<void>()
  let parts = 0
  const read = body(() => (parts++ === 0 ? goOn.promise : undefined))
  source.write('one')
  await turn()
  source.write('two')
  source.end()
  for (let i = 0; i < 5; i++) await turn()
  expect(parts).toBe(1)
  goOn.resolve()
  await read
  expect(came).toBe(6)
})

test('a reader who has enough is handed nothing more', async () => {
  let parts = 0
  source.write('one')
  const read = body(() => {
    parts++
    return false
  })
  await read
  source.write('two')
  await turn()
  expect(parts).toBe(1)
})

test.each([
  [
    'at once',
    () => {
      throw new Error('wrong')
    },
  ],
  ['later', () => Promise.reject(new Error('wrong'))],
])('what a reader finds wrong %s ends it', async (_, take) => {
  source.write('one')
  await expect(body(take)).rejects.toThrow('wrong')
  expect(source.listenerCount('data')).toBe(0)
})

test('one that breaks off while the reader takes his time fails when he has taken it', async () => {
  source.on('error', () => {})
  const goOn = Promise.withResolvers<void>()
  let failed: unknown
  const read = body(() => goOn.promise).catch((error: unknown) => {
    failed = error
  })
  source.write('one')
  await turn()
  source.destroy(new Error('reset'))
  for (let i = 0; i < 5; i++) await turn()
  expect(failed).toBeUndefined()
  goOn.resolve()
  await read
  expect(failed).toMatchObject({ message: 'reset' })
})

test('one that ends without its end fails', async () => {
  const read = body(() => undefined)
  source.write('one')
  await turn()
  source.destroy()
  await expect(read).rejects.toThrow('Premature close')
})
