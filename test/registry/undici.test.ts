import { expect, test } from 'vitest'
import { Agent, makeConnector, Pool } from '../../src/registry/undici.ts'

test('what is loaded of undici is what its own entry has', async () => {
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(Object.getPrototypeOf(Agent.prototype)))
  const undici = await import('undici')
  expect(Agent).toBe(undici.Agent)
  expect(Pool).toBe(undici.Pool)
  expect(makeConnector).toBe(undici.buildConnector)
  expect(methods).toEqual(Object.getOwnPropertyNames(undici.Dispatcher.prototype))
  expect(methods).toContain('request')
})
