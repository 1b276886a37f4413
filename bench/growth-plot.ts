// What the record of a growth case shows, as a plot.
import type { Plotted } from './plot.ts'
import type { Recorded } from './record.ts'

/** A subject of `growth.ts` is called `WHO, SIZE UNIT`. */
const NAME = /^(.+), ([\d,]+) (\w+)$/

export function growthPlot({ case: name, rounds, subjects }: Recorded): Plotted {
  const sized = subjects.map((each) => {
    const [, who = each.name, size = '', unit = ''] = NAME.exec(each.name) ?? []
    return { who, size: Number(size.replaceAll(',', '')), unit, median: each.median }
  })
  const metrics = [...new Set(sized.flatMap(({ median }) => Object.keys(median)))]
  return {
    title: `${name}, medians of ${rounds}`,
    unit: sized[0]?.unit ?? '',
    panels: metrics.map((metric) => ({
      metric,
      lines: [...new Set(sized.map(({ who }) => who))].map((who) => ({
        name: who,
        points: sized
          .filter((each) => each.who === who)
          .flatMap(({ size, median }) => (median[metric] === undefined ? [] : { x: size, y: median[metric] })),
      })),
    })),
  }
}
