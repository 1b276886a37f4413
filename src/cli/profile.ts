// lazylayer profile ls|show|export|import|forget|push: what starts were seen to read, by which later ones are ordered.
//
//   ls                   a line a profile
//   show IMAGE           its files, in the order in which a start read them
//   export IMAGE [FILE]  as a document, to be looked at, edited and given to other nodes
//   import IMAGE FILE    such a document, in place of what is known
//   forget IMAGE         all that is known of starts of the image, in all its versions
//   push IMAGE           as an artifact beside the image, where the agents of all nodes find it
import { readFile, writeFile } from 'node:fs/promises'
import { printable } from '../agent/log.ts'
import { openRegistries, platformOf } from '../agent/open-registries.ts'
import { text } from '../agent/values.ts'
import { Failure } from '../errors.ts'
import { platformText } from '../image/manifest.ts'
import { encodeProfile, PROFILE_TYPE, type Profile, type ProfileFile, parseProfile } from '../image/profile.ts'
import { parseReference, type Reference, referenceText, repositoryText } from '../image/reference.ts'
import type { KeptProfile } from '../store/profiles.ts'
import type { Store } from '../store/store.ts'
import { openCache } from './cache/open.ts'
import type { Invocation } from './flags.ts'
import { count, printJson, shortDigest, table } from './output.ts'

type Values = Invocation['values']

/** What an operation is about. */
interface Asked {
  store: Store
  values: Values
  reference: Reference
  file: string | undefined
}

const OF_IMAGES: Readonly<Record<string, (asked: Asked) => Promise<number>>> = {
  show,
  export: exportProfile,
  import: importProfile,
  forget,
  push,
}
/** What comes first says who knows it. */
const ORIGINS: Readonly<Record<KeptProfile['from'], string>> = {
  start: 'a start here',
  registry: 'its repository',
  file: 'a file',
}
const HOW_TO_LEARN = 'Start it once through an agent: what that reads is kept 10 s after it has read nothing new.'

export async function profile({ positionals, values }: Invocation): Promise<number> {
  const [name, image, file] = positionals as [string, string?, string?] // the command declares them
  const operation = Object.hasOwn(OF_IMAGES, name) ? OF_IMAGES[name] : undefined
  if (operation === undefined && name !== 'ls') {
    throw Failure.usage(`profile ${name} is not known`, { fix: 'Use one of ls, show, export, import, forget, push.' })
  }
  if ((operation !== undefined) !== (image !== undefined)) {
    throw Failure.usage(`profile ${name} takes ${image === undefined ? 'an' : 'no'} image`)
  }
  if (name === 'import' ? file === undefined : name !== 'export' && file !== undefined) {
    throw Failure.usage(`profile ${name} takes ${file === undefined ? 'a' : 'no'} file`)
  }
  const store = await openCache(values)
  try {
    if (operation === undefined || image === undefined) return await ls(store, values)
    return await operation({ store, values, reference: parseReference(image), file })
  } finally {
    await store.close()
  }
}

async function ls(store: Store, values: Values): Promise<number> {
  const all = await store.profiles.all()
  if (text(values, 'format') === 'json') {
    printJson(all.map(({ profile, ...of }) => ({ ...of, files: profile.files.length })))
    return 0
  }
  const rows = all.map(({ repository, platform, manifest, from, at, profile }) => [
    printable(repository),
    shortDigest(manifest),
    printable(platform),
    `${profile.files.length}`,
    ORIGINS[from],
    new Date(at).toISOString().slice(0, 16).replace('T', ' '),
  ])
  process.stdout.write(table(['IMAGE', 'MANIFEST', 'PLATFORM', 'FILES', 'FROM', 'SINCE (UTC)'], rows))
  return 0
}

async function show(asked: Asked): Promise<number> {
  const known = await knownOf(asked)
  if (text(asked.values, 'format') === 'json') {
    printJson(known)
    return 0
  }
  process.stdout.write(`${known.repository} ${known.manifest}, from ${ORIGINS[known.from]}\n\n`)
  process.stdout.write(linesOf(known.profile.files))
  return 0
}

async function exportProfile(asked: Asked): Promise<number> {
  const bytes = documentOf((await knownOf(asked)).profile)
  if (asked.file === undefined) {
    process.stdout.write(bytes)
    return 0
  }
  await writeFile(asked.file, bytes).catch((cause) => {
    throw Failure.system(`${asked.file} cannot be written`, { cause })
  })
  return 0
}

