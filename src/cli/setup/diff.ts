// A unified diff of two texts, as diff -u writes it and patch reads it.

const CONTEXT = 3
/** Lines between the first and the last difference, of both texts multiplied: more are shown as removed and added as a whole. */
const COMPARED_MAX = 4_000_000

type Line = { mark: ' ' | '-' | '+'; text: string }

/** '' when the texts are equal. `undefined` is no file. */
export function unifiedDiff(path: string, before: string | undefined, after: string | undefined): string {
  if (before === after) return ''
  const lines = compare(linesOf(before ?? ''), linesOf(after ?? ''))
  const name = (side: string | undefined, prefix: string) => (side === undefined ? '/dev/null' : `${prefix}${path}`)
  return `--- ${name(before, 'a')}\n+++ ${name(after, 'b')}\n${hunks(lines)}`
}

/** Each with its line feed, if it has one. */
function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? []
}

function compare(before: readonly string[], after: readonly string[]): Line[] {
  let head = 0
  while (head < before.length && head < after.length && before[head] === after[head]) head++
  let tail = 0
  while (
    tail < before.length - head &&
    tail < after.length - head &&
    before[before.length - 1 - tail] === after[after.length - 1 - tail]
  )
    tail++
  const same = (text: string): Line => ({ mark: ' ', text })
  return [
    ...before.slice(0, head).map(same),
    ...middle(before.slice(head, before.length - tail), after.slice(head, after.length - tail)),
    ...before.slice(before.length - tail).map(same),
  ]
}

/** By the longest common subsequence. */
function middle(before: readonly string[], after: readonly string[]): Line[] {
  const removed = (text: string): Line => ({ mark: '-', text })
  const added = (text: string): Line => ({ mark: '+', text })
  if (before.length * after.length > COMPARED_MAX) return [...before.map(removed), ...after.map(added)]
  const width = after.length + 1
  const longest = new Uint32Array((before.length + 1) * width)
  const at = (i: number, j: number) => longest[i * width + j] as number // within its bounds
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      longest[i * width + j] = before[i] === after[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
    }
  }
  const lines: Line[] = []
  let [i, j] = [0, 0]
  while (i < before.length || j < after.length) {
    const [old, new_] = [before[i], after[j]]
    if (old !== undefined && old === new_) {
      lines.push({ mark: ' ', text: old })
      i++
      j++
    } else if (old !== undefined && (new_ === undefined || at(i + 1, j) >= at(i, j + 1))) {
      lines.push(removed(old))
      i++
    } else {
      lines.push(added(new_ as string)) // one of both is left
      j++
    }
  }
  return lines
}

function hunks(lines: readonly Line[]): string {
  let text = ''
  let [old, new_] = [1, 1]
  for (let at = 0; at < lines.length; ) {
    const from = lines.findIndex((each, i) => i >= at && each.mark !== ' ')
    if (from < 0) break
    const start = Math.max(at, from - CONTEXT)
    let end = from
    // until so many equal lines follow that the next difference has a context of its own
    for (let i = from; i < lines.length && i <= end + 2 * CONTEXT; i++) if (lines[i]?.mark !== ' ') end = i
    const stop = Math.min(lines.length, end + 1 + CONTEXT)
    old += start - at
    new_ += start - at
    const hunk = lines.slice(start, stop)
    const olds = hunk.filter((each) => each.mark !== '+').length
    const news = hunk.filter((each) => each.mark !== '-').length
    text += `@@ -${range(old, olds)} +${range(new_, news)} @@\n${hunk.map(lineText).join('')}`
    old += olds
    new_ += news
    at = stop
  }
  return text
}

/** A range of no lines is named by the line before it. */
function range(start: number, count: number): string {
  return `${count === 0 ? start - 1 : start},${count}`
}

function lineText({ mark, text }: Line): string {
  return text.endsWith('\n') ? mark + text : `${mark}${text}\n\\ No newline at end of file\n`
}
