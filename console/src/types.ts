// Made by `make console` from the admin API's answers (console/api_types.py). Every field is always there,
// except those of usage that were not asked for.

export type Action = "granted" | "queued" | "rejected" | "expired" | "draining" | "fallback";

export interface AdapterAnswer {
  tenant: string | null;
  name: string;
  base_model: string;
  declared: boolean;
  pinned: boolean;
  state: VersionState | null;
  live: number | null;
  previous: number | null;
  rollout: RolloutAnswer | null;
  newest: number | null;
  newest_state: VersionState | null;
  versions: VersionDetail[];
}

export interface AdapterList {
  object: "list";
  data: AdapterSummary[];
  next: string | null;
}

export interface AdapterSummary {
  tenant: string | null;
  name: string;
  base_model: string;
  declared: boolean;
  pinned: boolean;
  state: VersionState | null;
  live: number | null;
  previous: number | null;
  rollout: RolloutAnswer | null;
  newest: number | null;
  newest_state: VersionState | null;
}

export interface AliasAnswer {
  tenant: string;
  alias: string;
  model: string;
  changed_at: number;
  changed_by: string;
}

export interface AliasList {
  object: string;
  data: AliasAnswer[];
}

export type Band = "high" | "standard" | "low";

export interface BatchCounts {
  total: number;
  completed: number;
  failed: number;
}

export interface BatchList {
  object: "list";
  data: BatchProgress[];
}

export interface BatchProgress {
  id: string;
  tenant: string;
  endpoint: string;
  status: "validating" | "failed" | "in_progress" | "finalizing" | "completed" | "expired" | "cancelling" | "cancelled";
  created_at: number;
  expires_at: number;
  request_counts: BatchCounts;
  reason: string | null;
}

export interface BudgetAnswer {
  tenant: string;
  monthly_tokens: number | null;
  used_tokens: number | null;
  remaining_tokens: number | null;
  monthly_cost: string | null;
  used_cost: string | null;
  remaining_cost: string | null;
  level: Level;
  resets_at: string;
}

export interface CapsAnswer {
  max_concurrency: number;
  max_concurrency_per_model: number | null;
  max_queued: number;
  max_queued_tokens: number | null;
  requests_per_minute: number | null;
  tokens_per_minute: number | null;
  queue_timeout_s: number;
}

export interface DecisionAnswer {
  ago_s: number;
  action: Action;
  reason: string;
  request_id: string;
  tenant: string;
  model: string;
  base_model: string;
  pool: string;
  replica: string | null;
  waited_s: number;
}

export interface DeclaredKeyAnswer {
  fingerprint: string;
  role: KeyRole;
  tenant: string | null;
  name: string;
  limits: KeyLimitsAnswer;
  used_tokens: number | null;
  declared: true;
}

export interface EventAnswer {
  id: number;
  at: number;
  actor: string;
  subject: string;
  text: string;
  tenant: string | null;
  changes: Record<string, unknown[]>;
}

export interface EventList {
  object: "list";
  data: EventAnswer[];
}

export interface Fault {
  adapter: string;
  kind: string;
  count: number;
  reason: string;
}

export interface FiguresAnswer {
  requests: number;
  requests_per_s: number;
  tokens_per_s: number;
  failed: number;
  late: number;
  capped: number;
  error_rate: number;
  first_token_p50_s: number | null;
  first_token_p99_s: number | null;
  queue_p99_s: number | null;
  answer_p50_s: number | null;
  answer_p99_s: number | null;
}

export interface HistoryAnswer {
  tenant: string;
  model: string;
  first_token_p99_s: (number | null)[];
  queue_p99_s: (number | null)[];
  requests: number[];
  errors: number[];
  completion_tokens: number[];
}

export type Isolation = "shared" | "dedicated";

export interface KeyAnswer {
  id: string;
  prefix: string;
  role: KeyRole;
  tenant: string | null;
  note: string;
  created_at: number;
  expires_at: number | null;
  revoked_at: number | null;
  limits: KeyLimitsAnswer;
  used_tokens: number | null;
  declared: false;
}

export interface KeyLimitsAnswer {
  max_concurrency: number | null;
  max_queued: number | null;
  requests_per_minute: number | null;
  tokens_per_minute: number | null;
  monthly_tokens: number | null;
}

export interface KeyList {
  object: "list";
  data: KeyAnswer[];
  declared: DeclaredKeyAnswer[];
}

export type KeyRole = "inference" | "adapters" | "operator";

export type Level = "below" | "soft" | "spent";

export type LimitSource = "objective" | "usual" | "default";

export interface LiveDecisions {
  data: DecisionAnswer[];
  left_out: number;
}

export interface LiveHistory {
  ends_at: number;
  bucket_s: number;
  buckets: number;
  models: HistoryAnswer[];
}

export interface LiveSnapshot {
  at: number;
  window_s: number;
  total: FiguresAnswer;
  queued: number;
  models: ModelAnswer[];
  models_left_out: number;
  other: FiguresAnswer | null;
  pools: PoolView[];
}

