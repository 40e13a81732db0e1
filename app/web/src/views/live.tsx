// Live: what the server does now, from /metrics, kept for the last minutes in this page only.
import { signal } from "@preact/signals";
import { ApiError, call, inWords } from "../lib/api";
import { bytes, milliseconds, short } from "../lib/format";
import { increase, parseMetrics, quantile, total, type Scrape, type Wanted } from "../lib/prometheus";
import { whileOpen } from "../lib/url";
import { Card, Empty, Problem } from "../parts/basics";
import { Chart } from "../parts/chart";

const EVERY_MS = 2000;
const KEPT = 150;
// What pages and probes ask for is no traffic of users: this page's own questions would be most of it.
const INTERNAL = /^\/(metrics|console|health|ping|docs|openapi|$)|^unmatched$/;
const ofUsers = (labels: Record<string, string>) => !INTERNAL.test(labels.route ?? "");
const answered = (labels: Record<string, string>) => ofUsers(labels) && labels.outcome === "ok";

interface Point {
  at: number;
  requests: number;
  tokens: number;
  p50: number;
  p99: number;
  queue: number;
  busy: number;
  fill: number;
  hits: number;
}

const points = signal<Point[]>([]);
const latest = signal<Scrape | null>(null);
const problem = signal("");
const hidden = signal(false);

let before: { scrape: Scrape; at: number } | null = null;

async function scrape(): Promise<void> {
  try {
    const text = await (await call("metrics")).text();
    const now = { scrape: parseMetrics(text), at: Date.now() / 1000 };
    problem.value = "";
    hidden.value = false;
    latest.value = now.scrape;
    if (before) points.value = [...points.value, pointBetween(before, now)].slice(-KEPT);
    before = now;
  } catch (error) {
    hidden.value = error instanceof ApiError && error.status === 404;
    problem.value = hidden.value ? "" : inWords(error);
  }
}

function pointBetween(then: { scrape: Scrape; at: number }, now: { scrape: Scrape; at: number }): Point {
  const [a, b, elapsed] = [then.scrape, now.scrape, now.at - then.at];
  const rate = (name: string, wanted: Wanted = {}) => increase(a, b, name, wanted) / elapsed;
  const seconds = (share: number) => quantile(a, b, "nestvec_request_duration_seconds", share, answered);
  const looked = increase(a, b, "nestvec_vector_cache_hits_total") + increase(a, b, "nestvec_vector_cache_misses_total");
  const batches = increase(a, b, "nestvec_batch_inputs_count");
  return {
    at: now.at,
    requests: rate("nestvec_requests_total", ofUsers),
    tokens: rate("nestvec_tokens_total"),
    p50: seconds(0.5) * 1000,
    p99: seconds(0.99) * 1000,
    queue: total(b, "nestvec_queue_tokens"),
    busy: (rate("nestvec_engine_duration_seconds_sum") / Math.max(total(b, "nestvec_workers"), 1)) * 100,
    fill: batches ? increase(a, b, "nestvec_batch_inputs_sum") / batches : NaN,
    hits: looked ? (increase(a, b, "nestvec_vector_cache_hits_total") / looked) * 100 : NaN,
  };
}

whileOpen("live", EVERY_MS, () => void scrape(), () => void scrape(), () => (before = null));

function Line(props: { title: string; label: string; of: (point: Point) => number; second?: [string, (point: Point) => number]; unit?: string }) {
  const clean = (value: number) => (Number.isFinite(value) ? value : null);
  const rows = points.value;
  const series = [{ label: props.label, values: rows.map((point) => clean(props.of(point))) }];
  if (props.second) series.push({ label: props.second[0], values: rows.map((point) => clean(props.second![1](point))) });
  return (
    <Card title={props.title} third>
      <Chart label={props.title} x={rows.map((point) => point.at)} series={series} unit={props.unit ?? ""} height={150} time zero />
    </Card>
  );
}

export function LiveView() {
  if (hidden.value) {
    return (
      <Empty title="The metrics are on another port">
        This server gives its metrics on the operators' port (the setting operations_port), where no page of this port can read them. Open that port's /metrics, or the dashboards that read it.
      </Empty>
    );
  }
  const now = latest.value;
  const point = points.value.at(-1);
  const figures: [string, string][] = now
    ? [
        ["requests a second", point ? short(point.requests) : "–"],
        ["tokens a second", point ? short(point.tokens) : "–"],
        ["median", point ? milliseconds(point.p50 / 1000) : "–"],
        ["99th percentile", point ? milliseconds(point.p99 / 1000) : "–"],
        ["waiting", `${short(total(now, "nestvec_queue_tokens"))} tokens`],
        ["in flight", short(total(now, "nestvec_in_flight_requests"))],
        ["memory", bytes(total(now, "nestvec_process_resident_memory_bytes"))],
        ["since the start", `${short(total(now, "nestvec_requests_total", ofUsers))} requests`],
      ]
    : [];
  const gpu = now?.has("nestvec_gpu_utilization_ratio") ?? false;
  return (
    <>
      <div class="wide">
        <Problem message={problem.value} />
        <dl class="figures">
          {figures.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        {points.value.length < 2 && !problem.value && <p class="note">Collecting: the first points come after a few seconds.</p>}
      </div>
      <Line title="Requests" label="a second" of={(p) => p.requests} />
      <Line title="Tokens" label="a second" of={(p) => p.tokens} />
      <Line title="Latency" label="median" of={(p) => p.p50} second={["99th percentile", (p) => p.p99]} unit="ms" />
      <Line title="Queue" label="tokens waiting" of={(p) => p.queue} />
      <Line title="Workers" label="busy" of={(p) => p.busy} unit="%" />
      <Line title="Batches" label="inputs a batch" of={(p) => p.fill} />
      <Line title="Cache" label="found" of={(p) => p.hits} unit="%" />
      {gpu && now && (
        <Card title="GPU">
          <dl class="figures">
            <div>
              <dt>busy</dt>
              <dd>{short(total(now, "nestvec_gpu_utilization_ratio") * 100)} %</dd>
            </div>
            <div>
              <dt>memory</dt>
              <dd>{bytes(total(now, "nestvec_gpu_memory_used_bytes"))}</dd>
            </div>
          </dl>
        </Card>
      )}
    </>
  );
}
