// Two users of one agent's cache, each with a repository and a login of their own: what one fetched is not the other's for knowing its digests.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { layoutShelf } from '../../src/build/registry.ts'
import { startRegistry } from '../fake/registry.ts'
import { lazylayer } from './agent.ts'
import { makeWorkDirectory } from './engines/work-directory.ts'

const TEXT = 'the text of a private file\n'.repeat(1000)

test('a manifest that lists another’s layers shows none of their files, nor does another’s reference with a login of one’s own', {
  timeout: 300_000,
}, async () => {
  const work = await makeWorkDirectory()
  onTestFinished(() => work.remove())
  const layout = join(work.path, 'layout')
  const entries = [{ path: 'private', type: 'file' as const, content: Buffer.from(TEXT) }]
  await writeImage({ dir: layout, tag: 'v1', layers: [{ kind: 'estargz', entries }] })
  const all = layoutShelf(layout)
  let copied = false
  const registry = await startRegistry({
    auth: {
      scheme: 'bearer',
      users: new Map([
        ['ada', 'a'],
        ['eve', 'e'],
      ]),
    },
    shelf: {
      manifest: (repository, version) => all.manifest(repository, version),
      // eve pushed the manifest, and has none of its blobs but the config
      blob: async (repository, digest) => {
        const found = await all.blob(repository, digest)
        return repository === 'eve/app' && !copied && (found?.size ?? 0) > 500 ? undefined : found
      },
    },
  })
  let isOpen = true
  const close = async () => {
    if (isOpen) await registry.close()
    isOpen = false
  }
  onTestFinished(close)
  const certs = join(work.path, 'certs')
  await mkdir(certs)
  await writeFile(join(certs, 'ca.crt'), registry.cert)
  const cat = (name: string, login: string) =>
    lazylayer(
      work.path,
      ...['cat', `${registry.host}/${name}`, 'private', '--creds', login],
      ...['--cert-dir', certs, '--cache', join(work.path, 'cache')],
    )
  const blobs = () => registry.seen.filter(({ kind, status }) => kind === 'blob' && status < 300).length

  expect(await cat('ada/app:v1', 'ada:a')).toMatchObject({ code: 0, stdout: TEXT })
  const before = blobs()
  expect(await cat('ada/app:v1', 'ada:a')).toMatchObject({ code: 0, stdout: TEXT })
  expect(blobs()).toBe(before)

  const refused = expect.stringContaining(`is not shown to ${registry.host}/eve/app`)
  expect(await cat('eve/app:v1', 'eve:e')).toMatchObject({ code: 1, stdout: '', stderr: refused })
  const { digest } = (await all.manifest('', 'v1')) as { digest: string }
  expect(await cat(`ada/app@${digest}`, 'eve:wrong')).toMatchObject({ code: 1, stdout: '' })
  // her login is good, and the registry lets her have the layer
  copied = true
  expect(await cat('eve/app:v1', 'eve:e')).toMatchObject({ code: 0, stdout: TEXT })

  await close()
  for (const [name, login] of [
    ['ada/app', 'ada:a'],
    ['eve/app', 'eve:e'],
  ] as const) {
    expect(await cat(`${name}@${digest}`, login)).toMatchObject({ code: 0, stdout: TEXT })
  }
  expect(await cat(`ada/app@${digest}`, 'eve:e')).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringContaining(`is not shown to ${registry.host}/ada/app`),
  })
})
