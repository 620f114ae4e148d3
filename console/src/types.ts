// What /admin/v1 answers, as far as the page reads it. Field by field as in /admin/v1/openapi.json.

export type Verdict = "green" | "slow" | "failing";

export interface Figures {
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

export interface Model extends Figures {
  tenant: string;
  model: string;
  adapter: string | null;
  pool: string;
  verdict: Verdict;
  reason: string;
  limit_s: number;
  limit_source: "objective" | "usual" | "default";
  usual_s: number | null;
  queued: number;
  oldest_s: number;
}

export interface Slot {
  adapter: string;
  use: "running" | "pinned" | "idle" | "clearing";
  pinned: boolean;
  sequences: number;
  held_s: number | null;
}

export interface Replica {
  name: string;
  base_model: string;
  state: "ready" | "draining" | "failed" | "not_ready" | "not_trusted";
  trouble: string;
  sequences: number;
  capacity: number;
  tokens: number;
  kv_tokens: number;
  itl_s: number | null;
  slots: number;
  in_slots: Slot[];
  in_host: number;
  faults: number;
  clearing_for: string | null;
}

export interface PoolTenant {
  name: string;
  band: string;
  queued: number;
  tickets: number;
  slots: number;
}

export interface Pool {
  name: string;
  ttft_slo_s: number | null;
  itl_slo_s: number | null;
  queued_by_band: Record<string, number>;
  replicas: Replica[];
  tenants: PoolTenant[];
  tenants_left_out: number;
}

export interface Snapshot {
  at: number;
  window_s: number;
  total: Figures;
  queued: number;
  models: Model[];
  models_left_out: number;
  other: Figures | null;
  pools: Pool[];
}

export interface ModelHistory {
  tenant: string;
  model: string;
  first_token_p99_s: (number | null)[];
  queue_p99_s: (number | null)[];
  requests: number[];
  errors: number[];
  completion_tokens: number[];
}

export interface History {
  ends_at: number;
  bucket_s: number;
  buckets: number;
  models: ModelHistory[];
}

export interface Decision {
  ago_s: number;
  action: "granted" | "queued" | "rejected" | "expired" | "clearing";
  reason: string;
  request_id: string;
  tenant: string;
  model: string;
  pool: string;
  replica: string | null;
  waited_s: number;
}

export interface Resident {
  replica: string;
  place: "slot" | "host";
  pinned: boolean;
  draining: boolean;
  in_flight: number;
}

export interface Version {
  number: number;
  state: string;
  reason: string;
  source: string;
  digest: string | null;
  rank: number | null;
  size_bytes: number;
  created_at: number;
  traffic: number;
  resident: Resident[];
}

export interface Rollout {
  candidate: number;
  weight: number;
  min_requests: number;
  promote_after: number | null;
  max_error_rise: number;
  max_latency_ratio: number;
}

export interface AdapterSummary {
  tenant: string | null;
  name: string;
  base_model: string;
  declared: boolean;
  pinned: boolean;
  state: string | null;
  live: number | null;
  previous: number | null;
  rollout: Rollout | null;
  newest: number | null;
}

export interface Adapter extends AdapterSummary {
  versions: Version[];
}

export interface Fault {
  adapter: string;
  kind: string;
  count: number;
  reason: string;
}

export interface ReplicaDetail {
  name: string;
  faults: Fault[];
}

export interface Tenant {
  name: string;
  band: string;
  weight: number;
  isolation: string;
  models: Record<string, string>;
  default_model: string | null;
  declared_keys: number;
  caps: Record<string, number | null>;
}

export interface UsageLine {
  day: string;
  requests: number;
  prompt_tokens: number;
  completion_tokens: number;
  slot_s: number;
}

export interface Budget {
  monthly_tokens: number;
  used_tokens: number;
  remaining_tokens: number;
  level: "below" | "soft" | "spent";
  resets_at: string;
}

export interface Key {
  id: string;
  prefix: string;
  role: string;
  tenant: string | null;
  note: string;
  created_at: number;
  expires_at: number | null;
  revoked_at: number | null;
}

export interface DeclaredKey {
  fingerprint: string;
  role: string;
}

export interface OperatorEvent {
  id: number;
  at: number;
  actor: string;
  subject: string;
  text: string;
}
