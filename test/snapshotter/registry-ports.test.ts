import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { RegistryPorts } from '../../src/snapshotter/registry-ports.ts'

let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ports-'))
})
afterEach(() => rm(dir, { recursive: true }))

const hosts = async (...folders: string[]) => {
  for (const each of folders) await mkdir(join(dir, each))
  return new RegistryPorts(dir)
}

test.each([
  ['nothing is known', [], 'r.example.com'],
  ['a folder names it with a port', ['r.example.com:5000', 'other.example.com:6000'], 'r.example.com:5000'],
  ['one does so in the other way', ['r.example.com_5000_', '_default'], 'r.example.com:5000'],
  ['one names it without a port as well', ['r.example.com', 'r.example.com:5000'], 'r.example.com'],
  ['two ports are named', ['r.example.com:5000', 'r.example.com:6000'], 'r.example.com'],
  ['it is another host', ['xr.example.com:5000', 'r.example.com.x:5000'], 'r.example.com'],
])('where %s', async (_, folders, expected) => {
  expect(await (await hosts(...folders)).hostOf('r.example.com', 'team/app')).toBe(expected)
})

test('what was asked for last counts, for its repository', async () => {
  const ports = await hosts('r.example.com:5000')
  for (const host of ['r.example.com', 'r.example.com:7000']) ports.note({ host, repository: 'team/app' })
  ports.note({ host: 'r.example.com', repository: 'plain' })
  expect(await ports.hostOf('r.example.com', 'team/app')).toBe('r.example.com:7000')
  expect(await ports.hostOf('r.example.com', 'plain')).toBe('r.example.com')
  expect(await ports.hostOf('r.example.com', 'other')).toBe('r.example.com:5000')
})

test('a folder that is not there names none', async () => {
  expect(await new RegistryPorts(join(dir, 'missing')).hostOf('r.example.com', 'a')).toBe('r.example.com')
})