export interface LookAnswer {
  from_s: number;
  to_s: number;
  wish: "stay" | "consolidate" | "split" | "rearrange";
  advice: "stay" | "consolidate" | "split" | "rearrange";
  said: string;
  devices: LookDevices;
  models: LookModel[];
  models_left_out: number;
  pools: LookPool[];
  differs: string[];
}

export interface LookDevices {
  now: number | null;
  anew: number;
}

export interface LookModel {
  model: string;
  requests: number;
  requests_per_day: number;
  planned_requests_per_day: number | null;
  first_token_p50_s: number | null;
  first_token_p99_s: number | null;
  planned_p50_s: number | null;
  planned_p99_s: number | null;
  objective_s: number | null;
  in_time: number | null;
  is_late: boolean;
}

export interface LookPool {
  pool: string;
  busy: number;
  planned_busy: number | null;
  switching: number;
  planned_switching: number | null;
}

export interface Measures {
  requests: number;
  estimated_requests: number;
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens: number;
  queue_s: number;
  run_s: number;
  slot_s: number;
  engine_s: number;
  switch_s: number;
  priced_requests: number;
  cost: string | null;
}

export interface ModelAnswer {
  requests: number;
  requests_per_s: number;
  tokens_per_s: number;
  failed: number;
  late: number;
  capped: number;
  error_rate: number;
  first_token_p50_s: number | null;
  first_token_p99_s: number | null;
  queue_p99_s: number | null;
  answer_p50_s: number | null;
  answer_p99_s: number | null;
  tenant: string;
  model: string;
  adapter: string | null;
  pool: string;
  verdict: Verdict;
  reason: string;
  limit_s: number;
  limit_source: LimitSource;
  usual_s: number | null;
  queued: number;
  oldest_s: number;
}

export interface ModelAtHostAnswer {
  pool: string;
  host: string;
  model: string;
  state: string;
  since_s: number;
  running: number;
  waiting: number;
  oldest_s: number;
  pinned: boolean;
  held: string;
  cost_s: number | null;
  way: string;
  took_s: Record<string, number>;
  memory_bytes: number;
  awake_s: number;
  reason: string;
  resting: Record<string, string>;
}

export interface ModelList {
  data: ModelAtHostAnswer[];
  turns: TurnAnswer[];
}

export interface NewKeyAnswer {
  id: string;
  prefix: string;
  role: KeyRole;
  tenant: string | null;
  note: string;
  created_at: number;
  expires_at: number | null;
  revoked_at: number | null;
  limits: KeyLimitsAnswer;
  used_tokens: number | null;
  declared: false;
  key: string;
}

export type Outcome = "completed" | "rejected" | "expired" | "cancelled" | "failed";

export interface PlanAnswer {
  source: string;
  duration_s: number;
  meets_objectives: boolean;
  devices: PlanDevices;
  money_per_hour: number | null;
  ways: PlanWay[];
  models: PlanModel[];
  models_left_out: number;
  pools: PlanPool[];
  would_change: string[];
  not_known: string[];
}

export interface PlanDevices {
  now: number | null;
  planned: number;
}

export interface PlanFirstTokens {
  first_token_p50_s: number[] | null;
  first_token_p99_s: number[] | null;
}

export interface PlanHeld {
  model: string;
  weights_bytes: number;
  cache_bytes: number;
  other_bytes: number;
}

export interface PlanKept {
  object: "plan";
  plan: PublishedPlan | null;
  look: PublishedLook | null;
}

export interface PlanMemory {
  device_bytes: number;
  awake: PlanHeld[];
  asleep_bytes: number;
}

export interface PlanModel {
  model: string;
  pool: string;
  served: string;
  why: string;
  requests_per_day: number;
  objective_s: number | null;
  missed: string | null;
  in_time: number | null;
  first_token_p50_s: number[] | null;
  first_token_p99_s: number[] | null;
  in_the_second_plan: PlanFirstTokens | null;
}

export interface PlanPool {
  pool: string;
  strategy: string;
  models: string[];
  hosts: number;
  awake: number;
  device: string;
  profile: string | null;
  busy: number[] | null;
  switching: number[] | null;
  switches_per_h: number[] | null;
  memory: PlanMemory;
  hours: number[];
}

export interface PlanWay {
  way: string;
  devices: number | null;
  money_per_hour: number | null;
  why_not: string;
}

export interface PoolView {
  name: string;
  ttft_slo_s: number | null;
  itl_slo_s: number | null;
  queued_by_band: Record<string, number>;
  replicas: ReplicaView[];
  tenants: TenantView[];
  tenants_left_out: number;
}

export interface Progress {
  done_bytes: number;
  total_bytes: number | null;
}

export interface PublishedLook {
  at: number;
  actor: string;
  answer: LookAnswer;
}

export interface PublishedPlan {
  at: number;
  actor: string;
  answer: PlanAnswer;
}