async function importProfile({ store, values, reference, file }: Asked): Promise<number> {
  const path = file as string // it was checked
  const bytes = await readFile(path).catch((cause) => {
    throw Failure.usage(`${path} cannot be read`, { cause })
  })
  const read = parseProfile(bytes, path)
  if (read.files.length === 0)
    throw Failure.usage(`${path} names no file`, { fix: 'lazylayer profile forget IMAGE forgets one.' })
  const platform = platformText(platformOf(values))
  const manifest = (await keptManifest(store, reference, platform)) ?? (await resolved(values, reference)).digest
  await store.profiles.keep({ repository: repositoryText(reference), platform, manifest }, 'file', read)
  process.stdout.write(
    `${referenceText(reference)}: ${count(read.files.length, 'file')} come first from its next start on\n`,
  )
  return 0
}

async function forget({ store, values, reference }: Asked): Promise<number> {
  const [repository, platform] = [repositoryText(reference), platformText(platformOf(values))]
  const known = (await store.profiles.all()).filter(
    (each) => each.repository === repository && each.platform === platform,
  )
  if (known.length === 0) throw unknown(reference)
  for (const each of known) await store.profiles.forget(each)
  process.stdout.write(`${repository}: ${count(known.length, 'profile')} forgotten\n`)
  return 0
}

/** Says what others will read, and has it pushed. */
async function push({ store, values, reference }: Asked): Promise<number> {
  if (reference.transport !== 'docker') throw Failure.usage('profiles are pushed to registries alone')
  const { pushReferrer } = await import('../registry/push-referrer.ts')
  const registries = openRegistries(values, reference)
  try {
    const image = await registries.source(reference).resolve(platformOf(values))
    const of = {
      repository: repositoryText(reference),
      platform: platformText(platformOf(values)),
      manifest: image.digest,
    }
    const known = await store.profiles.of(of)
    if (known === undefined) {
      const why = `it is ${image.digest} in its registry now, of which no start was seen`
      throw Failure.missing(`nothing is known of ${referenceText(reference)}`, { why, fix: HOW_TO_LEARN })
    }
    process.stdout.write(`Whoever may pull ${of.repository} can read these paths:\n\n${linesOf(known.profile.files)}\n`)
    const { mediaType } = image.manifest
    const subject = { mediaType, digest: image.digest, size: image.manifestBytes.length }
    const pushed = { type: PROFILE_TYPE, document: documentOf(known.profile), subject, created: known.at }
    const tagged: Parameters<typeof pushReferrer>[1] = (...wanted) => registries.tagged(reference, ...wanted)
    const digest = await pushReferrer(registries.target(reference), tagged, pushed, new AbortController().signal)
    process.stdout.write(`pushed as ${of.repository}@${digest}\n`)
    return 0
  } finally {
    await registries.close()
  }
}

/** Of this version of the image, else of the newest one. @throws Failure missing */
async function knownOf({ store, values, reference }: Asked): Promise<KeptProfile> {
  const of = { repository: repositoryText(reference), platform: platformText(platformOf(values)) }
  const manifest = await keptManifest(store, reference, of.platform)
  const exact = manifest && (await store.profiles.of({ ...of, manifest }))
  const known = exact ?? (await store.profiles.newest(of))
  if (known === undefined) throw unknown(reference)
  return known
}

/** What a reference meant the last time, if it was ever resolved here. */
async function keptManifest(store: Store, reference: Reference, platform: string) {
  return (await store.tags.of(referenceText(reference), platform))?.manifest ?? reference.digest
}

async function resolved(values: Values, reference: Reference) {
  const registries = openRegistries(values, reference)
  try {
    return await registries.source(reference).resolve(platformOf(values))
  } finally {
    await registries.close()
  }
}

function unknown(reference: Reference): Failure {
  return Failure.missing(`nothing is known of starts of ${repositoryText(reference)}`, { fix: HOW_TO_LEARN })
}

function documentOf(profile: Profile): Uint8Array {
  const bytes = encodeProfile(profile)
  if (bytes === undefined) throw new TypeError('a profile of nothing was kept')
  return bytes
}

/** A line a file, with its pieces where it is not all of it. */
function linesOf(files: Profile['files']): string {
  const line = ({ path, ranges }: ProfileFile) =>
    [`/${path}`, ...ranges.map(({ start, end }) => `${start}-${end}`)].join(' ')
  return files.map((each) => `${printable(line(each))}\n`).join('')
}
