// Reports: asked for here, made by the server behind what people wait for, shown with n and intervals.
import { signal } from "@preact/signals";
import { ApiError, apiKey, getJson, inWords, postJson } from "../lib/api";
import { when } from "../lib/format";
import { readTexts } from "../lib/tables";
import { whileOpen } from "../lib/url";
import { Card, Choice, Field, Problem, Table } from "../parts/basics";

interface Figure {
  name: string;
  value: number;
  n: number | null;
  low: number | null;
  high: number | null;
  unit: string | null;
}

interface Rows {
  title: string;
  heads: string[];
  rows: (string | number)[][];
}

interface Result {
  figures: Figure[];
  tables: Rows[];
  notes: string[];
  advice: string[];
}

interface Row {
  id: string;
  report: string;
  model: string;
  status: string;
  created_at: number;
  embedded_texts: number;
  error: { code: string; message: string } | null;
  result?: Result | null;
}

// Those that a page can ask for: of nothing, or of texts one a line; pairs and labels are the command line's matter.
const KINDS: Record<string, [title: string, texts: "none" | "needed" | "taken"]> = {
  quality: ["What smaller vectors cost on your texts", "needed"],
  robustness: ["What spelling, case and look-alike letters do", "needed"],
  tokens: ["How the tokenizer suits your texts", "needed"],
  outliers: ["Texts that are there twice, and texts like no other", "needed"],
  segments: ["How well topics can be told apart", "needed"],
  leakage: ["What a stolen vector tells of its text", "needed"],
  numbers: ["Whether it knows which numbers are near", "none"],
  columns: ["Whether the order of fields matters", "none"],
  entities: ["Whether other spellings find a name", "none"],
  bitext: ["Which languages lie beside one another", "none"],
  bias: ["Whether it ties words to groups of people", "none"],
  code: ["Whether a description finds its function", "none"],
  cost: ["Seconds and joules of a million tokens", "taken"],
};
const RUNNING = ["queued", "running"];
const EVERY_MS = 1500;

const kind = signal("quality");
const texts = signal("");
const rows = signal<Row[]>([]);
const shown = signal<Row | null>(null);
const problem = signal("");
const off = signal(false);

async function refresh(): Promise<void> {
  try {
    rows.value = (await getJson<{ data: Row[] }>("v1/reports")).data;
    const open = shown.peek();
    const now = open && rows.value.find((row) => row.id === open.id);
    if (now && now.status !== open.status) await show(now.id);
  } catch (error) {
    off.value = error instanceof ApiError && error.status === 404;
    if (!off.value) problem.value = inWords(error);
  }
}

whileOpen(
  "choose",
  EVERY_MS,
  () => (void apiKey.value, void refresh()),
  () => rows.peek().some((row) => RUNNING.includes(row.status)) && void refresh(),
);

async function show(id: string): Promise<void> {
  try {
    shown.value = await getJson<Row>(`v1/reports/${id}`);
  } catch (error) {
    problem.value = inWords(error);
  }
}

async function begin(model: string): Promise<void> {
  problem.value = "";
  try {
    const wants = KINDS[kind.value]![1];
    const lines = wants === "none" ? [] : readTexts(texts.value).texts;
    if (wants === "needed" && !lines.length) throw new Error("This report measures texts of your own: paste some, one a line.");
    const body = { report: kind.value, model, ...(lines.length ? { texts: lines } : {}) };
    shown.value = await postJson<Row>("v1/reports", body);
    await refresh();
  } catch (error) {
    problem.value = inWords(error);
  }
}

async function cancel(id: string): Promise<void> {
  try {
    await postJson(`v1/reports/${id}/cancel`, {});
  } catch (error) {
    problem.value = inWords(error);
  }
  await refresh();
}

export function Reports(props: { model: string }) {
  if (off.value || !props.model) return null;
  const wants = KINDS[kind.value]![1];
  const options = Object.entries(KINDS).map(([name, [title]]): [string, string] => [name, `${name}: ${title}`]);
  return (
    <>
      <Card title="Reports" note={`On ${props.model}. Made one after the other, behind what people wait for; the server keeps the figures, never the texts.`}>
        <Choice label="What to find out" value={kind.value} options={options} onChange={(name) => (kind.value = name)} />
        {wants !== "none" && (
          <Field label={wants === "needed" ? "Your texts, one a line" : "Your texts, one a line, or none for the report's own"}>
            <textarea rows={5} spellcheck={false} value={texts.value} onInput={(event) => (texts.value = event.currentTarget.value)} />
          </Field>
        )}
        <div class="row">
          <button type="button" onClick={() => void begin(props.model)}>
            Make the report
          </button>
        </div>
        <Problem message={problem.value} />
        {rows.value.length > 0 && (
          <ul class="plain">
            {rows.value.slice(0, 8).map((row) => (
              <li key={row.id} class="row">
                <span class={`state ${row.status}`}>{row.status}</span>
                <button type="button" class="quiet" aria-pressed={shown.value?.id === row.id} onClick={() => void show(row.id)}>
                  {row.report} of {row.model}
                </button>
                <span class="note">{when(row.created_at)}</span>
                {RUNNING.includes(row.status) && (
                  <button type="button" class="quiet" onClick={() => void cancel(row.id)}>
                    Cancel
                  </button>
                )}
              </li>
            ))}
          </ul>
        )}
      </Card>
      <Found row={shown.value} />
    </>
  );
}

function interval(figure: Figure): string {
  if (figure.low === null || figure.high === null) return "–";
  return `${+figure.low.toPrecision(3)} to ${+figure.high.toPrecision(3)}`;
}

function Found({ row }: { row: Row | null }) {
  if (!row) return null;
  const result = row.result ?? null;
  return (
    <Card title={`${row.report} of ${row.model}`}>
      {row.error && <Problem message={row.error.message} />}
      {!result && !row.error && (
        <p class="note" role="status">
          {row.status}, {row.embedded_texts} texts embedded so far
        </p>
      )}
      {result && (
        <>
          {result.advice.length > 0 && (
            <ul>
              {result.advice.map((line) => (
                <li key={line}>{line}</li>
              ))}
            </ul>
          )}
          <Table label="Figures of the report" heads={["Figure", "Value", "95% interval", "n"]}>
            {result.figures.map((figure) => (
              <tr key={figure.name}>
                <td>{figure.name}</td>
                <td>
                  {+figure.value.toPrecision(4)} {figure.unit ?? ""}
                </td>
                <td>{interval(figure)}</td>
                <td>{figure.n ?? "–"}</td>
              </tr>
            ))}
          </Table>
          {result.tables.map((table) => (
            <details key={table.title}>
              <summary>{table.title}</summary>
              <Table label={table.title} heads={table.heads}>
                {table.rows.slice(0, 50).map((cells, index) => (
                  <tr key={index}>
                    {cells.map((cell, column) => (
                      <td key={column}>{typeof cell === "number" ? +cell.toPrecision(5) : cell}</td>
                    ))}
                  </tr>
                ))}
              </Table>
            </details>
          ))}
          {result.notes.map((line) => (
            <p key={line} class="note">
              {line}
            </p>
          ))}
        </>
      )}
    </Card>
  );
}
