// What the agent tells whoever started it, on stderr.

export const log = (message: string): void => {
  process.stderr.write(`lazylayer: ${printable(message)}\n`)
}

/** What steers a terminal, or has it show text in another order or on several lines. */
const STEERING = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu

/** In one line, and without control characters: what comes from images and registries would otherwise steer the terminal. */
export function printable(text: string): string {
  return text.replace(STEERING, (each) => {
    const code = each.charCodeAt(0).toString(16)
    return code.length > 2 ? `\\u${code.padStart(4, '0')}` : `\\x${code.padStart(2, '0')}`
  })
}

/** JSON text of which the same holds, and that says the same: such characters stand in strings alone, but for line breaks. */
export function printableJson(json: string): string {
  return json.replace(STEERING, (each) =>
    each === '\n' ? each : `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
