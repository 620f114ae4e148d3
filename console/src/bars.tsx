// Bars over time, each of two parts.

import { count } from "./format";

export interface BarOf {
  name: string; // a month or a day
  lower: number;
  upper: number;
}

const H = 120;
const W = 1000;

export function Bars({ label, bars, chosen }: { label: string; bars: BarOf[]; chosen?: string }) {
  const most = Math.max(1, ...bars.map((bar) => bar.lower + bar.upper));
  const step = W / Math.max(1, bars.length);
  const height = (value: number): number => (value / most) * (H - 4);
  const figures = bars.filter((bar) => bar.lower + bar.upper > 0).map((bar) => `${bar.name} ${count(bar.lower + bar.upper)}`);
  const shown = new Set([0, Math.floor((bars.length - 1) / 2), bars.length - 1]);
  return (
    <figure class="bars">
      <svg viewBox={`0 0 ${W} ${H}`} preserveAspectRatio="none" role="img" aria-label={`${label}: ${figures.join(", ") || "none"}`}>
        {bars.map((bar, index) => {
          const [low, up] = [height(bar.lower), height(bar.upper)];
          const x = index * step + step * 0.12;
          return (
            <g key={bar.name} class={bar.name === chosen ? "chosen" : ""}>
              <title>{`${bar.name}: ${count(bar.lower)} + ${count(bar.upper)}`}</title>
              <rect class="room" x={index * step} y="0" width={step} height={H} />
              <rect class="lower" x={x} y={H - low} width={step * 0.76} height={low} />
              <rect class="upper" x={x} y={H - low - up} width={step * 0.76} height={up} />
            </g>
          );
        })}
      </svg>
      <div class="ticks muted" aria-hidden="true">
        {bars.map((bar, index) => shown.has(index) && <span key={bar.name}>{bar.name}</span>)}
      </div>
    </figure>
  );
}
