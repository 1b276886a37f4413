// What flags say, as whoever starts an agent gives it.

/** By name, without dashes; switches are true. */
export type Values = Readonly<Record<string, string | boolean | undefined>>

export function text(values: Values, name: string): string | undefined {
  const value = values[name]
  return typeof value === 'string' ? value : undefined
}
