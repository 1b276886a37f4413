import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CODECS_WASM, loadCodecs } from '../../src/codec/wasm.ts'

test('the committed module needs nothing from outside and cannot take more than 256 MiB', () => {
  // an import that is missing would throw here
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(CODECS_WASM)))
  const memory = exports.memory as WebAssembly.Memory & { grow(pages: number): number }
  const pages = (256 * 2 ** 20 - memory.buffer.byteLength) / 65_536
  expect(() => memory.grow(pages + 1)).toThrow(RangeError)
  memory.grow(pages)
  expect(memory.buffer.byteLength).toBe(256 * 2 ** 20)
})

test('a module that is missing, is none, or lacks what we call is refused when it is loaded', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'wasm-'))
  const url = new URL(`file://${dir}/codecs.wasm`)
  await expect(loadCodecs(url)).rejects.toThrow(/ENOENT/)
  writeFileSync(url, 'no module')
  await expect(loadCodecs(url)).rejects.toThrow()
  writeFileSync(url, Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0))
  await expect(loadCodecs(url)).rejects.toThrow()
  rmSync(dir, { recursive: true })
})

describe('build.sh --changed', () => {
  const repository = mkdtempSync(join(tmpdir(), 'wasm-'))
  const script = join(repository, 'wasm', 'build.sh')
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@localhost', '-c', 'commit.gpgsign=false', ...args], {
      cwd: repository,
      stdio: 'pipe',
    })
  const changed = (...args: string[]) => spawnSync('sh', [script, '--changed', ...args], { cwd: '/' }).status === 0

  beforeAll(() => {
    mkdirSync(join(repository, 'wasm'))
    copyFileSync(fileURLToPath(new URL('../../wasm/build.sh', import.meta.url)), script)
    for (const file of ['codecs.c', 'README.md']) writeFileSync(join(repository, 'wasm', file), 'a\n')
    git('init', '-q')
    git('add', '.')
    git('commit', '-qm', 'first')
  })
  afterAll(() => rmSync(repository, { recursive: true }))

  test('says yes after a change of a source, no after one of the page or of another folder', () => {
    expect(changed('HEAD')).toBe(false)
    writeFileSync(join(repository, 'other'), '')
    appendFileSync(join(repository, 'wasm', 'README.md'), 'b\n')
    git('add', '.')
    git('commit', '-qm', 'second')
    expect(changed()).toBe(false)
    appendFileSync(join(repository, 'wasm', 'codecs.c'), 'b\n')
    expect(changed('HEAD')).toBe(true)
    git('commit', '-qam', 'third')
    expect(changed()).toBe(true)
    expect(changed('HEAD')).toBe(false)
  })

  test('says yes when there is nothing to compare with', () => {
    expect(changed('0123456789012345678901234567890123456789')).toBe(true)
  })
})
