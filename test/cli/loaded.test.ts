// What a command has to load before it does anything: most of the time of those that only ask an agent.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

/** The files of packages that were loaded with a command's file. */
async function packagesOf(command: string): Promise<string[]> {
  const file = new URL(`../../src/cli/${command}.ts`, import.meta.url)
  const script = `
import { createRequire } from 'node:module'
await import(${JSON.stringify(file)})
console.log(JSON.stringify(Object.keys(createRequire(${JSON.stringify(file)}).cache)))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
  return (JSON.parse(stdout) as string[]).filter((path) => path.includes('/node_modules/'))
}

test.each(['main', 'status', 'umount', 'pull'])(
  '%s loads no HTTP client, no pool of workers and no parser',
  async (command) => {
    expect(await packagesOf(command)).toEqual([])
  },
)

test('what speaks to registries does', async () => {
  expect(await packagesOf('inspect')).toContainEqual(expect.stringContaining('/undici/'))
})

test('mount asks for its image before it has loaded what opens one', async () => {
  expect(await packagesOf('mount')).not.toContainEqual(expect.stringContaining('/piscina/'))
  expect(await packagesOf('mount-image')).toContainEqual(expect.stringContaining('/piscina/'))
})
