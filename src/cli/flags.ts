// Commands and flags: one list drives parsing, --help and completion.
import { parseArgs } from 'node:util'
import { BACKGROUNDS } from '../agent/background.ts'
import type { Values } from '../agent/values.ts'
import { Failure } from '../errors.ts'
import { DIFF_ID_POLICIES } from '../stores/diff-id-policy.ts'

export interface Flag {
  name: string
  /** What the value is called in help, or `a|b`: one of these; a flag without one is a switch. */
  value?: string
  short?: string
  /** It may be given several times. */
  repeats?: true
  help: string
}

export interface Command {
  name: string
  /** Positional arguments as help shows them; `[X]` may be left out. */
  arguments: readonly string[]
  help: string
  flags: readonly Flag[]
}

const CACHE: Flag = {
  name: 'cache',
  value: 'DIR',
  help: 'directory of the chunk cache (default: /var/lib/lazylayer/cache; ~/.cache/lazylayer if not root)',
}
/** The cache of a command that fills it. */
const FILLED: readonly Flag[] = [
  CACHE,
  {
    name: 'cache-max',
    value: 'SIZE',
    help: 'what the cache may have: 20G, or a share of what it has and what is free (default: 80%)',
  },
  {
    name: 'cache-min-free',
    value: 'SIZE',
    help: 'what it leaves free of its disk (default: 20%; of a fuller disk it has half of what is left, up to 1 GiB)',
  },
]
const PLATFORM: Flag = {
  name: 'platform',
  value: 'OS/ARCH',
  help: 'image to choose from an index (default: this machine)',
}
const ROOT: Flag = { name: 'root', value: 'ROOT', help: 'the store (default: where serve has it)' }
const FORMAT: Flag = { name: 'format', value: 'json|text', help: 'how to print (default: text)' }
const CREDS: Flag = {
  name: 'creds',
  value: 'USER:PASSWORD',
  help: 'credentials for the host of IMAGE, and for no other (the process list shows them)',
}
/** For whatever hosts are asked. */
const HOSTS: readonly Flag[] = [
  {
    name: 'authfile',
    value: 'FILE',
    help: 'credentials file instead of the usual ones (default: where Podman keeps them)',
  },
  { name: 'tls-verify', value: 'BOOL', help: 'false accepts any certificate and plain HTTP' },
  { name: 'cert-dir', value: 'DIR', help: 'CA and client certificates for the registry' },
]
/** For one image. */
const REGISTRY: readonly Flag[] = [CREDS, ...HOSTS]
const MOUNT: Flag = {
  name: 'mount',
  value: 'auto|erofs|fuse|portable',
  help: 'erofs: in the kernel (root, Linux 6.12); fuse; portable: without the native part (default: the first that works)',
}
const SERVE: Flag = {
  name: 'mount',
  value: 'auto|erofs|fuse',
  help: 'erofs: metadata in the kernel (root, Linux 6.12); fuse: works everywhere (default: the highest that works)',
}
const REQUIRE_LAZY: Flag = {
  name: 'require-lazy',
  help: 'fail, with the reason and before anything of it is fetched, where a layer would have to be fetched whole',
}

const CONTEXT: Flag = {
  name: 'context',
  value: 'LABEL',
  help: 'SELinux label of everything in the mount (not yet tried with SELinux; please tell how it goes)',
}

/** Of commands that show images to programs. */
const BACKGROUND: readonly Flag[] = [
  {
    name: 'background',
    value: BACKGROUNDS.join('|'),
    help: 'idle: when a program reads of an image, the rest of it follows where the link has nothing else to do; full: as fast as a pull; off: for links that cost by the byte (default: idle)',
  },
  { name: 'background-max', value: 'RATE', help: 'bytes a second of that at most: 10M (default: as much as there is)' },
]

/** Of commands that run under the keeper. */
const KEEPER: readonly Flag[] = [
  {
    name: 'keeper-patience',
    value: 'SECONDS',
    help: 'how long programs wait for the next agent when this one dies; then they get I/O errors. 0: no other goes on with its mounts (default: 30)',
  },
  {
    name: 'on-exit',
    value: 'unmount|keep',
    help: 'what SIGTERM does: unmount; or keep the mount for the next start of the unit, where systemd stores descriptors, and programs wait (default: unmount)',
  },
]

