// Commands as a user types them, those that need neither a mount nor the addon.
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import { SAMPLES } from '../format/samples.ts'
import { folder } from '../store/folder.ts'

const LAUNCHER = fileURLToPath(new URL('../../src/cli/lazylayer.js', import.meta.url))
const PLATFORM = { os: 'linux', architecture: 'amd64' }

interface Outcome {
  code: number
  stdout: string
  stderr: string
}

function shell(script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  return new Promise((done) => {
    const child = execFile('/bin/sh', ['-c', script, 'sh', process.execPath, LAUNCHER, ...args], {
      env: { PATH: process.env.PATH, HOME: '/nowhere', ...env },
    })
    const outcome = { stdout: '', stderr: '' }
    child.stdout?.on('data', (text) => {
      outcome.stdout += text
    })
    child.stderr?.on('data', (text) => {
      outcome.stderr += text
    })
    child.on('close', (code) => done({ code: code ?? -1, ...outcome }))
  })
}

const lazylayer = (args: readonly string[], env?: NodeJS.ProcessEnv) => shell('exec "$@"', args, env)

async function layout(): Promise<string> {
  const dir = await folder()
  const entries = [{ path: 'a', type: 'file' as const, content: new TextEncoder().encode('one') }]
  await writeImage({
    dir,
    tag: 'latest',
    layers: [
      { kind: 'estargz', entries },
      { kind: 'gzip', entries },
    ],
    platform: PLATFORM,
  })
  return dir
}

test('help and version go to stdout', async () => {
  expect(await lazylayer(['--help'])).toMatchObject({ code: 0, stdout: expect.stringContaining('usage: '), stderr: '' })
  expect(await lazylayer(['--version'])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) })
})

test('a wrong command line is exit code 2, in three lines at most', async () => {
  for (const args of [['nope'], ['inspect'], ['inspect', 'Not A Reference'], ['status', '--format', 'yaml']]) {
    const { code, stdout, stderr } = await lazylayer(args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^lazylayer: .*\n( {2}why: .*\n)?( {2}try: .*\n)$/)
  }
})

test('inspect says of each layer whether it is lazy, or why not', async () => {
  const dir = await layout()
  const { code, stdout } = await lazylayer(['inspect', `oci:${dir}:latest`, '--platform', 'linux/amd64'])
  expect(code).toBe(0)
  const lines = stdout.trimEnd().split('\n')
  expect(lines[0]).toBe(`oci:${dir}:latest`)
  expect(lines.slice(-3)).toEqual([
    expect.stringMatching(/^LAYER +SIZE +LAZY +FORMAT$/),
    expect.stringMatching(/^[0-9a-f]{12} +\d+ B +yes +estargz$/),
    expect.stringMatching(/^[0-9a-f]{12} +\d+ B +no +\(the manifest has no eStargz TOC digest/),
  ])
  const json = await lazylayer(['inspect', `oci:${dir}`, '--format', 'json', '--platform', 'linux/amd64'])
  expect(JSON.parse(json.stdout)).toMatchObject({
    platform: 'linux/amd64',
    layers: [
      { lazy: true, format: 'estargz', why: null, index: expect.stringMatching(/^sha256:/) },
      { lazy: false, format: null, index: null },
    ],
  })
})

test.skipIf(SAMPLES === undefined)(
  'inspect says which layer shows the tree of several, and of which version it is',
  async () => {
    const { code, stdout } = await lazylayer(['inspect', `oci:${SAMPLES}/samples/oci:nydus`])
    expect(code).toBe(0)
    expect(stdout.trimEnd().split('\n').slice(-3)).toEqual([
      expect.stringMatching(/^[0-9a-f]{12} .* yes +nydus RAFS v6 \(part of the tree of [0-9a-f]{12}\)$/),
      expect.stringMatching(/^[0-9a-f]{12} .* yes +nydus RAFS v6 \(part of the tree of [0-9a-f]{12}\)$/),
      expect.stringMatching(/^[0-9a-f]{12} .* yes +nydus RAFS v6 \(the tree of 3 layers\)$/),
    ])
    expect(stdout).not.toContain('eStargz')
    const json = await lazylayer(['inspect', `oci:${SAMPLES}/samples/oci:nydus`, '--format', 'json'])
    const { layers } = JSON.parse(json.stdout)
    for (const each of layers) {
      expect(each).toMatchObject({ format: 'nydus', version: 'RAFS v6', index: null, shownBy: layers[2].digest })
    }
  },
)

test('an image that is not there is exit code 1', async () => {
  const { code, stdout, stderr } = await lazylayer(['inspect', 'oci:/nowhere:latest'])
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^lazylayer: /)
})

test('what an image says of itself steers no terminal', async () => {
  const dir = await layout()
  await pretend(dir, '\u001b]0;owned\u0007')
  const { code, stdout } = await lazylayer(['inspect', `oci:${dir}:latest`])
  expect(code).toBe(0)
  expect(stdout).toContain('\\x1b]0;owned\\x07')
  expect(stdout).not.toContain('\u001b')
})

/** Has the image of a layout claim another processor. */
async function pretend(dir: string, architecture: string): Promise<void> {
  const read = async (path: string) => JSON.parse(await readFile(join(dir, path), 'utf8'))
  const index = await read('index.json')
  const blob = (digest: `sha256:${string}`) => `blobs/sha256/${hex(digest)}`
  const put = async (value: unknown) => {
    const bytes = new TextEncoder().encode(JSON.stringify(value))
    await writeFile(join(dir, blob(digestOf(bytes))), bytes)
    return { digest: digestOf(bytes), size: bytes.length }
  }
  const manifest = await read(blob(index.manifests[0].digest))
  const config = await read(blob(manifest.config.digest))
  Object.assign(manifest.config, await put({ ...config, architecture }))
  Object.assign(index.manifests[0], await put(manifest))
  await writeFile(join(dir, 'index.json'), JSON.stringify(index))
}

test('status without agents is an empty list', async () => {
  const env = { RUNTIME_DIRECTORY: await folder() }
  expect(await lazylayer(['status'], env)).toMatchObject({ code: 0, stdout: 'nothing is mounted\n' })
  expect(await lazylayer(['status', '--format', 'json'], env)).toMatchObject({ code: 0, stdout: '[]\n' })
  expect(await lazylayer(['status', '/nowhere'], env)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('no agent serves /nowhere'),
  })
})

test('a reader that leaves is no error', async () => {
  const { stderr } = await shell('"$@" | true', ['--help'])
  expect(stderr).toBe('')
})

test('what cannot be printed for want of space is an error', async () => {
  const { code, stderr } = await shell('"$@" > /dev/full', ['--help'])
  expect(code).toBe(1)
  expect(stderr).toMatch(/^lazylayer: ENOSPC.*\n$/)
})
