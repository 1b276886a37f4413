// Addresses where clouds and links keep their own services: whoever names an image, redirects a request or answers for a name must not
// have us ask them.
import { BlockList, isIP } from 'node:net'

/** IPv4, as subnets of `bits`. */
const OFF_LIMITS_4: readonly (readonly [string, number])[] = [
  ['169.254.0.0', 16], // RFC 3927; the metadata of most clouds
  ['100.100.100.200', 32], // Alibaba Cloud's metadata
  ['168.63.129.16', 32], // Azure's wire server
  ['192.0.0.192', 32], // Oracle Cloud's metadata, its older address
]

const OFF_LIMITS_6: readonly (readonly [string, number])[] = [
  ['fe80::', 10], // RFC 4291 2.5.6
  ['fd00:ec2::254', 128], // Amazon's metadata
  ['fd20:ce::254', 128], // Google's
  ['fd00:c1::a9fe:a9fe', 128], // Oracle's
  ['fd00:42::42', 128], // Scaleway's
  // translators to IPv4 (RFC 6052 2.1, RFC 8215): of their own they would reach all of the above
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
]

/** Before an IPv4 address in an IPv6 one, and how many bits that is. */
const CLOTHES: readonly (readonly [(address: string) => string, number])[] = [
  [(address) => `::ffff:${address}`, 96], // mapped, RFC 4291 2.5.5.2
  [(address) => `::${address}`, 96], // compatible, RFC 4291 2.5.5.1
  [(address) => `::ffff:0:${address}`, 96], // translated, RFC 2765 2.1
  [(address) => `2002:${groups(address)}::`, 16], // 6to4, RFC 3056 2
]

/** An IPv4 address as two groups of an IPv6 address. */
function groups(address: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number)
  return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
}

const OFF_LIMITS = new BlockList()
for (const [address, bits] of OFF_LIMITS_6) OFF_LIMITS.addSubnet(address, bits, 'ipv6')
for (const [address, bits] of OFF_LIMITS_4) {
  OFF_LIMITS.addSubnet(address, bits, 'ipv4')
  for (const [dress, before] of CLOTHES) OFF_LIMITS.addSubnet(dress(address), before + bits, 'ipv6')
}

/** Whether `host` is such an address, as URLs or sockets write it; a name never is: its addresses are. */
export function isOffLimits(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').replace(/%.*$/, '')
  const family = isIP(bare)
  return family !== 0 && OFF_LIMITS.check(bare, family === 4 ? 'ipv4' : 'ipv6')
}

/** What to do where it is meant. */
export const NAME_IT = 'If that is meant, name the host as a location in registries.conf of whoever runs lazylayer.'
