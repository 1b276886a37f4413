// Makes signatures as people make them: GnuPG and Skopeo, in an engine's sandbox.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Digest, hex } from '../../../src/image/digest.ts'
import type { Podman } from './podman.ts'

/** A key pair of GnuPG's, by its fingerprint, and its exported public half. */
export interface GpgKey {
  fingerprint: string
  file: string
}

const KEYS = ['good', 'other', 'subkey', 'expired', 'old', 'revoked'] as const

// the revocation certificate that gpg made beforehand has a colon before its first line, so that nobody imports it by mistake
const MAKE_KEYS = `
set -eu
cd "$1"
make() { gpg --batch --quiet --passphrase '' "$@" 2>>gpg.log; }
fingerprint() { gpg --batch --with-colons --list-keys "=$1 <$1@example.com>" | sed -n 's/^fpr:::::::::\\([0-9A-F]*\\):/\\1/p' | head -n 1; }
make --quick-gen-key 'good <good@example.com>' rsa2048 sign never
make --quick-gen-key 'other <other@example.com>' ed25519 sign never
make --quick-gen-key 'subkey <subkey@example.com>' ed25519 cert never
make --quick-add-key "$(fingerprint subkey)" ed25519 sign never
make --faked-system-time 20200101T000000 --quick-gen-key 'expired <expired@example.com>' ed25519 sign 30d
make --faked-system-time 20200101T000000 --quick-gen-key 'old <old@example.com>' ed25519 sign never
make --quick-gen-key 'revoked <revoked@example.com>' ed25519 sign never
for key in good other subkey expired old revoked; do
  gpg --batch --export "$(fingerprint $key)" >$key.gpg
  gpg --batch --armor --export "$(fingerprint $key)" >$key.asc
  echo "$(fingerprint $key)"
done
sed 's/^:---/---/' ~/.gnupg/openpgp-revocs.d/$(fingerprint revoked).rev >revocation
`

/** Signs for the tests of one work directory. */
export class Signing {
  readonly keys: Readonly<Record<(typeof KEYS)[number], GpgKey>>
  readonly #podman: Podman
  readonly #dir: string
  readonly #lookaside: string
  #texts = 0

  private constructor(podman: Podman, dir: string, lookaside: string, keys: Signing['keys']) {
    this.#podman = podman
    this.#dir = dir
    this.#lookaside = lookaside
    this.keys = keys
  }

  /** Makes the keys in the sandbox's home. @param lookaside the folder of simple signatures */
  static async start(podman: Podman, dir: string, lookaside: string): Promise<Signing> {
    await mkdir(dir, { recursive: true })
    const { code, stdout, stderr } = await podman.exec(['bash', '-c', MAKE_KEYS, 'keys', dir])
    if (code !== 0) throw new Error(`keys: ${stderr}${await readFile(join(dir, 'gpg.log'), 'utf8').catch(() => '')}`)
    const fingerprints = stdout.trim().split('\n')
    const entries = KEYS.map((name, i) => [
      name,
      { fingerprint: fingerprints[i] ?? '', file: join(dir, `${name}.gpg`) },
    ])
    return new Signing(podman, dir, lookaside, Object.fromEntries(entries) as Signing['keys'])
  }

  /** From now on the key `revoked` is exported with its revocation. */
  async revoke(): Promise<void> {
    const { fingerprint, file } = this.keys.revoked
    const script = 'gpg --batch --quiet --import "$1/revocation" && gpg --batch --export "$2" >"$3"'
    await this.succeed(['bash', '-c', script, 'revoke', this.#dir, fingerprint, file])
  }

  /** A text signed by gpg, as simple signing has it. `more`: gpg's options. */
  async sign(text: string, key: GpgKey, ...more: string[]): Promise<Uint8Array> {
    const file = join(this.#dir, `text-${this.#texts++}`)
    await writeFile(file, text)
    const options = ['--batch', '--quiet', '--local-user', key.fingerprint, '--output', `${file}.signed`, ...more]
    await this.succeed(['gpg', ...options, '--sign', file])
    return new Uint8Array(await readFile(`${file}.signed`))
  }

  /** Puts a simple signature where it is looked for. */
  async place(repository: string, manifest: Digest, number: number, signature: Uint8Array): Promise<void> {
    const file = this.fileOf(repository, manifest, number)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, signature)
  }

  /** The file of a simple signature. */
  fileOf(repository: string, manifest: Digest, number = 1): string {
    return join(this.#lookaside, `${repository}@sha256=${hex(manifest)}`, `signature-${number}`)
  }

  /** A program in the sandbox. @throws Error with what it printed */
  async succeed(argv: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.#podman.exec(argv)
    if (code !== 0) throw new Error(`${argv.join(' ')}: exit code ${code}\n${stdout}${stderr}`)
    return stdout
  }
}

/** What is signed; both kinds of signatures sign such a text. */
export function payload(of: {
  manifest: string
  reference: string
  type?: string
  optional?: unknown
  critical?: object
}): string {
  const { manifest, reference, type = 'atomic container signature', optional = {}, critical = {} } = of
  const image = { 'docker-manifest-digest': manifest }
  const identity = { 'docker-reference': reference }
  return JSON.stringify({ critical: { type, image, identity, ...critical }, optional })
}
