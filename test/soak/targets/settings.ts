// Files of engines, of administrators and of kubelet; and references, as users type them.
import { strict as assert } from 'node:assert'
import { addStrings, parseText, removeStrings, stringsAt } from '../../../src/engines/toml-edit.ts'
import { parseReference, referenceText } from '../../../src/image/reference.ts'
import { parseRegistriesD } from '../../../src/policy/registries-d.ts'
import { parsePolicy } from '../../../src/policy/requirements.ts'
import { parseAuthFile } from '../../../src/registry/credentials.ts'
import { parseRegistriesConf } from '../../../src/registry/hosts.ts'
import { parseHostsToml } from '../../../src/registry/hosts-toml.ts'
import { parseProviderConfig } from '../../../src/registry/provider-config.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'
import { textTarget, utf8 } from './text.ts'

const registriesConf = textTarget(
  'registries-conf',
  [
    `unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "registry.example.com/team"
location = "mirror.example.com/team"
insecure = true
[[registry.mirror]]
location = "one.example.com:5000"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "*.example.com"
blocked = false`,
  ],
  (text) => {
    for (const { prefix, mirrors } of parseRegistriesConf(text, 'registries.conf')) {
      assert(prefix !== '')
      for (const { location, serves } of mirrors) assert(location !== '' && ['all', 'digest', 'tag'].includes(serves))
    }
  },
)

const hostsToml = textTarget(
  'hosts-toml',
  [
    `server = "https://registry.example.com"
[host."https://mirror.example.com/v2/other"]
capabilities = ["pull", "resolve"]
ca = ["one.pem", "two.pem"]
client = [["cert.pem", "key.pem"]]
override_path = true
[host."https://mirror.example.com/v2/other".header]
x-custom = ["one", "two"]
[host."http://10.0.0.1:5000"]
skip_verify = true`,
  ],
  (text) => {
    const { rule } = parseHostsToml(text, '/certs.d/registry.example.com/hosts.toml', 'registry.example.com')
    assert.equal(rule.prefix, 'registry.example.com')
    for (const { asked } of rule.mirrors) {
      for (const value of Object.values(asked?.headers ?? {})) assert(!/[\r\n]/.test(value))
    }
  },
)

const authFile = textTarget(
  'auth-file',
  [
    JSON.stringify({
      auths: {
        'registry.example.com': { auth: Buffer.from('user:password').toString('base64') },
        'https://index.example.com/v1/': { identitytoken: 'token' },
        'registry.example.com/team': { username: 'user', password: 'password' },
      },
      credHelpers: { 'one.example.com': 'helper' },
      credsStore: 'store',
    }),
  ],
  (text) => {
    for (const login of parseAuthFile(text, 'auth.json').auths.values()) {
      assert('identityToken' in login ? login.identityToken !== '' : login.username !== '')
    }
  },
)

const providerConfig = textTarget(
  'provider-config',
  [
    `kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
  - name: helper
    matchImages: ["*.example.com", "registry.example.com:5000/team"]
    defaultCacheDuration: 1h30m
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get]
    env:
      - name: A
        value: b`,
  ],
  (text) => {
    for (const { name, cacheMs } of parseProviderConfig(text, 'config.yaml').providers) {
      assert(!name.includes('/') && cacheMs >= 0)
    }
  },
)

const policy: Target = {
  name: 'policy',
  seeds: [
    utf8(
      JSON.stringify({
        default: [{ type: 'reject' }],
        transports: {
          docker: {
            'registry.example.com': [
              {
                type: 'signedBy',
                keyType: 'GPGKeys',
                keyPath: `/etc/keys/${'long'.repeat(60)}.gpg`,
                signedIdentity: { type: 'matchRepository' },
              },
            ],
            '': [{ type: 'insecureAcceptAnything' }],
            'registry.example.com/team': [
              {
                type: 'sigstoreSigned',
                keyPath: '/key.pub',
                signedIdentity: { type: 'exactRepository', dockerRepository: 'registry.example.com/a' },
              },
            ],
          },
        },
      }),
    ),
  ],
  run: (bytes) => attempt(() => assert(parsePolicy(bytes, 'policy.json').default.length > 0)),
}

const registriesD: Target = {
  name: 'registries-d',
  seeds: [
    utf8(`default-docker:
  lookaside: https://lookaside.example.com
docker:
  registry.example.com/team:
    lookaside: file:///signatures
    use-sigstore-attachments: true`),
  ],
  run: (bytes) => attempt(() => parseRegistriesD(bytes, 'one.yaml')),
}

const WANTED = { table: ['storage', 'options'], key: 'additionalimagestores', strings: ['/store/images'] }

/** Edited where it stands: what was set is set afterwards, and gone when it is taken back. */
const storageConf = textTarget(
  'storage-conf',
  [
    `# comment
[storage]
driver = "overlay" # another
[storage.options]
additionalimagestores = [
  "/one", # its own
  '/two',
]
[storage.options.overlay]
mount_program = "/usr/bin/fuse-overlayfs"`,
    '[storage]\ndriver = "overlay"\n',
  ],
  (text) => {
    const before = stringsAt(parseText(text), WANTED)
    const added = addStrings(text, WANTED)
    assert(stringsAt(parseText(added), WANTED).includes('/store/images'))
    const removed = stringsAt(parseText(removeStrings(added, WANTED, true)), WANTED)
    assert.deepEqual(
      removed,
      before.filter((each) => each !== '/store/images'),
    )
  },
)

const reference = textTarget(
  'reference',
  [`registry.example.com:5000/team/app:1.0@sha256:${'ab'.repeat(32)}`, 'oci:/images/layout:tag', 'docker.io/library/a'],
  (text) => {
    const found = parseReference(text)
    assert.deepEqual(parseReference(referenceText(found)), found)
  },
)

export const settings: readonly Target[] = [
  registriesConf,
  hostsToml,
  authFile,
  providerConfig,
  policy,
  registriesD,
  storageConf,
  reference,
]
