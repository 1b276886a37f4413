import { expect, test } from 'vitest'
import { COMMANDS, type Invocation, parseCommandLine } from '../../src/cli/flags.ts'
import { Failure } from '../../src/errors.ts'

function parse(...argv: string[]): Invocation {
  const found = parseCommandLine(argv)
  if ('help' in found) throw new Error(`help: ${found.help}`)
  return found
}

function help(...argv: string[]): string {
  const found = parseCommandLine(argv)
  if ('help' in found) return found.help
  throw new Error('a command')
}

test('flags may stand before, between and behind what they belong to', () => {
  for (const argv of [
    ['mount', '--cache', '/c', '-d', 'image', '/mnt'],
    ['mount', 'image', '--cache=/c', '/mnt', '--detach'],
  ]) {
    const { command, positionals, values } = parse(...argv)
    expect({ name: command.name, positionals, ...values }).toEqual({
      name: 'mount',
      positionals: ['image', '/mnt'],
      cache: '/c',
      detach: true,
    })
  }
})

test('what begins with a dash is an argument behind --', () => {
  expect(parse('umount', '--', '-d').positionals).toEqual(['-d'])
})

test('optional arguments may be left out', () => {
  expect(parse('serve').positionals).toEqual([])
  expect(parse('serve', '/root').positionals).toEqual(['/root'])
  expect(parse('ls', 'image').positionals).toEqual(['image'])
})

test.each([
  [['mount', 'image'], 'lazylayer mount takes IMAGE DIR'],
  [['mount', 'image', '/mnt', 'more'], 'lazylayer mount takes IMAGE DIR'],
  [['umount'], 'lazylayer umount takes DIR'],
  [['status', 'a', 'b'], 'lazylayer status takes [DIR]'],
  [['mount', '--nope', 'image', '/mnt'], 'lazylayer mount: bad arguments'],
  [['umount', '--cache', '/c', '/mnt'], 'lazylayer umount: bad arguments'],
  [['mount', 'image', '/mnt', '--cache'], 'lazylayer mount: bad arguments'],
  [['mount', 'image', '/mnt', '--detach=yes'], 'lazylayer mount: bad arguments'],
  [['mount', 'image', '/mnt', '--cache='], '--cache is empty'],
  [['serve', '--diffid', 'all'], '--diffid "all" is not known'],
  [['status', '--format', 'yaml'], '--format "yaml" is not known'],
  [['mount', 'image', '/mnt', '--mount', 'nfs'], '--mount "nfs" is not known'],
  [['serve', '--creds', 'ada:secret'], 'serve takes no --creds'],
  [['serve', '/root', '--creds=ada:secret'], 'serve takes no --creds'],
  [['serve', '--creds-file='], '--creds-file is empty'],
  [['mount', 'image', '/mnt', '--creds-file', 'f'], 'lazylayer mount: bad arguments'],
  [['cache'], 'lazylayer cache takes ls|du|prune|verify|pin|unpin [IMAGE]'],
  [['status', '--cache-max', '1G'], 'lazylayer status: bad arguments'],
  [['nope'], 'there is no command "nope"'],
  [['constructor'], 'there is no command "constructor"'],
  [['--cache', '/c'], 'there is no command "--cache"'],
])('%j is refused, with what to do', (argv, message) => {
  let error: unknown
  try {
    parseCommandLine(argv)
  } catch (thrown) {
    error = thrown
  }
  expect(error).toBeInstanceOf(Failure)
  expect(error).toMatchObject({ code: 'usage', message, fix: expect.stringMatching(/\.$/) })
})

test.each([
  ['pull', 'registry.example.com/app:1'],
  ['explain', 'registry.example.com/app:1'],
  ['setup', 'podman'],
])('%s %s ROOT is told how a store is named', (...argv) => {
  expect(() => parse(...argv, '/srv/store')).toThrow(
    expect.objectContaining({
      code: 'usage',
      fix: `A store is named by --root: --root /srv/store. See lazylayer ${argv[0]} --help.`,
    }),
  )
})

test('a password belongs to one image; a store takes a file of them, by host', () => {
  const commands = (flag: string) =>
    COMMANDS.filter(({ flags }) => flags.some(({ name }) => name === flag)).map(({ name }) => name)
  expect(commands('creds')).toEqual(['mount', 'pull', 'inspect', 'explain', 'ls', 'cat', 'profile', 'doctor'])
  expect(commands('creds-file')).toEqual(['serve'])
  expect(() => parse('serve', '--creds', 'ada:secret')).toThrow(
    expect.objectContaining({ fix: expect.stringContaining('--creds-file FILE') }),
  )
})

test.each([[[]], [['--help']], [['-h']], [['help']]])('%j shows all commands with their arguments', (argv) => {
  const text = help(...argv)
  for (const { name, arguments: of, help: what } of COMMANDS) {
    expect(text).toContain(`  ${[name, ...of].join(' ')} `)
    expect(text).toContain(what)
  }
})

test.each(COMMANDS.map((each) => [each.name, each] as const))(
  '%s --help shows every flag it takes',
  (name, command) => {
    for (const text of [help(name, '--help'), help(name, '-h')]) {
      expect(text).toMatch(new RegExp(`^usage: lazylayer ${name}`))
      const lines = text.split('\n')
      for (const { name: flag, value, short, help: what } of command.flags) {
        const left = `${short === undefined ? '    ' : `-${short}, `}--${flag}${value === undefined ? '' : ` ${value}`}`
        expect(lines.filter((line) => line.startsWith(`  ${left} `) && line.endsWith(what))).toHaveLength(1)
      }
    }
  },
)

test('names of commands, flags and letters are each given once', () => {
  const names = COMMANDS.map((each) => each.name)
  expect(new Set(names).size).toBe(names.length)
  for (const { flags } of COMMANDS) {
    const all = flags.flatMap(({ name, short }) => (short === undefined ? [name] : [name, short]))
    expect(new Set([...all, 'help', 'h']).size).toBe(all.length + 2)
  }
})
