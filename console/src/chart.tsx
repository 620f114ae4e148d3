// A chart over the last minutes. The figures beside it say the same in words.

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Line {
  label: string;
  values: (number | null)[];
  colour: string; // name of a custom property of the style sheet
  dash?: number[];
  bars?: boolean;
}

interface Props {
  label: string;
  at: number[]; // Unix times, s
  lines: Line[];
  show: (value: number | null) => string;
}

const HEIGHT = 180;
const dark = matchMedia("(prefers-color-scheme: dark)");

export function Chart({ label, at, lines, show }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [theme, setTheme] = useState(dark.matches);
  useEffect(() => {
    const changed = (): void => setTheme(dark.matches);
    dark.addEventListener("change", changed);
    return () => dark.removeEventListener("change", changed);
  }, []);
  const data: uPlot.AlignedData = [at, ...lines.map((line) => line.values)];
  const shape = lines.map((line) => line.label).join();
  useEffect(() => {
    const parent = place.current;
    if (!parent) return;
    plot.current = new uPlot(options(parent, at, lines, show), data, parent);
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: inner(parent), height: HEIGHT }));
    observer.observe(parent);
    return () => {
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [theme, shape]);
  useEffect(() => plot.current?.setData(data), [at, lines]);
  return <div ref={place} class="chart" role="img" aria-label={label} />;
}

/** Seconds from one value to the next, so that the first and the last bar are whole. */
function step(at: number[]): number {
  return at.length > 1 ? (at[1] ?? 0) - (at[0] ?? 0) : 0;
}

function inner(parent: HTMLElement): number {
  const style = getComputedStyle(parent);
  return parent.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}

function options(parent: HTMLElement, at: number[], lines: Line[], show: Props["show"]): uPlot.Options {
  const style = getComputedStyle(parent);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--muted"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
    font: "12px system-ui, sans-serif",
  };
  return {
    width: inner(parent),
    height: HEIGHT,
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { range: (_, first, last) => [first - step(at) / 2, last + step(at) / 2] }, y: { range: (_, __, most) => [0, (most || 1) * 1.1] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map((tick) => new Date(1000 * tick).toLocaleTimeString("sv")), space: 80 },
      { ...axis, values: (_, ticks) => ticks.map(show), size: 64 },
    ],
    series: [
      { label: "until", value: (_, time) => (time === null ? "–" : new Date(1000 * time).toLocaleTimeString("sv")) },
      ...lines.map((line): uPlot.Series => {
        const base: uPlot.Series = { label: line.label, stroke: colour(line.colour), width: 1.5, value: (_, value) => show(value), points: { size: 4 } };
        if (line.dash) Object.assign(base, { dash: line.dash, points: { show: false } });
        if (line.bars && uPlot.paths.bars) Object.assign(base, { fill: colour(line.colour), paths: uPlot.paths.bars({ size: [0.7] }), points: { show: false } });
        return base;
      }),
    ],
  };
}
