// policy.json as we evaluate it and as Skopeo does, over signatures that GnuPG and Skopeo made and others that were spoilt: we accept
// nothing that it refuses, and refuse what it accepts only where the table says so.
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import { hostPlatform } from '../../src/image/manifest.ts'
import { parseRegistryReference } from '../../src/image/reference.ts'
import { loadPolicy } from '../../src/policy/policy.ts'
import { Registries } from '../../src/registry/registries.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { Podman, podmanLacks } from './engines/podman.ts'
import { type DockerRegistry, startDockerRegistry } from './engines/registry.ts'
import { payload, Signing } from './engines/signing.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const START_TIMEOUT_MS = 600_000
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json'
const SIMPLE_SIGNING = 'application/vnd.dev.cosign.simplesigning.v1+json'
const SIGNATURE = 'dev.cosignproject.cosign/signature'
const BUNDLE = 'dev.sigstore.cosign/bundle'
const TYPE = 'cosign container image signature'

interface Descriptor {
  mediaType: string
  digest: Digest
  size: number
  annotations?: Record<string, string>
  platform?: object
}

/** What a case is about: an image of its own. */
interface Subject {
  repository: string
  /** `host/repository:1` */
  reference: string
  manifest: Digest
}

interface Case {
  title: string
  /** Signs it, or does worse. */
  prepare?: (subject: Subject) => Promise<unknown>
  /** What its repository requires. */
  policy: (subject: Subject) => object[]
  /** 'accepted', or what our refusal says. */
  ours: 'accepted' | RegExp
  /** Default: as ours. */
  skopeo?: 'accepts' | 'refuses'
  /** Asked for instead of the tag. */
  by?: 'digest'
  index?: boolean
}