/** Of serve and explain. */
const DIFFID: Flag = {
  name: 'diffid',
  value: DIFF_ID_POLICIES.join('|'),
  help: 'which DiffIDs that images claim are believed: none; those of signed images; those of which no other image says otherwise, until they are proven; all (default: proven; docs/security.md)',
}
const TRUST: Flag = {
  name: 'trust',
  value: 'PATTERN',
  repeats: true,
  help: 'with --diffid guarded or claimed: believe only images of these repositories, registry.example.com/team/*; may be given several times',
}

export const COMMANDS: readonly Command[] = [
  {
    name: 'mount',
    arguments: ['IMAGE', 'DIR'],
    help: 'mount the root filesystem of an image: lazily where its layers allow that, the others are fetched whole',
    flags: [
      { name: 'detach', short: 'd', help: 'return when mounted; `lazylayer umount DIR` ends it' },
      MOUNT,
      REQUIRE_LAZY,
      CONTEXT,
      ...KEEPER,
      ...BACKGROUND,
      ...FILLED,
      PLATFORM,
      ...REGISTRY,
    ],
  },
  {
    name: 'upgrade',
    arguments: ['[DIR]'],
    help: 'have the version that is installed by now go on with a mount or a store (default: where serve has it); programs wait for a moment, and notice nothing',
    flags: [],
  },
  { name: 'umount', arguments: ['DIR'], help: 'end a mount, or a store', flags: [] },
  {
    name: 'serve',
    arguments: ['[ROOT]'],
    help: 'serve layers to Podman and CRI-O (additional layer store at ROOT/layers, additional image store at ROOT/images)',
    flags: [
      DIFFID,
      TRUST,
      {
        name: 'diffid-only',
        help: 'name no layer by its index: for images of people who do not trust each other (docs/upstream-image-ids.md); what is not proven or believed is fetched whole first',
      },
      {
        name: 'containerd',
        value: '[NAME=]SOCKET',
        repeats: true,
        help: 'answer containerd there as a snapshotter, by this name (default: lazylayer, and stargz for BuildKit); one socket a containerd; may be given several times (docs/containerd.md)',
      },
      {
        name: 'containerd-address',
        value: 'SOCKET',
        repeats: true,
        help: "containerd's own socket, to see what it pulls; several in the order of --containerd (default: /run/containerd/containerd.sock)",
      },
      {
        name: 'cri-proxy',
        value: 'SOCKET',
        help: "answer kubelet there as its image service, by handing all on to the first containerd, to see the credentials that pods' images are pulled with (kubelet: imageServiceEndpoint)",
      },
      {
        name: 'metrics',
        value: '[ADDRESS:]PORT',
        help: 'answer /metrics for Prometheus, /healthz and /readyz there, over plain HTTP (ADDRESS: default 127.0.0.1; docs/metrics.md)',
      },
      {
        name: 'store-mode',
        value: 'MODE',
        help: 'who may look into the store, in octal: 0755 lets every local user read all images in it (default: 0700)',
      },
      SERVE,
      CONTEXT,
      ...KEEPER,
      ...BACKGROUND,
      ...FILLED,
      PLATFORM,
      {
        name: 'seal-credentials',
        help: 'keep what the auth helper hands over for the next start, encrypted (docs/operations.md says by which key)',
      },
      {
        name: 'creds-file',
        value: 'FILE',
        help: "credentials by host, in the form of Podman's auth.json, that are looked for before those of the usual files",
      },
      {
        name: 'image-credential-provider-config',
        value: 'FILE',
        help: "kubelet's configuration of credential providers: they are run where no file has credentials that are accepted (docs/containerd.md)",
      },
      {
        name: 'image-credential-provider-bin-dir',
        value: 'DIR',
        help: 'where the programs of these providers are',
      },
      ...HOSTS,
    ],
  },
  {
    name: 'pull',
    arguments: ['IMAGE'],
    help: 'have the running agent list the layers of an image for engines; plain ones it fetches whole for that',
    flags: [
      ROOT,
      {
        name: 'prove',
        help: 'have it fetch all layers whole and prove their DiffIDs, for Podman up to 5.0, and for starts without a network',
      },
      REQUIRE_LAZY,
      CREDS,
    ],
  },
  {
    name: 'fill',
    arguments: ['IMAGE'],
    help: "have the running agent bring the layers that containerd did not fetch into containerd's content store, for export, convert, and push to other registries",
    flags: [
      ROOT,
      { name: 'namespace', value: 'NAMESPACE', help: "containerd's (default: each that has the image lazily)" },
    ],
  },
  {
    name: 'inspect',
    arguments: ['IMAGE'],
    help: 'show the layers of an image, and which are lazy, or why not',
    flags: [FORMAT, PLATFORM, ...REGISTRY],
  },
  {
    name: 'explain',
    arguments: ['IMAGE'],
    help: 'show how engines get each layer: from which store, under what name, or why they pull it',
    flags: [
      {
        ...DIFFID,
        help: 'as it is given to serve (default: as the running agent has it, else proven); with signed, the signatures of the image are judged by policy.json',
      },
      { ...TRUST, help: 'as it is given to serve; may be given several times' },
      { name: 'diffid-only', help: 'as it is given to serve' },
      FORMAT,
      ROOT,
      { ...CACHE, help: 'cache to look into (default: that of the running agent, else where it would have one)' },
      PLATFORM,
      ...REGISTRY,
    ],
  },
  {
    name: 'ls',
    arguments: ['IMAGE', '[PATH]'],
    help: 'list files of an image without mounting it',
    flags: [
      { name: 'recursive', short: 'R', help: 'list directories below, too' },
      REQUIRE_LAZY,
      ...FILLED,
      PLATFORM,
      ...REGISTRY,
    ],
  },
  {
    name: 'cat',
    arguments: ['IMAGE', 'PATH'],
    help: 'print a file of an image, fetching only its chunks',
    flags: [REQUIRE_LAZY, ...FILLED, PLATFORM, ...REGISTRY],
  },
  { name: 'status', arguments: ['[DIR]'], help: 'show running mounts and stores, or the one at DIR', flags: [FORMAT] },
  {
    name: 'cache',
    arguments: ['ls|du|prune|verify|pin|unpin', '[IMAGE]'],
    help: 'show what the cache holds, drop what nobody uses, hash all of it, or have an image keep what there is of it',
    flags: [
      CACHE,
      { name: 'to', value: 'SIZE', help: 'prune: what may stay, 5G or 50% (default: only what is in use or pinned)' },
      FORMAT,
      PLATFORM,
    ],
  },
  {
    name: 'profile',
    arguments: ['ls|show|export|import|forget|push', '[IMAGE]', '[FILE]'],
    help: 'show what starts of images were seen to read, which comes first in their next cold start; push lets all nodes know',
    flags: [CACHE, FORMAT, PLATFORM, ...REGISTRY],
  },
  {
    name: 'setup',
    arguments: ['podman|crio|containerd|buildkit|nerdctl|k3s'],
    help: 'have an engine look into the stores, or ask the snapshotter: edits its configuration, keeping everything else of it',
    flags: [
      ROOT,
      { name: 'dry-run', help: 'show the changes as a diff, and make none' },
      { name: 'undo', help: 'take out what setup put in' },
    ],
  },
  {
    name: 'doctor',
    arguments: ['[IMAGE]'],
    help: 'look at kernel, FUSE, cache, engines, configuration, mounts, and the registries of IMAGE, and say what to do',
    flags: [ROOT, CACHE, FORMAT, PLATFORM, ...REGISTRY],
  },
]

