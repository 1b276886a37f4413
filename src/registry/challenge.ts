// What a registry asks of whoever it does not know: the WWW-Authenticate header (RFC 9110 11.6.1).

/** What a registry wants to see (RFC 9110 11.6.1, distribution's token specification). */
export type Challenge = { scheme: 'basic' } | { scheme: 'bearer'; realm: string; service: string | undefined }

const CHALLENGE_MAX_LENGTH = 4096

/** A WWW-Authenticate header's challenge that we can answer; bearer before basic. */
export function parseChallenge(header: string | undefined): Challenge | undefined {
  const text = (header ?? '').slice(0, CHALLENGE_MAX_LENGTH)
  const found: { scheme: string; parameters: Map<string, string> }[] = []
  // a token with "=" is a parameter of the scheme before it; one without begins a challenge
  const part = /[\s,]*([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*)))?/y
  for (;;) {
    const match = part.exec(text)
    if (match === null) break
    const [, name = '', quoted, plain] = match
    const value = quoted?.replace(/\\(.)/g, '$1') ?? plain
    if (value === undefined) found.push({ scheme: name.toLowerCase(), parameters: new Map() })
    else found.at(-1)?.parameters.set(name.toLowerCase(), value)
  }
  const bearer = found.find((each) => each.scheme === 'bearer' && each.parameters.get('realm'))
  if (bearer) {
    const { parameters } = bearer
    return { scheme: 'bearer', realm: parameters.get('realm') ?? '', service: parameters.get('service') }
  }
  return found.some((each) => each.scheme === 'basic') ? { scheme: 'basic' } : undefined
}