export interface ReplicaAnswer {
  name: string;
  pool: string;
  base_model: string;
  ready: boolean;
  state: ReplicaState;
  reason: string;
  outdated: boolean;
  slots: number;
  in_flight: number;
  leases: Record<string, number>;
  answered: boolean;
  engine_starts: number;
  in_slots: string[];
  in_host: string[];
  pinned: string[];
  draining: string[];
  faults: Fault[];
}

export interface ReplicaList {
  object: "list";
  data: ReplicaAnswer[];
}

export type ReplicaState = "ready" | "draining" | "failed" | "away" | "not_ready" | "not_trusted";

export interface ReplicaView {
  name: string;
  base_model: string;
  state: ReplicaState;
  ready: boolean;
  draining: boolean;
  failed: boolean;
  reason: string;
  trusted: boolean;
  sequences: number;
  capacity: number;
  max_sequences: number;
  tokens: number;
  kv_tokens: number;
  itl_s: number | null;
  outdated: boolean;
  slots: number;
  free_slots: number;
  slot_drains_for: string | null;
  slot_evicted: string | null;
  trouble: string;
  in_slots: Slot[];
  in_host: number;
  faults: number;
}

export interface Resident {
  replica: string;
  place: "slot" | "host";
  pinned: boolean;
  draining: boolean;
  in_flight: number;
}

export interface RolloutAnswer {
  candidate: number;
  weight: number;
  min_requests: number;
  promote_after: number | null;
  max_error_rise: number;
  max_empty_rise: number;
  max_latency_ratio: number;
}

export interface Slot {
  adapter: string;
  use: SlotUse;
  pinned: boolean;
  sequences: number;
  leased_s: number | null;
}

export type SlotUse = "running" | "pinned" | "idle" | "draining";

export interface TenantAnswer {
  name: string;
  band: Band;
  weight: number;
  isolation: Isolation;
  models: Record<string, string>;
  fallbacks: Record<string, string>;
  default_model: string | null;
  declared_keys: number;
  caps: CapsAnswer;
  suspended: boolean;
}

export interface TenantChangedAnswer {
  tenant: TenantDetail;
  dry_run: boolean;
  words: string[];
  changes: Record<string, unknown[]>;
  key: NewKeyAnswer | null;
}

export interface TenantDetail {
  name: string;
  state: string;
  declared: boolean;
  admitted: boolean;
  generation: number;
  account: string;
  revision: number;
  changed_at: number | null;
  changed_by: string | null;
  values: ValueAnswer[];
  problems: string[];
  aliases: AliasAnswer[];
}

export interface TenantList {
  object: string;
  data: TenantAnswer[];
}

export interface TenantView {
  name: string;
  band: string;
  queued: number;
  tickets: number;
  slots: number;
}

export interface TurnAnswer {
  at: number;
  pool: string;
  host: string;
  model: string;
  instead_of: string | null;
  what: string;
  why: string;
  took_s: number;
  way: string;
}

export interface UsageAnswer {
  object: string;
  from: string;
  to: string;
  group_by: string[];
  currency: string | null;
  data: UsageLineAnswer[];
  total: Measures;
  budgets: BudgetAnswer[];
}

export interface UsageLineAnswer {
  requests: number;
  estimated_requests: number;
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens: number;
  queue_s: number;
  run_s: number;
  slot_s: number;
  engine_s: number;
  switch_s: number;
  priced_requests: number;
  cost: string | null;
  day: string;
  tenant: string;
  key: string | null;
  model: string;
  adapter: string | null;
  version: number | null;
  pool: string;
  outcome: Outcome;
}

export interface ValueAnswer {
  path: string;
  value: unknown;
  source: ValueSource;
  at: number | null;
  by: string | null;
  declared: unknown;
}

export type ValueSource = "run time" | "fleet.yaml" | "default";

export type Verdict = "failing" | "slow" | "green";

export interface VersionAnswer {
  tenant: string | null;
  adapter: string;
  number: number;
  state: VersionState;
  reason: string;
  source: string;
  sha256: string | null;
  digest: string | null;
  rank: number | null;
  size_bytes: number;
  created_at: number;
  traffic: number;
  progress: Progress | null;
}

export interface VersionDetail {
  tenant: string | null;
  adapter: string;
  number: number;
  state: VersionState;
  reason: string;
  source: string;
  sha256: string | null;
  digest: string | null;
  rank: number | null;
  size_bytes: number;
  created_at: number;
  traffic: number;
  progress: Progress | null;
  resident: Resident[];
}

export type VersionState = "registered" | "fetching" | "verifying" | "ready" | "quarantined" | "retired";

export interface WakeAnswer {
  model: string;
  pool: string;
  host: string | null;
  instead_of: string | null;
  wait_s: number | null;
  why: string;
  affected: Record<string, number>;
}

export interface WakeList {
  data: WakeAnswer[];
}

export interface WhoAmIAnswer {
  object: "caller";
  role: KeyRole;
  tenant: string | null;
  user: string | null;
}