/** A store asks whatever registry somebody names, so that a password without a host could be had by any of them. */
const NO_CREDS = Failure.usage('serve takes no --creds', {
  why: 'credentials belong to a host, and a store asks many',
  fix: "Write them into a file of auth.json's form (podman login --authfile FILE HOST does), and name that with --creds-file FILE.",
})

const HELP: Flag = { name: 'help', short: 'h', help: 'show this help' }

export interface Invocation {
  command: Command
  positionals: readonly string[]
  values: Values
}

/** What to run, or the help text to print. @throws Failure usage */
export function parseCommandLine(argv: readonly string[]): Invocation | { help: string } {
  const [name, ...rest] = argv
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') return { help: overview() }
  const command = COMMANDS.find((each) => each.name === name)
  if (command === undefined) {
    throw Failure.usage(`there is no command ${JSON.stringify(name)}`, {
      fix: `Use one of ${COMMANDS.map((each) => each.name).join(', ')}.`,
    })
  }
  const flags = [...command.flags, HELP]
  let parsed: ReturnType<typeof parseArgs>
  try {
    parsed = parseArgs({
      args: [...rest],
      allowPositionals: true,
      options: Object.fromEntries(
        flags.map(({ name, value, short, repeats }) => {
          const type = value === undefined ? ('boolean' as const) : ('string' as const)
          return [name, { type, ...(short === undefined ? {} : { short }), multiple: repeats === true }]
        }),
      ),
    })
  } catch (cause) {
    if (name === 'serve' && rest.some((each) => /^--creds(=|$)/.test(each))) throw NO_CREDS
    throw Failure.usage(`lazylayer ${name}: bad arguments`, { cause, fix: `See lazylayer ${name} --help.` })
  }
  const values = parsed.values as Invocation['values']
  if (values.help === true) return { help: helpFor(command) }
  for (const flag of command.flags) checkValue(flag, values[flag.name])
  const required = command.arguments.filter((each) => !each.startsWith('[')).length
  if (parsed.positionals.length < required || parsed.positionals.length > command.arguments.length) {
    const extra = parsed.positionals[command.arguments.length]
    const named =
      extra !== undefined && command.flags.includes(ROOT) ? `A store is named by --root: --root ${extra}. ` : ''
    throw Failure.usage(`lazylayer ${name} takes ${command.arguments.join(' ') || 'no arguments'}`, {
      why: `${parsed.positionals.length} were given`,
      fix: `${named}See lazylayer ${name} --help.`,
    })
  }
  return { command, positionals: parsed.positionals, values }
}