suite('policy.json', lacking(REGISTRY_PROGRAMS) ?? podmanLacks('trixie'), () => {
  let work: WorkDirectory
  let registry: DockerRegistry
  let podman: Podman
  let signing: Signing
  let layout: string
  let single: Digest
  let lists: { index: Digest; mine: Digest }
  const pair = { good: ecdsa('P-256'), other: ecdsa('P-256'), log: ecdsa('P-256') }
  let count = 0

  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await startDockerRegistry({ dir: work.path })
    podman = await Podman.start({ flavour: 'trixie', work: work.path, trust: [registry] })
    signing = await Signing.start(podman, join(work.path, 'keys'), join(work.path, 'lookaside'))
    layout = join(work.path, 'layout')
    single = await addImage('single')
    lists = await addList('list')
    await mkdir(join(work.path, 'registries.d'))
    const home = `lookaside: file://${work.path}/lookaside`
    await writeFile(
      join(work.path, 'registries.d/all.yaml'),
      `default-docker:\n  ${home}\ndocker:\n  ${registry.host}/sigstore:\n    use-sigstore-attachments: true\n`,
    )
    await writeFile(join(work.path, 'any.json'), JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }))
  }, START_TIMEOUT_MS)

  afterAll(async () => {
    await podman?.close()
    await registry?.stop()
    await work?.remove()
  })

  async function addBlob(bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
    const digest = digestOf(bytes)
    const file = join(layout, 'blobs', digest.replace(':', '/'))
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, bytes)
    return { mediaType, digest, size: bytes.length }
  }

  const bytesOf = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
  const entries: Descriptor[] = []

  async function tag(top: Descriptor, name: string): Promise<void> {
    entries.push({ ...top, annotations: { 'org.opencontainers.image.ref.name': name } })
    await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: entries }))
  }

  async function addManifest(text: string, architecture: string): Promise<Descriptor> {
    const layer = await addBlob(new TextEncoder().encode(text), 'application/vnd.oci.image.layer.v1.tar')
    const rootfs = { type: 'layers', diff_ids: [layer.digest] }
    const config = await addBlob(bytesOf({ os: 'linux', architecture, rootfs, config: {} }), OCI_CONFIG)
    return await addBlob(bytesOf({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] }), OCI_MANIFEST)
  }

  async function addImage(name: string): Promise<Digest> {
    const manifest = await addManifest(name, hostPlatform().architecture)
    await tag(manifest, name)
    return manifest.digest
  }

  async function addList(name: string): Promise<{ index: Digest; mine: Digest }> {
    const { os, architecture } = hostPlatform()
    const mine = { ...(await addManifest(name, architecture)), platform: { os, architecture } }
    const other = { ...(await addManifest(name, 's390x')), platform: { os, architecture: 's390x' } }
    const index = await addBlob(
      bytesOf({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [other, mine] }),
      OCI_INDEX,
    )
    await tag(index, name)
    return { index: index.digest, mine: mine.digest }
  }

  /** Sigstore signatures as cosign attaches them. */
  async function attach(
    { repository, manifest }: Pick<Subject, 'repository' | 'manifest'>,
    signatures: { text: string; annotations: Record<string, string> }[],
  ): Promise<void> {
    const config = await addBlob(bytesOf({}), OCI_CONFIG)
    const layers = await Promise.all(
      signatures.map(async ({ text, annotations }) => ({
        ...(await addBlob(new TextEncoder().encode(text), SIMPLE_SIGNING)),
        annotations,
      })),
    )
    const attachment = await addBlob(
      bytesOf({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }),
      OCI_MANIFEST,
    )
    const name = `signatures-${count++}`
    await tag(attachment, name)
    await registry.pushLayout(layout, name, repository)
    // pushed under a name of its own; Skopeo gives it the one that is looked for
    const at = `docker://${registry.host}/${repository}`
    await skopeo(['copy', `${at}:${name}`, `${at}:${manifest.replace(':', '-')}.sig`])
  }

  const skopeo = (args: string[], policy = join(work.path, 'any.json')) =>
    signing.succeed(['skopeo', '--policy', policy, '--registries.d', join(work.path, 'registries.d'), ...args])

  /** Copies it onto itself, signed on the way. */
  const skopeoSigns = ({ reference }: Subject, ...args: string[]) =>
    skopeo(['copy', '--preserve-digests', ...args, `docker://${reference}`, `docker://${reference}`])

  async function check({ title, prepare, policy, ours, skopeo: theirs, by, index }: Case, kind: string): Promise<void> {
    const repository = `${kind}/case-${count++}`
    await registry.pushLayout(layout, index ? 'list' : 'single', `${repository}`)
    const tagged = `${registry.host}/${repository}`
    await skopeo(['copy', '--all', `docker://${tagged}:${index ? 'list' : 'single'}`, `docker://${tagged}:1`])
    const manifest = index ? lists.mine : single
    const subject = { repository, reference: `${tagged}:1`, manifest }
    await prepare?.(subject)
    const path = join(work.path, `policy-${count}.json`)
    const transports = { docker: { [tagged]: policy(subject) } }
    await writeFile(path, JSON.stringify({ default: [{ type: 'reject' }], transports }))
    const asked = by === 'digest' ? `${tagged}@${index ? lists.index : single}` : subject.reference

    const registriesD = join(work.path, 'registries.d')
    const places = { home: '/nowhere', etc: '/nowhere', signatures: '/nowhere', policy: path, registriesD }
    const registries = new Registries({ certDir: registry.certDir })
    const signal = AbortSignal.timeout(60_000)
    try {
      const reference = parseRegistryReference(asked)
      const image = await registries.source(reference).resolve(hostPlatform())
      const verdict = await (await loadPolicy(places, signal)).check(
        { reference, manifest: image.manifestBytes },
        registries.signatures(reference),
        signal,
      )
      if (ours === 'accepted') expect(verdict, title).toMatchObject({ accepted: true })
      else expect(verdict, title).toMatchObject({ accepted: false, why: expect.stringMatching(ours) })
    } finally {
      await registries.close()
    }

    const engine = await podman.exec([
      ...['skopeo', '--policy', path, '--registries.d', registriesD, 'copy'],
      ...[`docker://${asked}`, `dir:${work.path}/copy-${count}`],
    ])
    const wanted = theirs ?? (ours === 'accepted' ? 'accepts' : 'refuses')
    if (wanted === 'accepts') expect(engine, title).toMatchObject({ code: 0 })
    else expect(engine, title).toMatchObject({ code: 1, stderr: expect.stringContaining('Source image rejected') })
  }

  const signedBy = (name: keyof Signing['keys'], more: object = {}) => [
    { type: 'signedBy', keyType: 'GPGKeys', keyPath: signing.keys[name].file, ...more },
  ]
  /** gpg signs a text of ours with the good key. */
  const places = async (subject: Subject, text: string, ...more: string[]) =>
    signing.place(subject.repository, subject.manifest, 1, await signing.sign(text, signing.keys.good, ...more))
  const textFor = ({ reference, manifest }: Subject) => payload({ reference, manifest })
  const signs =
    (name: keyof Signing['keys'], ...more: string[]) =>
    async (subject: Subject) =>
      signing.place(
        subject.repository,
        subject.manifest,
        1,
        await signing.sign(textFor(subject), signing.keys[name], ...more),
      )
  const skopeoSignsSimply = (subject: Subject) => skopeoSigns(subject, '--sign-by', signing.keys.good.fingerprint)

  const simple: Case[] = [
    {
      title: 'a signature by Skopeo counts',
      prepare: skopeoSignsSimply,
      policy: () => signedBy('good'),
      ours: 'accepted',
    },
    { title: 'so does one by gpg', prepare: signs('good'), policy: () => signedBy('good'), ours: 'accepted' },
    {
      title: 'the tag does not matter where the digest is asked for',
      prepare: async (subject) =>
        places(subject, payload({ ...subject, reference: subject.reference.replace(/:1$/, ':other') })),
      policy: () => signedBy('good'),
      by: 'digest',
      ours: 'accepted',
    },
    {
      title: 'otherwise it does',
      prepare: async (subject) =>
        places(subject, payload({ ...subject, reference: subject.reference.replace(/:1$/, ':other') })),
      policy: () => signedBy('good'),
      ours: /it is for ".*:other", the policy wants .*:1 \(Sign under that name/,
    },
    {
      title: 'unless the policy says so',
      prepare: async (subject) =>
        places(subject, payload({ ...subject, reference: subject.reference.replace(/:1$/, ':other') })),
      policy: () => signedBy('good', { signedIdentity: { type: 'matchRepository' } }),
      ours: 'accepted',
    },
    {
      title: 'matchExact wants the digest in the signed name, too',
      prepare: signs('good'),
      policy: () => signedBy('good', { signedIdentity: { type: 'matchExact' } }),
      by: 'digest',
      ours: /the policy wants .*@sha256:/,
    },
    {
      title: 'another repository is another image',
      prepare: (subject) => places(subject, payload({ ...subject, reference: `${registry.host}/simple/victim:1` })),
      policy: () => signedBy('good'),
      ours: /it is for ".*simple\/victim:1"/,
    },
    {
      title: 'exactRepository names another',
      prepare: (subject) => places(subject, payload({ ...subject, reference: 'registry.example.com/app:1' })),
      policy: () =>
        signedBy('good', {
          signedIdentity: { type: 'exactRepository', dockerRepository: 'registry.example.com/app' },
        }),
      ours: 'accepted',
    },
    {
      title: 'exactReference wants its very tag',
      prepare: (subject) => places(subject, payload({ ...subject, reference: 'registry.example.com/app:2' })),
      policy: () =>
        signedBy('good', {
          signedIdentity: { type: 'exactReference', dockerReference: 'registry.example.com/app:1' },
        }),
      ours: /the policy wants registry.example.com\/app:1/,
    },
    {
      title: 'remapIdentity follows a mirror back to the name that was signed',
      prepare: (subject) =>
        places(subject, payload({ ...subject, reference: `registry.example.com/vendor/${subject.repository}:1` })),
      policy: () =>
        signedBy('good', {
          signedIdentity: {
            type: 'remapIdentity',
            prefix: registry.host,
            signedPrefix: 'registry.example.com/vendor',
          },
        }),
      ours: 'accepted',
    },
    {
      title: 'a short name in a signature is one at Docker Hub',
      prepare: (subject) => places(subject, payload({ ...subject, reference: `${subject.repository}:1` })),
      policy: () => signedBy('good'),
      ours: /it is for "simple\/case-/,
    },
    {
      title: 'another key is nobody',
      prepare: signs('other'),
      policy: () => signedBy('good'),
      ours: /by key [0-9A-F]{16}, which is none of the policy's .*add/,
    },
    {
      title: 'one of several keys is enough',
      prepare: signs('other'),
      policy: () => [
        {
          type: 'signedBy',
          keyType: 'GPGKeys',
          keyPaths: [signing.keys.good.file, signing.keys.other.file.replace('.gpg', '.asc')],
        },
      ],
      ours: 'accepted',
    },
    {
      title: 'all requirements must hold',
      prepare: signs('good'),
      policy: () => [...signedBy('good'), ...signedBy('other')],
      ours: /none of the policy's/,
    },
    {
      title: 'each by a signature of its own',
      prepare: async (subject) => {
        await signs('good')(subject)
        const second = await signing.sign(textFor(subject), signing.keys.other)
        await signing.place(subject.repository, subject.manifest, 2, second)
      },
      policy: () => [...signedBy('good'), ...signedBy('other'), { type: 'insecureAcceptAnything' }],
      ours: 'accepted',
    },
    {
      title: 'a subkey signs for its key',
      prepare: signs('subkey'),
      policy: () => signedBy('subkey'),
      ours: 'accepted',
      // that of containers/image 5.37 accepts it
      skopeo: 'refuses',
    },
    {
      title: 'an expired key does not sign, not even what it signed before',
      prepare: signs('expired', '--faked-system-time', '20200105T000000'),
      policy: () => signedBy('expired'),
      ours: /not valid by key .*expired/,
    },
    {
      title: 'an expired signature is none',
      prepare: signs('old', '--default-sig-expire', '1d', '--faked-system-time', '20200105T000000'),
      policy: () => signedBy('old'),
      ours: /not valid by key .*signature is expired/,
    },
    {
      title: 'SHA-1 proves nothing any more, whatever gpg says',
      prepare: signs('good', '--digest-algo', 'SHA1', '--allow-weak-digest-algos'),
      policy: () => signedBy('good'),
      ours: /not valid by key .*insecure message hash algorithm: SHA1/,
      skopeo: 'accepts',
    },
    {
      title: 'a signature over another manifest is none over this one',
      prepare: (subject) => places(subject, payload({ ...subject, manifest: `sha256:${'0'.repeat(64)}` })),
      policy: () => signedBy('good'),
      ours: /over another manifest, sha256:0{64}, not over sha256:.*Sign/,
    },
    {
      title: 'a changed byte is seen',
      prepare: async (subject) => {
        const bytes = await signing.sign(textFor(subject), signing.keys.good, '--compress-algo', 'none')
        const at = Buffer.from(bytes).indexOf('case-')
        bytes[at] = 0x43
        await signing.place(subject.repository, subject.manifest, 1, bytes)
      },
      policy: () => signedBy('good'),
      ours: /not valid by key/,
    },
    {
      title: 'a changed byte of the compressed part is seen',
      prepare: async (subject) => {
        const bytes = await signing.sign(textFor(subject), signing.keys.good)
        const middle = bytes.length >> 1
        bytes[middle] = (bytes[middle] ?? 0) ^ 0xff
        await signing.place(subject.repository, subject.manifest, 1, bytes)
      },
      policy: () => signedBy('good'),
      ours: /signature-1: it/,
    },
    {
      title: 'a signature that ends early is none',
      prepare: async (subject) => {
        const bytes = await signing.sign(textFor(subject), signing.keys.good)
        await signing.place(subject.repository, subject.manifest, 1, bytes.subarray(0, bytes.length - 20))
      },
      policy: () => signedBy('good'),
      ours: /signature-1: its compressed part is damaged|ends in the middle/,
    },
    {
      title: 'two signatures over one text are refused',
      prepare: signs('good', '--local-user', 'other@example.com'),
      policy: () => signedBy('good'),
      ours: /no OpenPGP message with one signed text and one signature/,
    },
    {
      title: 'an unknown key in the critical part is refused',
      prepare: (subject) => places(subject, payload({ ...subject, critical: { more: 1 } })),
      policy: () => signedBy('good'),
      ours: /has the unknown key "more"/,
    },
    {
      title: 'so is one that stands twice',
      prepare: (subject) => places(subject, textFor(subject).replace('"critical"', '"critical":{},"critical"')),
      policy: () => signedBy('good'),
      ours: /has the key "critical" twice/,
    },
    {
      title: 'so is the text of the other kind of signature',
      prepare: (subject) => places(subject, payload({ ...subject, type: TYPE })),
      policy: () => signedBy('good'),
      ours: /is of the type "cosign container image signature"/,
    },
    {
      title: 'and a half-good creator',
      prepare: (subject) => places(subject, payload({ ...subject, optional: { creator: 1 } })),
      policy: () => signedBy('good'),
      ours: /its creator is no text/,
    },
    {
      title: 'the second signature may be the good one',
      prepare: async (subject) => {
        await signs('other')(subject)
        const second = await signing.sign(textFor(subject), signing.keys.good)
        await signing.place(subject.repository, subject.manifest, 2, second)
      },
      policy: () => signedBy('good'),
      ours: 'accepted',
    },
    {
      title: 'without a signature there is none',
      policy: () => signedBy('good'),
      ours: /it has no simple signature in file:.*lookaside \(sign it/,
    },
    {
      title: 'what may run unsigned is still signed by nobody',
      prepare: signs('good'),
      policy: () => [{ type: 'insecureAcceptAnything' }],
      ours: /nobody vouches for its DiffIDs \(require signedBy/,
      skopeo: 'accepts',
    },
    {
      title: 'what is rejected is rejected',
      prepare: signs('good'),
      policy: () => [...signedBy('good'), { type: 'reject' }],
      ours: /rejects this image/,
    },
    {
      title: 'of an index, the chosen manifest must be signed',
      index: true,
      prepare: (subject) =>
        places(subject, payload({ ...subject, manifest: subject.manifest, reference: subject.reference })),
      policy: () => signedBy('good'),
      ours: 'accepted',
    },
    {
      title: 'a signature over the index alone is not enough',
      index: true,
      prepare: async (subject) => {
        const text = payload({ ...subject, manifest: lists.index })
        await signing.place(subject.repository, lists.index, 1, await signing.sign(text, signing.keys.good))
      },
      policy: () => signedBy('good'),
      ours: /it has no simple signature/,
    },
    {
      title: 'Skopeo signs all of an index',
      index: true,
      prepare: (subject) => skopeoSigns(subject, '--all', '--sign-by', signing.keys.good.fingerprint),
      policy: () => signedBy('good'),
      by: 'digest',
      ours: 'accepted',
    },
  ]

  for (const each of simple) test(`simple signing: ${each.title}`, () => check(each, 'simple'))

  test('a key that was revoked since does not sign any more', async () => {
    const revoked = { policy: () => signedBy('revoked'), prepare: signs('revoked') }
    await check({ ...revoked, title: 'before', ours: 'accepted' }, 'simple')
    // gpg would not sign with it any more: the signature is from before
    const { repository, manifest } = { repository: `simple/case-${count - 1}`, manifest: single }
    const from = signing.fileOf(repository, manifest)
    await signing.revoke()
    await check(
      {
        title: 'after',
        policy: revoked.policy,
        prepare: async (subject) => {
          const file = signing.fileOf(subject.repository, manifest)
          await mkdir(dirname(file), { recursive: true })
          await copyFile(from, file)
        },
        ours: /not valid by key .*revoked/,
      },
      'simple',
    )
  })

  const pem = (key: KeyObject) => Buffer.from(key.export({ type: 'spki', format: 'pem' })).toString('base64')
  const sigstoreSigned = (key: KeyObject, more: object = {}) => [{ type: 'sigstoreSigned', keyData: pem(key), ...more }]
  const signature = (text: string, by: KeyObject, hash: string | null = 'sha256') =>
    sign(hash, Buffer.from(text), by).toString('base64')
  const cosigns =
    (by: { privateKey: KeyObject; hash?: string | null }, of: Partial<Parameters<typeof payload>[0]> = {}) =>
    async (subject: Subject) => {
      const text = payload({ ...subject, type: TYPE, ...of })
      await attach(subject, [{ text, annotations: { [SIGNATURE]: signature(text, by.privateKey, by.hash) } }])
    }
  /** A receipt as Rekor gives it. */
  function receipt(text: string, signed: string, key: KeyObject, log: KeyObject): string {
    const body = {
      apiVersion: '0.0.1',
      kind: 'hashedrekord',
      spec: {
        data: { hash: { algorithm: 'sha256', value: createHash('sha256').update(text).digest('hex') } },
        signature: { content: signed, publicKey: { content: pem(key) } },
      },
    }
    const promise = {
      body: Buffer.from(JSON.stringify(body)).toString('base64'),
      integratedTime: 1_700_000_000,
      logID: '0'.repeat(64),
      logIndex: 7,
    }
    const SignedEntryTimestamp = sign('sha256', Buffer.from(JSON.stringify(promise)), log).toString('base64')
    return JSON.stringify({ SignedEntryTimestamp, Payload: promise })
  }
  const logged = (log: KeyObject, about?: { text?: string; key?: KeyObject }) => async (subject: Subject) => {
    const text = payload({ ...subject, type: TYPE })
    const signed = signature(text, pair.good.privateKey)
    const bundle = receipt(about?.text ?? text, signed, about?.key ?? pair.good.publicKey, log)
    await attach(subject, [{ text, annotations: { [SIGNATURE]: signed, [BUNDLE]: bundle } }])
  }
  const p384 = ecdsa('P-384')
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const ed25519 = { ...generateKeyPairSync('ed25519'), hash: null }
  const logKey = { rekorPublicKeyData: pem(pair.log.publicKey) }

  const sigstore: Case[] = [
    {
      title: 'a signature by Skopeo counts',
      prepare: async (subject) => {
        await writeFile(join(work.path, 'passphrase'), 'secret')
        const args = ['--passphrase-file', join(work.path, 'passphrase')]
        await skopeo(['generate-sigstore-key', '--output-prefix', join(work.path, 'skopeo'), ...args])
        const how = ['--sign-by-sigstore-private-key', join(work.path, 'skopeo.private')]
        await skopeoSigns(subject, ...how, '--sign-passphrase-file', join(work.path, 'passphrase'))
      },
      policy: () => [{ type: 'sigstoreSigned', keyPath: join(work.path, 'skopeo.pub') }],
      ours: 'accepted',
    },
    {
      title: 'a P-256 key signs',
      prepare: cosigns(pair.good),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: 'accepted',
    },
    {
      title: 'a P-384 key signs',
      prepare: cosigns(p384),
      policy: () => sigstoreSigned(p384.publicKey),
      ours: 'accepted',
    },
    { title: 'an RSA key signs', prepare: cosigns(rsa), policy: () => sigstoreSigned(rsa.publicKey), ours: 'accepted' },
    {
      title: 'an Ed25519 key signs',
      prepare: cosigns(ed25519),
      policy: () => sigstoreSigned(ed25519.publicKey),
      ours: 'accepted',
    },
    {
      title: 'optional may be null, as cosign writes it',
      prepare: cosigns(pair.good, { optional: null }),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: 'accepted',
    },
    {
      title: 'another key is nobody',
      prepare: cosigns(pair.other),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /by none of the policy's keys/,
    },
    {
      title: 'a name without a tag, as cosign signs it, needs matchRepository',
      prepare: async (subject) => cosigns(pair.good, { reference: subject.reference.replace(/:1$/, '') })(subject),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /it is for/,
    },
    {
      title: 'with matchRepository a name without a tag counts',
      prepare: async (subject) => cosigns(pair.good, { reference: subject.reference.replace(/:1$/, '') })(subject),
      policy: () => sigstoreSigned(pair.good.publicKey, { signedIdentity: { type: 'matchRepository' } }),
      ours: 'accepted',
    },
    {
      title: 'a signature over another manifest is none over this one',
      prepare: cosigns(pair.good, { manifest: `sha256:${'1'.repeat(64)}` }),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /over another manifest, sha256:1{64}/,
    },
    {
      title: 'another repository is another image',
      prepare: cosigns(pair.good, { reference: 'registry.example.com/app:1' }),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /it is for "registry.example.com\/app:1"/,
    },
    {
      title: 'the text of simple signing is refused',
      prepare: cosigns(pair.good, { type: 'atomic container signature' }),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /is of the type "atomic container signature"/,
    },
    {
      title: 'a changed byte is seen',
      prepare: async (subject) => {
        const text = payload({ ...subject, type: TYPE })
        const annotations = { [SIGNATURE]: signature(text.replace('critical', 'Critical'), pair.good.privateKey) }
        await attach(subject, [{ text, annotations }])
      },
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /or its payload was changed/,
    },
    {
      title: 'an attachment without a signature is none',
      prepare: (subject) => attach(subject, [{ text: payload({ ...subject, type: TYPE }), annotations: {} }]),
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /annotation dev.cosignproject.cosign\/signature is missing/,
    },
    {
      title: 'without an attachment there is no signature',
      policy: () => sigstoreSigned(pair.good.publicKey),
      ours: /no sigstore signature in its repository/,
    },
    {
      title: 'a receipt of the log counts',
      prepare: logged(pair.log.privateKey),
      policy: () => sigstoreSigned(pair.good.publicKey, logKey),
      ours: 'accepted',
    },
    {
      title: 'where the policy names a log, there must be a receipt',
      prepare: cosigns(pair.good),
      policy: () => sigstoreSigned(pair.good.publicKey, logKey),
      ours: /annotation dev.sigstore.cosign\/bundle is missing/,
    },
    {
      title: 'a receipt of another log is none',
      prepare: logged(pair.other.privateKey),
      policy: () => sigstoreSigned(pair.good.publicKey, logKey),
      ours: /signed by no log of the policy/,
    },
    {
      title: 'a receipt about another text is none',
      prepare: logged(pair.log.privateKey, { text: 'other' }),
      policy: () => sigstoreSigned(pair.good.publicKey, logKey),
      ours: /about another payload/,
    },
    {
      title: 'a receipt about another key is none',
      prepare: logged(pair.log.privateKey, { key: pair.other.publicKey }),
      policy: () => sigstoreSigned(pair.good.publicKey, logKey),
      ours: /about another key/,
    },
    {
      title: 'both kinds may be required at once',
      prepare: async (subject) => {
        await signs('good')(subject)
        await cosigns(pair.good)(subject)
      },
      policy: () => [...signedBy('good'), ...sigstoreSigned(pair.good.publicKey)],
      ours: 'accepted',
    },
  ]

  for (const each of sigstore) test(`sigstore: ${each.title}`, () => check(each, 'sigstore'))

  const reject = [{ type: 'reject' }]
  const gpg = { type: 'signedBy', keyType: 'GPGKeys', keyPath: '/nowhere' }
  const key = { type: 'sigstoreSigned', keyPath: '/nowhere' }
  const invalid: Record<string, unknown> = {
    'no object': reject,
    'no default': {},
    'an empty default': { default: [] },
    'an unknown key': { default: reject, defaults: reject },
    'a key twice': '{"default":[{"type":"insecureAcceptAnything"}],"default":[{"type":"reject"}]}',
    'a key of a requirement twice': '{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}',
    'text behind it': '{"default":[{"type":"reject"}]} {}',
    'an unknown type': { default: [{ type: 'signed' }] },
    'a type in upper case': { default: [{ Type: 'reject' }] },
    'a key that reject does not have': { default: [{ type: 'reject', keyPath: '/x' }] },
    'an empty scope': { default: reject, transports: { docker: { 'registry.example.com': [] } } },
    'a scope that is no list': { default: reject, transports: { docker: { '': {} } } },
    'no key': { default: [{ type: 'signedBy', keyType: 'GPGKeys' }] },
    'two keys': { default: [{ ...gpg, keyData: 'eA==' }] },
    'a key that is no text': { default: [{ ...gpg, keyPath: 1 }] },
    'a key that is no base64': { default: [{ type: 'signedBy', keyType: 'GPGKeys', keyData: '*' }] },
    'no key type': { default: [{ type: 'signedBy', keyPath: '/nowhere' }] },
    'an unknown key type': { default: [{ ...gpg, keyType: 'PGPKeys' }] },
    'an unknown identity': { default: [{ ...gpg, signedIdentity: { type: 'match' } }] },
    'an identity with more keys': { default: [{ ...gpg, signedIdentity: { type: 'matchExact', prefix: 'x' } }] },
    'an exact reference without a tag': {
      default: [{ ...gpg, signedIdentity: { type: 'exactReference', dockerReference: 'registry.example.com/a' } }],
    },
    'a prefix that is none': {
      default: [
        { ...gpg, signedIdentity: { type: 'remapIdentity', prefix: 'a b', signedPrefix: 'registry.example.com' } },
      ],
    },
    'sigstore without a key': { default: [{ type: 'sigstoreSigned' }] },
    'sigstore with an empty list': { default: [{ type: 'sigstoreSigned', keyPaths: [] }] },
    'sigstore with two logs': { default: [{ ...key, rekorPublicKeyPath: '/a', rekorPublicKeyData: 'eA==' }] },
    'fulcio without a log': {
      default: [{ type: 'sigstoreSigned', fulcio: { caPath: '/a', oidcIssuer: 'b', subjectEmail: 'c' } }],
    },
    'fulcio with more keys': {
      default: [
        {
          type: 'sigstoreSigned',
          rekorPublicKeyPath: '/a',
          fulcio: { caPath: '/a', oidcIssuer: 'b', subjectEmail: 'c', d: '' },
        },
      ],
    },
  }
  for (const [title, policy] of Object.entries(invalid)) {
    test(`a policy.json with ${title} is invalid for us and for Skopeo`, async () => {
      const path = join(work.path, 'invalid.json')
      await writeFile(path, typeof policy === 'string' ? policy : JSON.stringify(policy))
      const places = { home: '/nowhere', etc: '/nowhere', signatures: '/nowhere', policy: path }
      await expect(loadPolicy(places, AbortSignal.timeout(60_000))).rejects.toMatchObject({ code: 'usage' })
      const engine = await podman.exec(['skopeo', '--policy', path, 'copy', 'docker://127.0.0.1:1/a', 'dir:/nowhere'])
      expect(engine).toMatchObject({ code: 1, stderr: expect.stringContaining('loading trust policy') })
    })
  }

  test('attachments are looked for only where registries.d says so', async () => {
    const title = 'an attachment elsewhere'
    const policy = () => sigstoreSigned(pair.good.publicKey)
    await check({ title, prepare: cosigns(pair.good), policy, ours: /set use-sigstore-attachments: true/ }, 'simple')
  })
})

function ecdsa(namedCurve: string): { privateKey: KeyObject; publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve })
}
