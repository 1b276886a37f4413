// Forward proxies, as engines read them from the environment (Go's golang.org/x/net/http/httpproxy).
import { BlockList, isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import { Failure } from '../errors.ts'

/** Whom requests go through. */
export interface ForwardProxy {
  /** `http:` or `https:`, without credentials. */
  url: URL
  /** For the proxy alone. */
  authorization: string | undefined
}

/** @returns the proxy for a URL; undefined: it is asked directly. @throws Failure usage: the variable that would say is no proxy's URL */
export type Proxies = (url: URL) => ForwardProxy | undefined

type Environment = Readonly<Record<string, string | undefined>>
/** `host` has no brackets. */
type Exception = (host: string, port: string) => boolean

/** Of equal names the one in capital letters counts, as engines have it. */
export function proxiesOf(env: Environment): Proxies {
  const read = (name: string) => {
    const key = [name, name.toLowerCase()].find((each) => (env[each] ?? '') !== '')
    return key === undefined ? undefined : { key, text: env[key] as string } // it was found
  }
  // in a CGI script, HTTP_PROXY is what a client's header "Proxy" says
  const http = env.REQUEST_METHOD === undefined ? read('HTTP_PROXY') : undefined
  const https = read('HTTPS_PROXY')
  const exceptions = parseExceptions(read('NO_PROXY')?.text ?? '')
  return (url) => {
    const variable = url.protocol === 'https:' ? https : http
    if (variable === undefined) return undefined
    const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
    const port = url.port || (url.protocol === 'https:' ? '443' : '80')
    if (host === 'localhost' || isLoopback(host) || exceptions.some((each) => each(host, port))) return undefined
    return parseProxy(variable.text, variable.key)
  }
}

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

function isLoopback(host: string): boolean {
  const family = isIP(host)
  return family !== 0 && LOOPBACK.check(host, family === 4 ? 'ipv4' : 'ipv6')
}

/** @throws Failure usage: without its text, which may hold a password */
function parseProxy(text: string, key: string): ForwardProxy {
  // `proxy.example.com:3128` is no URL, or one of an unknown scheme
  const url = [text, ...(text.includes('://') ? [] : [`http://${text}`])]
    .map((each) => (URL.canParse(each) ? new URL(each) : undefined))
    .find((each) => each?.host)
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw Failure.usage(`${key} names no proxy that can be used`, {
      why: url === undefined ? 'it is no URL' : `its scheme is ${url.protocol}`,
      fix: `Set ${key} to http://HOST:PORT or https://HOST:PORT.`,
    })
  }
  const { username, password } = url
  const login = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  const authorization =
    username === '' && password === '' ? undefined : `Basic ${Buffer.from(login).toString('base64')}`
  return { url: new URL(url.origin), authorization }
}

/** NO_PROXY: names with all that is below them, `.below`, addresses, networks, each with a port where it says so; `*`. */
function parseExceptions(text: string): Exception[] {
  const found: Exception[] = []
  for (const part of text.toLowerCase().split(',')) {
    const entry = part.trim()
    if (entry === '*') return [() => true]
    const exception = entry === '' ? undefined : (network(entry) ?? place(entry))
    if (exception !== undefined) found.push(exception)
  }
  return found
}

function network(entry: string): Exception | undefined {
  const [address = '', bits = '', ...more] = entry.split('/')
  const family = isIP(address)
  if (family === 0 || more.length > 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > (family === 4 ? 32 : 128))
    return undefined
  const list = new BlockList()
  list.addSubnet(address, Number(bits), family === 4 ? 'ipv4' : 'ipv6')
  return (host) => isIn(list, host)
}

function isIn(list: BlockList, host: string): boolean {
  const family = isIP(host)
  return family !== 0 && list.check(host, family === 4 ? 'ipv4' : 'ipv6')
}

function place(entry: string): Exception | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::([^:]*))?$/.exec(entry) ?? [
    undefined,
    undefined,
    entry,
    undefined,
  ]
  const name = bracketed ?? plain ?? ''
  if (name === '') return undefined
  const hasPort = (of: string) => port === undefined || port === '' || port === of
  const family = isIP(name)
  if (family !== 0) {
    const list = new BlockList()
    list.addAddress(name, family === 4 ? 'ipv4' : 'ipv6')
    return (host, of) => hasPort(of) && isIn(list, host)
  }
  const below = name.startsWith('*.') || name.startsWith('.')
  const bare = name.replace(/^\*?\./, '')
  const domain = domainToASCII(bare) || bare
  return (host, of) => hasPort(of) && ((!below && host === domain) || host.endsWith(`.${domain}`))
}
