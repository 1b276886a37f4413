// The tables of docs/performance.md, made anew from records, so that no figure is copied by hand. In the text a table stands between
//
//   <!-- record NAME: METRIC, METRIC -->   all metrics where none is named
//   <!-- end -->
//
// and below it its plot, where there is one.
import { number, type Recorded } from './record.ts'

const TABLE = /(<!-- record ([\w-]+)(?:: ([^>]+?))? -->\n)[\s\S]*?(<!-- end -->)/g

/** `text` with its tables. A record that is not there leaves its table as it is. @param plotted records that have a plot, `NAME.svg` beside the page */
export function filled(
  text: string,
  recordOf: (name: string) => Recorded | undefined,
  plotted: readonly string[] = [],
): string {
  return text.replace(TABLE, (whole, opens: string, name: string, metrics: string | undefined, closes: string) => {
    const recorded = recordOf(name)
    if (recorded === undefined) return whole
    const plot = plotted.includes(name) ? `![${name}](${name}.svg)\n\n` : ''
    return `${opens}\n${tableOf(recorded, metrics?.split(', '))}\n${plot}${closes}`
  })
}

function tableOf({ case: name, rounds, subjects }: Recorded, chosen?: readonly string[]): string {
  const metrics = chosen ?? [...new Set(subjects.flatMap(({ median }) => Object.keys(median)))]
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [
    row([`\`${name}\`, medians of ${rounds}`, ...metrics]),
    `|---|${'--:|'.repeat(metrics.length)}`,
    ...subjects.map(({ name, median }) =>
      row([name, ...metrics.map((metric) => (median[metric] === undefined ? '' : number(median[metric])))]),
    ),
    '',
  ].join('\n')
}
