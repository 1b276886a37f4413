// Plots of how something grows, as SVG: a panel a metric, both axes by ratio (so that twice as much is the same step everywhere), a line a subject, and its values
// written at its points, so that no axis needs reading.

export interface Plotted {
  title: string
  /** What x counts. */
  unit: string
  panels: readonly Panel[]
}

export interface Panel {
  /** With its unit. */
  metric: string
  lines: readonly Line[]
}

export interface Line {
  name: string
  points: readonly { x: number; y: number }[]
}

const PANEL = { width: 300, height: 190 }
/** Inside a panel: room for its heading, the values at the outermost points, and the sizes below. */
const MARGIN = { left: 30, right: 40, top: 40, bottom: 26 }
const COLUMNS = 3
const HEAD = 44
/** Of the colour-blind safe set by Okabe and Ito. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7']
const TEXT = 'font-family="sans-serif" fill="#333"'

/** The picture, on white; its text is the same on every machine. */
export function svg({ title, unit, panels }: Plotted): string {
  const rows = Math.ceil(panels.length / COLUMNS)
  const [width, height] = [Math.min(panels.length, COLUMNS) * PANEL.width, HEAD + rows * PANEL.height]
  const names = [...new Set(panels.flatMap(({ lines }) => lines.map(({ name }) => name)))]
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="12" y="18" font-size="14" font-weight="bold" ${TEXT}>${escaped(title)}</text>`,
    ...names.map((name, i) => text(12 + i * 150, 36, name, `font-size="12" fill="${colour(i)}"`)),
    ...panels.map((panel, i) => {
      const at = [(i % COLUMNS) * PANEL.width, HEAD + Math.floor(i / COLUMNS) * PANEL.height]
      return `<g transform="translate(${at.join(' ')})">\n${drawn(panel, unit, names).join('\n')}\n</g>`
    }),
    '</svg>\n',
  ].join('\n')
}

function drawn({ metric, lines }: Panel, unit: string, names: readonly string[]): string[] {
  const points = lines.flatMap((line) => line.points).filter(({ x, y }) => x > 0 && y > 0) // others have no place by ratio
  const right = scale(
    points.map(({ x }) => x),
    MARGIN.left,
    PANEL.width - MARGIN.right,
  )
  const up = scale(
    points.map(({ y }) => y),
    PANEL.height - MARGIN.bottom,
    MARGIN.top,
  )
  const sizes = [...new Set(points.map(({ x }) => x))]
  const bottom = PANEL.height - MARGIN.bottom
  return [
    text(12, 20, metric, 'font-size="12" font-weight="bold" fill="#333"'),
    `<path d="M${MARGIN.left - 10} ${bottom + 4}H${PANEL.width - 16}" stroke="#bbb"/>`,
    ...sizes.map((x) => text(right(x), bottom + 18, short(x), 'font-size="10" text-anchor="middle" fill="#777"')),
    text(PANEL.width - 12, bottom - 2, unit, 'font-size="9" text-anchor="end" fill="#aaa"'),
    ...lines.flatMap((line) => {
      const paint = colour(names.indexOf(line.name))
      const placed = line.points
        .filter((each) => points.includes(each))
        .map(({ x, y }) => ({ x: right(x), y: up(y), says: short(y) }))
      return [
        `<polyline points="${placed.map(({ x, y }) => `${x},${y}`).join(' ')}" fill="none" stroke="${paint}" stroke-width="1.5"/>`,
        ...placed.map(({ x, y }) => `<circle cx="${x}" cy="${y}" r="2.5" fill="${paint}"/>`),
        ...placed.map(({ x, y, says }) => text(x, y - 6, says, `font-size="10" text-anchor="middle" fill="${paint}"`)),
      ]
    }),
  ]
}

/** By ratio from the least to the most of `values`; where they are one, in the middle. To a tenth of a pixel. */
function scale(values: readonly number[], from: number, to: number): (value: number) => number {
  const [least, most] = [Math.log(Math.min(...values)), Math.log(Math.max(...values))]
  const share = (value: number) => (most === least ? 0.5 : (Math.log(value) - least) / (most - least))
  return (value) => Math.round((from + share(value) * (to - from)) * 10) / 10
}

function short(value: number): string {
  const [divisor, suffix] = value >= 1e6 ? [1e6, 'M'] : value >= 1e4 ? [1e3, 'k'] : [1, '']
  return `${Number((value / divisor).toPrecision(3)).toString()}${suffix}`
}

function text(x: number, y: number, says: string, how: string): string {
  return `<text x="${x}" y="${y}" font-family="sans-serif" ${how}>${escaped(says)}</text>`
}

const colour = (i: number) => COLOURS[i % COLOURS.length] as string
const escaped = (says: string) => says.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
