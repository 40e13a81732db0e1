// Choose: the quality report's forms as points of bytes and score, with intervals; a point becomes settings and a price.
import { computed, effect, signal } from "@preact/signals";
import { findModel, getJson, inWords, models, type Figure, type Model, type Quality } from "../lib/api";
import { bytes, when } from "../lib/format";
import { linkTo, openedWith, place, share } from "../lib/url";
import { Card, Choice, Empty, ModelChoice, Problem, Tabs } from "../parts/basics";
import { Reports } from "./reports";

const start = openedWith("choose");
const model = signal(start.get("model") ?? "");
const task = signal(start.get("task") ?? "");
const form = signal(start.get("form") ?? "");
const quality = signal<Quality | null>(null);
const loaded = signal("");
const problem = signal("");

const described = computed(() => (models.value, findModel(model.value)));

effect(() => {
  const name = described.value?.id;
  if (place.value.view !== "choose" || !name) return;
  getJson<Model>(`v1/models/${encodeURIComponent(name)}`).then(
    (answer) => {
      quality.value = answer.quality ?? null;
      loaded.value = name;
      problem.value = "";
    },
    (error) => (problem.value = inWords(error)),
  );
});
effect(() => {
  if (place.value.view === "choose") share("choose", { model: model.value, task: task.value, form: form.value });
});

const measured = computed(() => quality.value?.tasks.find((each) => each.task === task.value) ?? quality.value?.tasks[0]);
const figures = computed(() => (measured.value?.figures ?? []).filter((figure) => Number.isFinite(figure.score)));
const keyOf = (figure: Figure) => [figure.dimensions, figure.dtype, figure.layers, figure.map].join("/");
// A form is worth a look where none that is as small is better.
const frontier = computed(() => new Set(figures.value.filter((one) => !figures.value.some((other) => other.bytes <= one.bytes && other.score > one.score)).map(keyOf)));
const chosen = computed(() => figures.value.find((figure) => keyOf(figure) === form.value) ?? null);

const METRICS: Record<string, string> = { ndcg_at_10: "nDCG@10", spearman: "Spearman", agreement_at_10: "share of the ten nearest that stay" };
const DTYPE_NAMES: Record<string, string> = { float: "float32", float32: "float32", int8: "int8", binary: "binary" };

function nameOf(figure: Figure): string {
  const parts = [`${figure.dimensions} × ${DTYPE_NAMES[figure.dtype] ?? figure.dtype}`];
  if (figure.layers) parts.push(`${figure.layers} layers`);
  if (figure.map) parts.push(`map ${figure.map}`);
  return parts.join(", ");
}

export function ChooseView() {
  const report = quality.value;
  const name = described.value?.id ?? "";
  return (
    <>
      <Card title="Model" wide note="What smaller vectors cost, measured on your texts or on judged ones; intervals are 95% by resampling queries.">
        <div class="row">
          <ModelChoice value={model.value} onChange={(value) => ((model.value = value), (task.value = form.value = ""))} />
          {report && report.tasks.length > 1 && (
            <Choice label="Measured on" value={measured.value?.task ?? ""} options={report.tasks.map((each): [string, string] => [each.task, `${each.task} (n = ${each.n})`])} onChange={(value) => ((task.value = value), (form.value = ""))} />
          )}
        </div>
        <Problem message={problem.value} />
        {report && <p class="note">Made {when(report.made_s)}.</p>}
      </Card>
      {report ? (
        <>
          <Card title={`Bytes against ${METRICS[measured.value?.metric ?? ""] ?? measured.value?.metric ?? ""}`} wide>
            <Pareto />
          </Card>
          <Card title="What it advises">
            <ul>
              {report.recommendations.map((each) => (
                <li key={each.budget}>{each.text}</li>
              ))}
            </ul>
          </Card>
          <Chosen name={name} />
        </>
      ) : (
        loaded.value === name &&
        name && (
          <div class="wide">
            <Empty title={`Nothing has been measured of ${name} yet`}>
              Measure it where the server runs, on texts of your own: one a line is enough. The report is kept beside the model and shown here after the next start.
            </Empty>
            <Tabs label="How" texts={{ "Your own texts": `nestvec quality ${name} --texts my-texts.txt`, "Questions and answers": `nestvec quality ${name} --pairs questions.tsv`, "A judged set": `nestvec quality ${name} --retrieval beir/scifact` }} />
          </div>
        )
      )}
      <Reports model={name} />
    </>
  );
}

const WIDTH = 720;
const HEIGHT = 320;
const PAD = { left: 56, right: 16, top: 16, bottom: 40 };