/** @throws Failure usage: nothing at all, or none of `a|b` */
function checkValue({ name, value }: Flag, given: Values[string]): void {
  if (given === '' || (typeof given === 'object' && given.includes('')))
    throw Failure.usage(`--${name} is empty`, { fix: `Write --${name} ${value}, or leave it out.` })
  const choices = value?.includes('|') ? value.split('|') : undefined
  if (choices === undefined || typeof given !== 'string' || choices.includes(given)) return
  throw Failure.usage(`--${name} ${JSON.stringify(given)} is not known`, { fix: `Use one of ${choices.join(', ')}.` })
}

function overview(): string {
  const width = Math.max(...COMMANDS.map((each) => usage(each).length))
  return [
    'lazylayer mounts container images at once and fetches each chunk when a program first reads it.',
    '',
    'usage: lazylayer COMMAND …',
    '',
    ...COMMANDS.map((each) => `  ${usage(each).padEnd(width)}  ${each.help}`),
    '',
    'IMAGE is docker://HOST/REPOSITORY:TAG, the same without docker://, or oci:DIR[:TAG].',
    'lazylayer COMMAND --help shows the flags of a command; lazylayer --version the version.',
  ].join('\n')
}

function helpFor(command: Command): string {
  const rows = [...command.flags, HELP].map((flag) => {
    const short = flag.short === undefined ? '    ' : `-${flag.short}, `
    return [`${short}--${flag.name}${flag.value === undefined ? '' : ` ${flag.value}`}`, flag.help] as const
  })
  const width = Math.max(...rows.map(([left]) => left.length))
  return [
    `usage: lazylayer ${usage(command)}`,
    '',
    `${command.help}`,
    '',
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
  ].join('\n')
}

function usage(command: Command): string {
  return [command.name, ...command.arguments].join(' ')
}
