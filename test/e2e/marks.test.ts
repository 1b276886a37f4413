// What is deleted stays deleted, in overlays of the machine's root and in those of a user namespace; and nobody sees how.
import { chmod, mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { SERVE_RUNGS } from '../../src/mount/ladder.ts'
import { inUserNamespace } from '../../src/mount/user-namespace.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { type Agent, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { expectUnion, type Stage, setStage } from './stage.ts'

const TIMEOUT_MS = 120_000
/** Of a path: names that are listed, and the values of both marks. */
const MARKS = `
import errno, os, sys
def value(name):
    try: return os.getxattr(sys.argv[1], name).decode()
    except OSError as error: return errno.errorcode[error.errno]
print([each for each in os.listxattr(sys.argv[1]) if '.overlay.' in each], value('trusted.overlay.opaque'), value('user.overlay.opaque'))
`

suite('marks of deletion', lacking(['mount', 'umount', 'unshare', 'nsenter', 'setpriv']), () => {
  let stage: Stage
  let agent: Agent | undefined

  beforeAll(async () => {
    stage = await setStage()
  })
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(() => stage?.close())

  const layers = () => join(stage.root, 'layers', Buffer.from(stage.reference).toString('base64'))
  const diffs = () => stage.image.layers.map(({ digest }) => join(layers(), digest, 'diff'))
  const flags = (rung: string) => [
    ...['--mount', rung, '--diffid', 'claimed', '--cert-dir', stage.registry.certDir],
    ...['--cache', join(stage.work.path, 'cache')], // one for all: what is kept is the same
  ]

  for (const rung of SERVE_RUNGS) {
    test(`are trusted. ones for the machine's root, and no container sees them (${rung})`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      agent = await startAgent(stage.work.path, stage.root, ['serve', stage.root, ...flags(rung)])
      for (const each of diffs()) await succeed('cat', [join(each, '../info')])
      const links = join(stage.work.path, `links-${rung}`)
      await mkdir(links)
      for (const [i, each] of diffs().entries()) await succeed('ln', ['-s', each, join(links, `${i}`)])
      await using union = await stage.overlay(['2', '1', '0'], links)
      await expectUnion(union.path)
      const marks = async (at: string) => (await succeed(PYTHON, ['-c', MARKS, at])).trim()
      expect(await marks(join(union.path, 'opaque'))).toBe('[] ENODATA ENODATA')
      expect(await marks(join(diffs()[1] as string, 'opaque'))).toBe("['trusted.overlay.opaque'] y ENODATA")
    })

    test(`keep their layer from whoever would not see them, in a store that others reach (${rung})`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      agent = await startAgent(stage.work.path, stage.root, [
        ...['serve', stage.root, '--store-mode', '0755'],
        ...flags(rung),
      ])
      await chmod(stage.work.path, 0o755)
      for (const each of diffs()) await succeed('cat', [join(each, '../info')])
      const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', '--', 'ls']
      const [base = '', marked = '', top = ''] = diffs()
      for (const each of [base, top]) await succeed('setpriv', [...nobody, each])
      for (const each of [marked, join(marked, 'opaque'), join(marked, '../info')]) {
        expect(await command('setpriv', [...nobody, each])).toMatchObject({
          code: 2,
          stderr: expect.stringContaining('Permission denied'),
        })
      }
      expect(await readdir(join(marked, 'opaque'))).toEqual(['new'])
    })
  }

  test('are user. ones in a user namespace, listed to nobody', { timeout: TIMEOUT_MS }, async () => {
    const through = ['unshare', '--user', '--map-root-user', '--mount', '--']
    agent = await startAgent(stage.work.path, stage.root, ['serve', stage.root, ...flags('fuse')], {
      through,
      env: { ...process.env, RUNTIME_DIRECTORY: `${stage.work.path}/run` },
      sockets: `${stage.work.path}/run`,
    })
    const inside = ['nsenter', '-t', `${agent.pid}`, '--user', '--mount', '--preserve-credentials', '--', 'sh', '-euc']
    const home = join(stage.work.path, 'rootless')
    for (const each of ['upper', 'work', 'merged']) await mkdir(join(home, each), { recursive: true })
    const script = `
      cd ${home}
      i=0; for each in "$@"; do cat "$each/../info" >/dev/null; ln -s "$each" $i; i=$((i + 1)); done
      mount -t overlay overlay -o userxattr,lowerdir=2:1:0,upperdir=upper,workdir=work merged
      cat merged/dir/file
      test ! -e merged/gone && ls merged/opaque
      ${PYTHON} -c '${MARKS.replaceAll("'", '"')}' merged/opaque
      ${PYTHON} -c '${MARKS.replaceAll("'", '"')}' 1/opaque`
    const [nsenter = '', ...rest] = inside
    const said = await succeed(nsenter, [...rest, script, 'sh', ...diffs()])
    expect(said.trim().split('\n')).toEqual(['top', 'new', '[] ENODATA ENODATA', '[] ENODATA y'])
    expect(await readdir(join(home, 'upper'))).toEqual([])
  })

  test('go by the namespace itself, not by its map of IDs, which any may have whole', async () => {
    expect(inUserNamespace()).toBe(false)
    const module = new URL('../../src/mount/user-namespace.ts', import.meta.url).href
    const script = `import { readFileSync } from 'node:fs'
import { inUserNamespace } from '${module}'
console.log(inUserNamespace(), readFileSync('/proc/self/uid_map', 'utf8').trim().split(/ +/).join(' '))`
    const inWhole = `
      unshare --user sleep 60 & holder=$!
      while [ "$(readlink /proc/$holder/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do :; done
      for each in uid_map gid_map; do echo 0 0 4294967295 >/proc/$holder/$each; done
      nsenter -t $holder --user -- "$@"
      kill $holder`
    const said = await succeed('sh', ['-ec', inWhole, 'sh', process.execPath, '--input-type=module', '-e', script])
    expect(said.trim()).toBe('true 0 0 4294967295')
    expect(inUserNamespace('/nonexistent')).toBe(false)
  })
})
