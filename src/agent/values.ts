// What flags say, as whoever starts an agent gives it.
import { type Login, parseLogin } from '../registry/login.ts'

/** By name, without dashes; switches are true. */
export type Values = Readonly<Record<string, string | boolean | undefined>>

export function text(values: Values, name: string): string | undefined {
  const value = values[name]
  return typeof value === 'string' ? value : undefined
}

/** --creds. @throws Failure usage */
export function givenLogin(values: Values): Login | undefined {
  const creds = text(values, 'creds')
  return creds === undefined ? undefined : parseLogin(creds)
}
