// Drawings of a plan: how busy devices are, what is in their memory, when first tokens come. Tables say the same.

import { bytes, percent, seconds } from "../format";
import type { PlanFirstTokens, PlanModel, PlanPool } from "../types";

const COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e"];
const MOST = 24; // lines or bars
const MOST_MODELS = 40;
const PARTS = [
  ["weights", "weights_bytes", 1],
  ["cache", "cache_bytes", 0.55],
  ["other", "other_bytes", 0.3],
] as const;

const colour = (index: number): string => COLOURS[index % COLOURS.length] ?? "";

/** A line for each pool over the hours of the demand. */
export function Busy({ pools }: { pools: PlanPool[] }) {
  const drawn = pools.filter((pool) => pool.hours.length > 1).slice(0, MOST);
  if (drawn.length === 0) return null;
  const most = Math.max(0.01, ...drawn.flatMap((pool) => pool.hours));
  const said = drawn.map((pool) => `${pool.pool} at most ${percent(Math.max(...pool.hours))}`).join(", ");
  return (
    <figure class="plan-drawing">
      <figcaption class="note muted">Part of a device's time with full batches, hour by hour; the top is {percent(most)}.</figcaption>
      <svg viewBox="0 0 900 170" role="img" aria-label={`Busy, hour by hour: ${said}`}>
        <line class="axis" x1="0" x2="900" y1="165" y2="165" />
        {drawn.map((pool, index) => (
          <polyline key={pool.pool} stroke={colour(index)} points={pool.hours.map((value, hour) => `${((900 * hour) / (pool.hours.length - 1)).toFixed(1)},${(165 - (160 * value) / most).toFixed(1)}`).join(" ")}>
            <title>{pool.pool}</title>
          </polyline>
        ))}
      </svg>
      <Key names={drawn.map((pool) => pool.pool)} />
    </figure>
  );
}

/** A bar for each pool: one of its devices, while its largest models are awake. */
export function Memory({ pools }: { pools: PlanPool[] }) {
  const drawn = pools.slice(0, MOST);
  const most = Math.max(1, ...drawn.map((pool) => pool.memory.device_bytes));
  return (
    <figure class="plan-drawing">
      <figcaption class="note muted">One device of each pool while its largest models are awake: weights, lighter the cache, lightest the rest.</figcaption>
      {drawn.map((pool) => (
        <div class="lane" key={pool.pool}>
          <span class="lane-name">{pool.pool}</span>
          <svg viewBox="0 0 660 18" preserveAspectRatio="none" role="img" aria-label={held(pool)}>
            {bars(pool, 660 / most)}
            <rect class="device" x="0.5" y="0.5" width={Math.max(0, (660 * pool.memory.device_bytes) / most - 1)} height="17" />
          </svg>
        </div>
      ))}
    </figure>
  );
}

function bars(pool: PlanPool, scale: number) {
  let x = 0;
  return pool.memory.awake.flatMap((one, number) =>
    PARTS.map(([name, field, opacity]) => {
      const width = Math.max(0, one[field] * scale);
      const at = x;
      x += width;
      return (
        <rect key={`${one.model} ${name}`} x={at} y="1" width={width} height="16" fill={colour(number)} opacity={opacity}>
          <title>{`${one.model}: ${name} ${bytes(one[field])}`}</title>
        </rect>
      );
    }),
  );
}

function held(pool: PlanPool): string {
  const awake = pool.memory.awake.map((one) => `${one.model} ${bytes(one.weights_bytes + one.cache_bytes + Math.max(0, one.other_bytes))}`);
  return `${pool.pool}: of ${bytes(pool.memory.device_bytes)}, ${awake.join(", ")}`;
}

/** A row for each model, from half of the first tokens to 99 %, on a logarithmic axis from 10 ms to 100 s. */
export function FirstTokens({ models, measured }: { models: PlanModel[]; measured: Map<string, [number, number]> }) {
  const drawn = models.filter((model) => model.first_token_p50_s).slice(0, MOST_MODELS);
  if (drawn.length === 0) return null;
  return (
    <figure class="plan-drawing">
      <figcaption class="note muted">
        From the first token of half of the requests to that of 99 %, 10 ms to 100 s, logarithmic: simulated, hollow in the second plan, below it as measured since; the line is the objective.
      </figcaption>
      {drawn.map((model) => (
        <div class="lane" key={model.model}>
          <span class="lane-name">{model.model}</span>
          <svg viewBox="0 0 660 18" preserveAspectRatio="none" role="img" aria-label={tokens(model, measured.get(model.model))}>
            {[0.1, 1, 10].map((s) => (
              <line key={s} class="axis" x1={at(s)} x2={at(s)} y1="0" y2="18" />
            ))}
            <Range of={model} y={2} height={7} />
            {model.in_the_second_plan && <Range of={model.in_the_second_plan} y={4} height={3} hollow />}
            {measured.has(model.model) && <Span span={measured.get(model.model) ?? [0, 0]} y={11} height={5} colour={colour(4)} />}
            {model.objective_s !== null && <line class="objective" x1={at(model.objective_s)} x2={at(model.objective_s)} y1="0" y2="18" />}
          </svg>
        </div>
      ))}
      {models.length > drawn.length && <p class="note muted">The first {drawn.length} are drawn; the table has the others.</p>}
    </figure>
  );
}

function Range({ of, y, height, hollow }: { of: PlanFirstTokens; y: number; height: number; hollow?: boolean }) {
  const low = of.first_token_p50_s?.[0];
  const high = of.first_token_p99_s?.[0];
  return low === undefined || high === undefined ? null : <Span span={[low, high]} y={y} height={height} colour={colour(hollow ? 1 : 0)} hollow={hollow} />;
}

function Span({ span: [low, high], y, height, colour: paint, hollow }: { span: [number, number]; y: number; height: number; colour: string; hollow?: boolean }) {
  const width = Math.max(2, at(high) - at(low));
  return (
    <rect x={at(low)} y={y} width={width} height={height} fill={hollow ? "none" : paint} stroke={hollow ? paint : "none"}>
      <title>{`p50 ${seconds(low)}, p99 ${seconds(high)}`}</title>
    </rect>
  );
}

const at = (s: number): number => (660 * (Math.min(2, Math.max(-2, Math.log10(Math.max(s, 1e-9)))) + 2)) / 4;

function tokens(model: PlanModel, measured: [number, number] | undefined): string {
  const told = `p50 ${seconds(model.first_token_p50_s?.[0])}, p99 ${seconds(model.first_token_p99_s?.[0])}`;
  return `${model.model}: simulated ${told}${measured ? `; measured p50 ${seconds(measured[0])}, p99 ${seconds(measured[1])}` : ""}`;
}

function Key({ names }: { names: string[] }) {
  return (
    <p class="note plan-key">
      {names.map((name, index) => (
        <span key={name}>
          <span class="lane-key" style={{ background: colour(index) }} /> {name}
        </span>
      ))}
    </p>
  );
}
