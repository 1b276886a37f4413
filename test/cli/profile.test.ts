import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { type Invocation, parseCommandLine } from '../../src/cli/flags.ts'
import { profile } from '../../src/cli/profile.ts'
import { digestOf } from '../../src/image/digest.ts'
import { Store } from '../../src/store/store.ts'
import { flock } from '../store/flock.ts'
import { folder } from '../store/folder.ts'

const IMAGE = 'registry.example.com/app:1'
const digest = (of: string) => digestOf(new TextEncoder().encode(of))
const FILES = [
  { layer: digest('layer'), path: 'usr/bin/\u001b[31mred\u009b31m\u202eder', ranges: [{ start: 0, end: 4096 }] },
]

/** What a terminal obeys. */
const steering = (text: string) => ['\u001b', '\u009b', '\u202e'].filter((each) => text.includes(each))

/** Runs the command on a cache. @returns what it printed */
async function run(cache: string, ...args: string[]): Promise<string> {
  const printed: string[] = []
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed.push(typeof text === 'string' ? text : new TextDecoder().decode(text))
    return true
  })
  onTestFinished(() => spy.mockRestore())
  try {
    expect(await profile(parseCommandLine(['profile', ...args, '--cache', cache]) as Invocation)).toBe(0)
  } finally {
    spy.mockRestore()
  }
  return printed.join('')
}

/** A cache in which another version of the image was started. */
async function started(): Promise<string> {
  const cache = await folder()
  const store = await Store.open(cache, flock, () => {})
  const of = { repository: 'registry.example.com/app', platform: 'linux/amd64', manifest: digest('manifest') }
  await store.profiles.keep(of, 'start', { files: FILES, stored: [] })
  await store.close()
  return cache
}

test('what is known of another version is shown, with nothing that a terminal obeys', async () => {
  const shown = await run(await started(), 'show', '--platform', 'linux/amd64', IMAGE)
  expect(shown).toContain(digest('manifest'))
  expect(shown).toContain('0-4096')
  expect(steering(shown)).toEqual([])
  expect(shown).toContain('red\\x9b31m\\u202eder')
})

test('JSON of it says the same, and steers no terminal either', async () => {
  const shown = await run(await started(), 'show', '--platform', 'linux/amd64', '--format', 'json', IMAGE)
  expect(steering(shown)).toEqual([])
  expect(JSON.parse(shown)).toMatchObject({ profile: { files: FILES } })
})

test('what was exported is what is shown, and forgetting takes all versions', async () => {
  const cache = await started()
  const exported = JSON.parse(await run(cache, 'export', '--platform', 'linux/amd64', IMAGE))
  expect(exported).toMatchObject({ version: 1, layers: [digest('layer')], folders: ['usr/bin'] })
  await run(cache, 'forget', '--platform', 'linux/amd64', IMAGE)
  expect(JSON.parse(await run(cache, 'ls', '--format', 'json'))).toEqual([])
  await expect(run(cache, 'show', '--platform', 'linux/amd64', IMAGE)).rejects.toMatchObject({ code: 'missing' })
})

describe('refused is', () => {
  const check = (title: string, args: string[], code: string) =>
    test(title, async () => {
      const cache = await started()
      const file = join(await folder(), 'profile.json')
      await writeFile(file, '{"version": 1}')
      await expect(run(cache, ...args.map((each) => (each === 'FILE' ? file : each)))).rejects.toMatchObject({ code })
    })
  check('what is no operation', ['learn', IMAGE], 'usage')
  check('an operation on an image without one', ['show'], 'usage')
  check('a list of one image', ['ls', IMAGE], 'usage')
  check('an import of nothing', ['import', IMAGE], 'usage')
  check('a file that is asked for and not written', ['show', IMAGE, 'FILE'], 'usage')
  check('an import of what is no profile', ['import', IMAGE, 'FILE'], 'corrupt')
  check('a push to a layout', ['push', 'oci:dir:tag'], 'usage')
})