function Pareto() {
  const rows = figures.value;
  const sizes = rows.map((row) => Math.log2(row.bytes));
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  const lowest = Math.min(...rows.map((row) => row.low));
  const highest = Math.max(...rows.map((row) => row.high));
  const x = (size: number) => PAD.left + ((Math.log2(size) - least) / (most - least || 1)) * (WIDTH - PAD.left - PAD.right);
  const y = (score: number) => HEIGHT - PAD.bottom - ((score - lowest) / (highest - lowest || 1)) * (HEIGHT - PAD.top - PAD.bottom);
  const ticks = [];
  for (let power = Math.ceil(least); power <= most; power++) ticks.push(2 ** power);
  const levels = [0, 0.25, 0.5, 0.75, 1].map((share) => lowest + share * (highest - lowest));
  return (
    <>
      <div class="scroll" role="region" aria-label="Chart of forms" tabIndex={0}>
        <svg class="pareto" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="group" aria-label="Forms of vectors by bytes and score">
          {levels.map((level) => (
            <g key={level} class="grid">
              <line x1={PAD.left} x2={WIDTH - PAD.right} y1={y(level)} y2={y(level)} />
              <text x={PAD.left - 8} y={y(level) + 4} text-anchor="end">
                {level.toFixed(2)}
              </text>
            </g>
          ))}
          {ticks.map((size) => (
            <text key={size} class="axis" x={x(size)} y={HEIGHT - 16} text-anchor="middle">
              {bytes(size)}
            </text>
          ))}
          {rows.map((row) => (
            <g key={keyOf(row)} class={`form ${DTYPE_NAMES[row.dtype] ?? ""}${frontier.value.has(keyOf(row)) ? " best" : ""}${keyOf(row) === form.value ? " chosen" : ""}`}>
              <line x1={x(row.bytes)} x2={x(row.bytes)} y1={y(row.low)} y2={y(row.high)} />
              <circle
                cx={x(row.bytes)}
                cy={y(row.score)}
                r={6}
                // SVG's attributes have one spelling only.
                tabindex={0}
                role="button"
                aria-pressed={keyOf(row) === form.value}
                aria-label={`${nameOf(row)}: ${row.bytes} bytes, ${row.score.toFixed(3)}, interval ${row.low.toFixed(3)} to ${row.high.toFixed(3)}`}
                onClick={() => (form.value = keyOf(row))}
                onKeyDown={(event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), (form.value = keyOf(row)))}
              />
            </g>
          ))}
        </svg>
      </div>
      <p class="key">
        <span class="swatch float32" /> float32 <span class="swatch int8" /> int8 <span class="swatch binary" /> binary; filled: none that is as small is better.
      </p>
    </>
  );
}

function Chosen(props: { name: string }) {
  const figure = chosen.value;
  if (!figure) return <Empty title="Pick a point">Its settings and what an index of it takes will be here.</Empty>;
  const dtype = DTYPE_NAMES[figure.dtype] ?? figure.dtype;
  const fields: Record<string, unknown> = { model: props.name, dimensions: figure.dimensions };
  if (dtype !== "float32") fields.output_dtype = dtype;
  if (figure.layers && figure.layers !== described.value?.layers?.native) fields.layers = figure.layers;
  if (figure.map) fields.map = figure.map;
  const alias = `${props.name.replace(/[^A-Za-z0-9-]+/g, "-").toLowerCase()}-${figure.dimensions}`;
  return (
    <Card title={nameOf(figure)}>
      <dl class="figures">
        <div>
          <dt>score</dt>
          <dd>{figure.score.toFixed(3)}</dd>
        </div>
        <div>
          <dt>interval</dt>
          <dd>
            {figure.low.toFixed(3)}–{figure.high.toFixed(3)}
          </dd>
        </div>
        <div>
          <dt>1 M vectors</dt>
          <dd>{bytes(figure.bytes * 1e6)}</dd>
        </div>
        <div>
          <dt>10 M vectors</dt>
          <dd>{bytes(figure.bytes * 1e7)}</dd>
        </div>
      </dl>
      <Tabs
        label="Settings"
        texts={{
          Request: JSON.stringify({ ...fields, input: ["…"] }, null, 2),
          "An alias": `# in the server's configuration file\n[aliases.${alias}]\nmodel = ${JSON.stringify(props.name)}\ndimensions = ${figure.dimensions}`,
        }}
      />
      <p>
        <a href={linkTo("try", { model: props.name, dimensions: String(figure.dimensions), dtype })}>Try it on texts of your own</a>
      </p>
    </Card>
  );
}
