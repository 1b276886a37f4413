// In a network where metadata services of clouds really listen, none is connected to on anybody's word but registries.conf's.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { succeed } from './engines/command.ts'
import { lacking, program } from './engines/needs.ts'
import { suite } from './engines/suite.ts'

const FIXTURE = fileURLToPath(new URL('../fixtures/metadata.ts', import.meta.url))
const SCRIPT = `ip link set lo up
for address in 169.254.169.254/32 100.100.100.200/32 fd00:ec2::254/128; do ip addr add "$address" dev lo nodad; done
mount --bind "$1" /etc/hosts
exec "$2" "$3"`

suite('metadata services', lacking(['unshare', 'ip', 'mount']), () => {
  test('are connected to for no image, name, redirect or token service', { timeout: 120_000 }, async () => {
    const dir = await mkdtemp(join(tmpdir(), 'lazylayer-metadata-'))
    try {
      const hosts = join(dir, 'hosts')
      await writeFile(hosts, '127.0.0.1 localhost\n169.254.169.254 metadata.example.com\n')
      const args = ['--net', '--mount', 'sh', '-ec', SCRIPT, 'sh', hosts, process.execPath, FIXTURE]
      expect(JSON.parse(await succeed(program('unshare'), args))).toEqual({
        others: { codes: ['denied'], asked: 30, connections: 0 },
        named: { code: expect.stringMatching(/^(unavailable|timeout)$/), connected: true },
      })
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  })
})
