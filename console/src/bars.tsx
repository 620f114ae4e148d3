// Bars over time, each of two parts. The table beside them says the same in figures.

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
  const shown = new Set([0, Math.floor((bars.length - 1) / 2), bars.length - 1]);
  return (
    <figure class="bars">
      <svg viewBox={`0 0 ${W} ${H}`} preserveAspectRatio="none" role="img" aria-label={label}>
        {bars.map((bar, index) => {
          const [low, up] = [height(bar.lower), height(bar.upper)];
          const x = index * step + step * 0.12;
          return (
            <g key={bar.name} class={bar.name === chosen ? "chosen" : ""}>
              <title>{`${bar.name}: ${bar.lower + bar.upper}`}</title>
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
