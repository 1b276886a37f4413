// What `setup` writes into which file, and what takes it out again: pure, from the texts that are there.

import { addStrings, parseText, removeStrings, stringsAt, type Wanted } from '../../engines/toml-edit.ts'
import { callsHelper, type FoundEngine } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'

/** First line of a file that setup made. */
export const MADE = '# Made by lazylayer setup; lazylayer setup with --undo removes it.'

/** Name of our files in folders of settings. */
export const DROP_IN = '50-lazylayer.conf'

/** Where engines look for the stores in storage.conf. */
const TABLE = ['storage', 'options']

/** The stores of a root, as storage.conf names them. */
export function storesOf(root: string): Readonly<Record<'layers' | 'images', Wanted & { directory: string }>> {
  if (root.includes(':')) {
    throw Failure.usage(`${root} cannot be named in storage.conf`, {
      why: 'engines take what is behind a colon for options',
      fix: 'Serve another directory.',
    })
  }
  const [layers, images] = [`${root}/layers`, `${root}/images`]
  return {
    layers: { directory: layers, table: TABLE, key: 'additionallayerstores', strings: [`${layers}:ref`] },
    images: { directory: images, table: TABLE, key: 'additionalimagestores', strings: [images] },
  }
}

type Stores = ReturnType<typeof storesOf>
export type Store = keyof Stores

/**
 * Which stores are of use to these engines. One that loses what it finds in the layer store must not see that; and those that are all told
 * to announce images need no other than the image store, in which images can be told apart (docs/upstream-image-ids.md).
 */
export function storesFor(engines: readonly FoundEngine[], toldOfHelper: boolean): Store[] {
  const announced = toldOfHelper && engines.every(({ engine, version }) => callsHelper(engine, version))
  return announced || engines.some(({ era }) => era === 'image') ? ['images'] : ['layers', 'images']
}

/** What it means to an engine that runs no auth helper that the layer store is left out for others; undefined: nothing. */
export function withoutLayers(of: FoundEngine, engines: readonly FoundEngine[]): string | undefined {
  const loses = engines.find(({ era }) => era === 'image')
  if (loses === undefined || of.era === 'image' || callsHelper(of.engine, of.version)) return undefined
  const name = ({ engine, version }: FoundEngine) => `${engine} ${version.text}`
  return `the layer store is left out, because ${name(loses)} loses what it finds there: ${name(of)} is lazy only for images that lazylayer pull has had listed before, which goes for serve --diffid signed and claimed, too`
}

/** storage.conf with these stores of the root and without the others. @throws Failure as addStrings */
export function withStores(text: string, stores: Stores, wanted: readonly Store[]): string {
  let edited = text
  for (const name of ['layers', 'images'] as const) {
    edited = wanted.includes(name) ? addStrings(edited, stores[name]) : removeStrings(edited, stores[name], true)
  }
  return edited
}

/** A new storage.conf: engines then read no other one, so it is what they would have read, if anything, and what they insist on. */
export function newStorageConf(vendor: string | undefined, rootless: boolean): string {
  if (vendor !== undefined && !rootless) return `${MADE}\n${vendor}`
  const places = rootless ? '' : 'runroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
  return `${MADE}\n[storage]\ndriver = "overlay"\n${places}`
}

export interface Undone {
  /** Undefined: the file was not there. */
  text: string | undefined
  /** Whether somebody else has changed the file, so that only our strings went. */
  changed: boolean
}

/**
 * What to put in place of `current`: `original` where nothing else was changed since.
 * @param original the text before setup; undefined where setup made the file
 * @param made what setup made then, without stores
 * @throws Failure as removeStrings
 */
export function withoutStores(current: string, original: string | undefined, made: string, stores: Stores): Undone {
  const base = original ?? made
  const [now, then] = [parseText(current), parseText(base)]
  const has = (parsed: Record<string, unknown>, name: Store) =>
    stringsAt(parsed, stores[name]).includes(stores[name].strings[0] as string) // it has one
  const names = ['layers', 'images'] as const
  const ours = names.filter((name) => has(now, name) || has(then, name))
  const kept = names.filter((name) => has(now, name))
  // an earlier setup may have named more stores
  const ways = [base, withStores(base, stores, names)].map((each) => withStores(each, stores, kept))
  if (ways.includes(current)) return { text: original, changed: false }
  let text = current
  for (const name of ours) {
    if (has(then, name)) continue
    text = removeStrings(text, stores[name], isThere(then, stores[name]))
  }
  return { text, changed: true }
}

function isThere(parsed: Record<string, unknown>, { table, key }: Wanted): boolean {
  let at: unknown = parsed
  for (const name of [...table, key]) at = (at as Record<string, unknown> | undefined)?.[name] // stringsAt has seen tables
  return at !== undefined
}

/** The drop-in of registries.conf.d that has engines run the auth helper. */
export function helperDropIn(helper: string): string {
  return `${MADE}\nadditional-layer-store-auth-helper = ${JSON.stringify(helper)}\n`
}

/** The drop-in of crio.service that has it start behind the agent: it cannot list an image whose layers are not shown yet. */
export const CRIO_UNIT = `${MADE}
[Unit]
Wants=lazylayer.service
After=lazylayer.service
`

/**
 * The drop-in of crio.conf.d. After an unclean stop CRI-O checks its storage, by default: it then takes the layer of every container on
 * an additional image store for damaged, because it looks for parents before it has read that store, fails to repair it, and wipes all
 * of its storage, below containers that run (docs/crio.md).
 */
export const CRIO_CONF = `${MADE}
[crio]
internal_repair = false
`
