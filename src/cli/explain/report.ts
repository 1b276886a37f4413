// What `explain` prints.
import { printable } from '../../agent/log.ts'
import type { DiffIds } from '../../agent/socket.ts'
import type { SilentEngine } from '../../engines/here.ts'
import { type Engine, ERAS, type Era } from '../../engines/versions.ts'
import type { Digest } from '../../image/digest.ts'
import { formatText, shortDigest, sizeText, table } from '../output.ts'
import type { ClientWay } from './clients.ts'
import type { LayerWay, Ways } from './layer.ts'

export interface Report {
  reference: string
  digest: Digest
  platform: string
  /** Of a store on this machine; null: none works. */
  rung: string | null
  /** Why not a higher one. */
  why: string | null
  engines: readonly { engine: Engine; version: string; era: Era }[]
  /** Installed, but of no known version. */
  silent: readonly SilentEngine[]
  /** What was given to `serve`, and why it does not believe this image's DiffIDs; null: it does. */
  diffid: DiffIds & { why: string | null }
  /** What of the table does not hold on this machine, and what engines do not do with the image. */
  notes: readonly string[]
  layers: readonly ReportedLayer[]
  /** What each client does with the image. */
  clients: readonly ClientWay[]
}

export interface ReportedLayer {
  digest: Digest
  size: number
  format: string | null
  /** Of the format, as its image claims it; null: it claims none. */
  version: string | null
  /** Null where every engine pulls it, or no rung works. */
  rung: string | null
  ways: Ways
}

const ERA_TEXT: Readonly<Record<Era, string>> = {
  layer: 'Podman ≤ 5.0',
  index: 'Podman 5.1–5.4',
  image: 'Podman ≥ 5.5',
}

const LEGEND = [
  'layers: found in the additional layer store; images: in the additional image store, once lazylayer pull or the auth helper',
  'has had it listed; pulled: by the engine itself, as a whole; fails: in no store, and the engine cannot pull it itself. In brackets',
  'is what the engine knows the layer by: the digest of its index, its DiffID that is proven, or one that is only believed (signed,',
  'guarded, claimed: docs/security.md). RUNG is what answers reads of it. With the image store alone, as lazylayer setup has it,',
  'Podman 5.2–5.4 does as 5.5 does.',
]

/** A line a layer, then why what is pulled is pulled and what to do, then what this machine has. */
export function reportText(of: Report): string {
  const rows = of.layers.map((each) => [
    shortDigest(each.digest),
    sizeText(each.size),
    each.format === null
      ? '-'
      : formatText({ format: each.format, ...(each.version === null ? {} : { version: each.version }) }),
    each.rung ?? '-',
    ...ERAS.map((era) => wayText(each.ways[era])),
  ])
  const head = ['LAYER', 'SIZE', 'FORMAT', 'RUNG', ...ERAS.map((era) => ERA_TEXT[era].toUpperCase())]
  const reasons = reasonsOf(of.layers)
  const engines = of.engines.map(({ engine, version, era }) => `${engine} ${printable(version)} (as ${ERA_TEXT[era]})`)
  engines.push(...of.silent.map(({ engine, why }) => `${engine} (does not say its version: ${printable(why)})`))
  return [
    `${of.reference}\n${of.digest}, ${printable(of.platform)}\n\n`,
    table(head, rows),
    ...(reasons.length === 0 ? [] : ['\n', ...reasons.map((line) => `${printable(line)}\n`)]),
    '\n',
    ...beliefText(of.diffid),
    ...LEGEND.map((line) => `${line}\n`),
    '\n',
    ...clientsText(of.clients),
    '\n',
    ...of.notes.map((note) => `${printable(note)}\n`),
    `on this machine: ${engines.join(', ') || 'no engine'}; rung ${of.rung ?? 'none'}`,
    of.why === null ? '\n' : `, not a higher one because: ${printable(of.why)}\n`,
  ].join('')
}

/** A line a client, in which what to do is, and then why it is not lazy, or not by itself. */
function clientsText(clients: readonly ClientWay[]): string[] {
  const rows = clients.map(({ client, way, fix }) => [client, way, printable(fix ?? '-')])
  const whose = new Map<string, string[]>()
  for (const { client, why } of clients) if (why !== null) whose.set(why, [...(whose.get(why) ?? []), client])
  const reasons = [...whose].map(([why, names]) => {
    const of = names.length === clients.length ? 'every client' : names.join('; ')
    return `${printable(`${of}: ${why}`)}\n`
  })
  return [table(['CLIENT', 'PULL', 'WHAT IT TAKES'], rows), ...(reasons.length === 0 ? [] : ['\n', ...reasons])]
}

/** A line, where something may be believed: whether it is, and for how long. */
function beliefText({ policy, trust, why }: Report['diffid']): string[] {
  if (policy === 'proven') return []
  const given = [`--diffid ${policy}`, ...trust.map((each) => `--trust ${each}`)].join(' ')
  const believed = why === null ? BELIEVED[policy] : `they are not believed: ${why}`
  return [`${printable(given)}: ${printable(believed)}\n\n`]
}

const BELIEVED: Readonly<Record<Exclude<DiffIds['policy'], 'proven'>, string>> = {
  signed: 'the image is signed, so its DiffIDs are believed',
  guarded: 'its DiffIDs are believed until they are proven, unless another image says otherwise of a layer',
  claimed: 'its DiffIDs are believed until they are proven, as those of every other image',
}

function wayText(way: LayerWay): string {
  if (way.door !== undefined) return `${way.door} (${way.identity})`
  return way.fails ? 'fails' : 'pulled'
}

/** One line for each reason, with the layers and the engines that it holds for, unless it is all of these. */
function reasonsOf(layers: readonly ReportedLayer[]): string[] {
  const whose = new Map<string, string[]>()
  for (const { digest, ways } of layers) {
    for (const [reason, eras] of reasonsOfLayer(ways)) {
      const of = eras.length === ERAS.length ? '' : ` (${eras.map((era) => ERA_TEXT[era]).join(', ')})`
      const line = `${of}: ${reason}`
      whose.set(line, [...(whose.get(line) ?? []), shortDigest(digest)])
    }
  }
  return [...whose].map(([line, digests]) => digests.join(', ') + line)
}

function reasonsOfLayer(ways: Ways): Map<string, Era[]> {
  const eras = new Map<string, Era[]>()
  for (const era of ERAS) {
    const way = ways[era]
    if (way.why === undefined) continue
    const reason = way.door === undefined ? `${way.why}. ${way.fix}` : way.why
    eras.set(reason, [...(eras.get(reason) ?? []), era])
  }
  return eras
}
