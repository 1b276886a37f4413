// What flags say, as whoever starts an agent gives it.
import { type Login, parseLogin } from '../registry/login.ts'

/** By name, without dashes; switches are true; what may be given several times is a list. */
export type Values = Readonly<Record<string, string | boolean | readonly string[] | undefined>>

export function text(values: Values, name: string): string | undefined {
  const value = values[name]
  return typeof value === 'string' ? value : undefined
}

/** What a flag says that may be given several times. */
export function texts(values: Values, name: string): readonly string[] {
  const value = values[name]
  return typeof value === 'object' ? value : []
}

/** --creds. @throws Failure usage */
export function givenLogin(values: Values): Login | undefined {
  const creds = text(values, 'creds')
  return creds === undefined ? undefined : parseLogin(creds)
}
