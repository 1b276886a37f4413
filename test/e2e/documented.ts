// The commands of ours that README and docs show, as somebody types them who has installed the package.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { COMMANDS } from '../../src/cli/flags.ts'

/** A command line of a page. */
export interface Documented {
  page: string
  /** Without `sudo`, comment and path. */
  line: string
  /** Whether the page has root run it. */
  sudo: boolean
  /** Of `lazylayer`. */
  argv: readonly string[]
  /** What runs it: `podman unshare`, or nothing. */
  through: readonly string[]
}

const FENCED = /^ *```(\w*)\n([\s\S]*?)^ *```$/gm
const INLINE = /`([^`]+)`/g
/** `sudo`, what it is run through, and perhaps its directory. */
const OURS = /^(sudo )?(podman unshare )?(?:npx )?(?:\/usr\/bin\/)?lazylayer( .*)?$/

/** What stands in README.md and docs/ as a command line, each once; `lazylayer NAME` alone is a name where NAME takes arguments. */
export async function documented(root: string): Promise<Documented[]> {
  const pages = ['README.md', ...(await readdir(join(root, 'docs'))).map((name) => `docs/${name}`)]
  const found = new Map<string, Documented>()
  for (const page of pages.sort()) {
    const text = await readFile(join(root, page), 'utf8')
    for (const line of linesOf(text)) {
      const each = parse(page, line)
      if (each !== undefined) found.set(`${each.sudo} ${each.line}`, each)
    }
  }
  return [...found.values()]
}

function* linesOf(text: string): Generator<string> {
  for (const [, , block] of text.matchAll(FENCED)) {
    for (const line of (block as string).replaceAll(/\\\n\s*/g, '').split('\n')) {
      const command = line.replace(/^ExecStart(?:Post)?=/, '').replace(/\s#.*$/, '')
      yield* command.split('&&').map((part) => part.trim())
    }
  }
  for (const [, code] of text.replaceAll(FENCED, '').matchAll(INLINE)) {
    yield* (code as string).split('&&').map((part) => part.replaceAll(/\s+/g, ' ').trim())
  }
}

function parse(page: string, text: string): Documented | undefined {
  const match = OURS.exec(text)
  if (match === null) return undefined
  const [, sudo, through, rest = ''] = match
  const argv = rest.trim().split(' ').filter(Boolean)
  if (isName(argv)) return undefined
  const line = ['lazylayer', ...argv].join(' ')
  return {
    page,
    line: `${through ?? ''}${line}`,
    sudo: sudo !== undefined,
    argv,
    through: (through ?? '').split(' ').filter(Boolean),
  }
}

/** Of the product, or of a command that takes arguments: nobody types it so. */
function isName(argv: readonly string[]): boolean {
  const [name] = argv
  if (name === undefined) return true
  const command = COMMANDS.find((each) => each.name === name)
  const required = command?.arguments.filter((each) => !each.startsWith('[')).length ?? 0
  const flags = argv.filter((each) => each.startsWith('-'))
  return argv.length - flags.length - 1 < required && required > 0
}
