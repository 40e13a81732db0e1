// Try: texts and pictures, their similarities, and what a smaller vector makes of them, computed here from one raw vector each.
import { batch, computed, effect, signal } from "@preact/signals";
import { findModel, inWords, models, postJson } from "../lib/api";
import { embedCodes, embedRaw, requestBody, type Embedded, type Options } from "../lib/embeddings";
import { milliseconds } from "../lib/format";
import { nameOf, readPictures, takesPictures, type Item, type Picture } from "../lib/pictures";
import { openedWith, place, share } from "../lib/url";
import { bytesOf, cosines, DTYPES, stored, type Dtype } from "../lib/vectors";
import { Card, Choice, Dimensions, Field, ModelChoice, PictureFiles, Problem, Tabs, Thumbnail } from "../parts/basics";
import { Chart } from "../parts/chart";
import { HeatMap } from "../parts/heatmap";
import { snippets } from "../parts/snippets";

const EXAMPLE = ["a cat sits on the mat", "a kitten rests on a rug", "the dog barks", "stock markets fell today", "shares dropped sharply", "it rains in Oslo"];
const MAX_TEXTS = 40;
// So many cosines a row fit beside another card.
const FEW_TEXTS = 7;

const start = openedWith("try");
const text = signal(start.get("texts") ?? EXAMPLE.join("\n"));
const model = signal(start.get("model") ?? "");
const dimensions = signal(Number(start.get("dimensions")) || 0);
const dtype = signal<Dtype>((DTYPES as string[]).includes(start.get("dtype") ?? "") ? (start.get("dtype") as Dtype) : "float32");
const layers = signal(Number(start.get("layers")) || 0);
const map = signal(start.get("map") ?? "");
const prompt = signal(start.get("prompt") ?? "");

const embedded = signal<Embedded | null>(null);
const embeddedTexts = signal<string[]>([]);
const pictures = signal<Picture[]>([]);
const embeddedItems = signal<Item[]>([]);
const codes = signal<Float32Array[] | null>(null);
const problem = signal("");
const busy = signal(false);
const fits = signal(true);

const lines = computed(() => text.value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, MAX_TEXTS));
const items = computed<Item[]>(() => [...lines.value, ...(takesPictures(described.value) ? pictures.value : [])]);
const described = computed(() => (models.value, findModel(model.value)));
const native = computed(() => embedded.value?.vectors[0]?.length ?? described.value?.dimensions?.native ?? 0);
const size = computed(() => Math.min(dimensions.value || native.value, native.value));
const options = computed<Options>(() => ({
  model: model.value || described.value?.id || "",
  prompt: prompt.value,
  layers: layers.value,
  map: map.value,
}));
const vectors = computed(() => {
  const rows = embedded.value?.vectors ?? [];
  if (dtype.value === "int8") return codes.value ?? [];
  return rows.map((row) => stored(row, size.value, dtype.value));
});
const similarities = computed(() => cosines(vectors.value, vectors.value));

let running: AbortController | null = null;

async function embed(): Promise<void> {
  running?.abort();
  const mine = (running = new AbortController());
  const [texts, all] = [lines.value, items.value];
  busy.value = true;
  problem.value = "";
  try {
    const answer = all.length ? await embedRaw(all, options.value, undefined, mine.signal) : null;
    batch(() => {
      embedded.value = answer;
      embeddedTexts.value = texts;
      embeddedItems.value = all;
      codes.value = null;
    });
  } catch (error) {
    if (!(error instanceof DOMException)) problem.value = inWords(error);
  } finally {
    // One that was given up says nothing of the one behind it.
    if (running === mine) busy.value = false;
  }
}

// The ranges of int8 are the server's, so its codes are asked for; the cache has the vectors.
let waiting = 0;
effect(() => {
  const [all, wanted, chosen, is] = [embeddedItems.value, size.value, options.value, dtype.value === "int8"];
  codes.value = null;
  clearTimeout(waiting);
  if (!is || !all.length || !wanted) return;
  waiting = window.setTimeout(async () => {
    try {
      codes.value = await embedCodes(all, chosen, wanted);
    } catch (error) {
      problem.value = inWords(error);
    }
  }, 120);
});

effect(() => {
  if (place.value.view !== "try") return;
  fits.value = share("try", {
    texts: text.value === EXAMPLE.join("\n") ? "" : text.value,
    model: model.value,
    dimensions: dimensions.value ? String(dimensions.value) : "",
    dtype: dtype.value === "float32" ? "" : dtype.value,
    layers: layers.value ? String(layers.value) : "",
    map: map.value,
    prompt: prompt.value,
  });
});

// How far cosines of prefixes are from those of whole vectors, in the mean over all pairs.
const loss = computed(() => {
  const rows = embedded.value?.vectors ?? [];
  const kind = dtype.value === "int8" ? "float32" : dtype.value;
  if (rows.length < 2) return { x: [], y: [] };
  const whole = cosines(rows.map((row) => stored(row, native.value, "float32")), rows);
  const step = Math.max(8, Math.ceil(native.value / 48 / 8) * 8);
  const x: number[] = [];
  for (let size = step; size < native.value; size += step) x.push(size);
  x.push(native.value);
  const y = x.map((size) => {
    const cut = rows.map((row) => stored(row, size, kind));
    const values = cosines(cut, cut);
    let sum = 0;
    values.forEach((row, i) => row.forEach((value, j) => i < j && (sum += Math.abs(value - whole[i]![j]!))));
    return sum / ((rows.length * (rows.length - 1)) / 2);
  });
  return { x, y };
});

export function TryView() {
  const known = described.value;
  if (known && !embedded.value && !busy.value && !problem.value) void embed();
  const layerOptions: [string, string][] = known?.layers
    ? [["", `all ${known.layers.native}`], ...exits(known.layers).map((n): [string, string] => [String(n), `after ${n}`])]
    : [];
  return (
    <>
      <Card title="Texts" note="One a line. Nothing leaves this server, and nothing is kept.">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void embed();
          }}
        >
          <Field label="Texts, one a line">
            <textarea
              rows={7}
              spellcheck={false}
              value={text.value}
              onInput={(event) => (text.value = event.currentTarget.value)}
              onKeyDown={(event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && void embed()}
            />
          </Field>
          <div class="row">
            <ModelChoice value={model.value} onChange={(value) => choose(model, value)} />
            {(known?.prompts?.length ?? 0) > 0 && (
              <Choice label="Prompt" value={prompt.value} options={[["", "none"], ...known!.prompts!.map((n): [string, string] => [n, n])]} onChange={(value) => choose(prompt, value)} />
            )}
            {layerOptions.length > 1 && (
              <Choice label="Layers" value={layers.value ? String(layers.value) : ""} options={layerOptions} onChange={(value) => choose(layers, Number(value))} />
            )}
            {(known?.maps?.length ?? 0) > 0 && (
              <Choice label="Map" value={map.value} options={[["", "none"], ...known!.maps!.map((m): [string, string] => [m.name, `${m.name} (${m.kind})`])]} onChange={(value) => choose(map, value)} />
            )}
            {takesPictures(known) && <PictureFiles label="And pictures" multiple onFiles={(files) => void take(files)} />}
            <button type="submit" disabled={busy.value}>
              {busy.value ? "Embedding…" : "Embed"}
            </button>
          </div>
        </form>
        {takesPictures(known) && pictures.value.map((picture) => <Thumbnail key={picture.url} picture={picture} />)}
        <Problem message={problem.value} />
        <p class="note" role="status">
          {embedded.value && `${counted()}, ${embedded.value.tokens} tokens, ${milliseconds(embedded.value.tookMs / 1000)} with the way there and back.`}
          {!fits.value && " The texts are too long for a link: what is shared is the rest."}
        </p>
      </Card>
      <Card title="Size" note="Moved here, computed here: no request goes out but for int8, whose ranges are the server's.">
        {native.value > 0 && (
          <Dimensions value={size.value} native={native.value} trained={known?.dimensions?.trained ?? []} onInput={(value) => (dimensions.value = value)} />
        )}
        <div class="row">
          <Choice label="Stored as" value={dtype.value} options={DTYPES} onChange={(value) => (dtype.value = value as Dtype)} />
          <p class="figure">
            <b>{bytesOf(size.value, dtype.value)}</b> bytes a vector <span class="note">of {native.value * 4}</span>
          </p>
        </div>
        <Chart
          label={`What a prefix loses on these texts, stored as ${dtype.value === "int8" ? "float32" : dtype.value}`}
          x={loss.value.x}
          series={[{ label: "mean change of cosine", values: loss.value.y }]}
          height={150}
          zero
        />
      </Card>
      <Card title={`Cosine at ${size.value} × ${dtype.value}`} wide={embeddedItems.value.length > FEW_TEXTS}>
        {similarities.value.length ? (
          <HeatMap rows={embeddedItems.value.map(nameOf)} columns={embeddedItems.value.map(nameOf)} values={similarities.value} caption="Cosine similarity of each pair of texts" />
        ) : (
          <p class="note">{busy.value || dtype.value === "int8" ? "Computing…" : "Write texts above, one a line."}</p>
        )}
      </Card>
      <Tokens />
      <Explain />
      <Card title="The same call elsewhere">
        <Tabs
          label="Language"
          texts={snippets({
            model: options.value.model,
            texts: lines.value,
            dimensions: dimensions.value && dimensions.value < native.value ? dimensions.value : null,
            dtype: dtype.value,
            extra: without(requestBody(options.value), "model"),
          })}
        />
      </Card>
    </>
  );
}

async function take(files: File[]): Promise<void> {
  try {
    pictures.value = (await readPictures(files)).slice(0, MAX_TEXTS);
    await embed();
  } catch (error) {
    problem.value = inWords(error);
  }
}

function counted(): string {
  const texts = embeddedTexts.value.length;
  const others = embeddedItems.value.length - texts;
  return `${texts} texts${others ? ` and ${others} pictures` : ""}`;
}

function exits(known: { native: number; trained: number[]; fitted: Record<string, string> }): number[] {
  const numbers = new Set([...known.trained, ...Object.keys(known.fitted).map(Number)]);
  return [...numbers].filter((n) => n < known.native).sort((a, b) => b - a);
}

function choose<T>(target: { value: T }, value: T): void {
  target.value = value;
  if (target === (model as unknown)) {
    batch(() => {
      prompt.value = map.value = "";
      layers.value = dimensions.value = 0;
    });
  }
  void embed();
}

function without(body: Record<string, unknown>, name: string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(body).filter(([key]) => key !== name));
}

interface Token {
  id: number;
  text: string;
  special: boolean;
}

const tokenText = signal(0);
const tokens = signal<Token[]>([]);
const tokenProblem = signal("");

effect(() => {
  const [texts, index, chosen] = [embeddedTexts.value, tokenText.value, options.value];
  const one = texts[Math.min(index, texts.length - 1)];
  if (one === undefined) return;
  const body = { inputs: [one], model: chosen.model, ...(chosen.prompt ? { prompt_name: chosen.prompt } : {}) };
  postJson<Token[][]>("tokenize", body).then(
    (rows) => batch(() => ((tokens.value = rows[0] ?? []), (tokenProblem.value = ""))),
    (error) => (tokenProblem.value = inWords(error)),
  );
});

function TextChoice(props: { label: string; value: number; onChange: (index: number) => void }) {
  const texts = embeddedTexts.value;
  const options = texts.map((line, index): [string, string] => [String(index), line.length > 60 ? `${line.slice(0, 60)}…` : line]);
  return <Choice label={props.label} value={String(Math.min(props.value, texts.length - 1))} options={options} onChange={(value) => props.onChange(Number(value))} />;
}

function Tokens() {
  const limit = described.value?.max_model_len ?? Infinity;
  const count = tokens.value.length;
  return (
    <Card title="Tokens" note="What the model reads.">
      <TextChoice label="Of" value={tokenText.value} onChange={(index) => (tokenText.value = index)} />
      <Problem message={tokenProblem.value} />
      <p class="tokens">
        {tokens.value.map((token, index) => (
          <span key={index} class={`token${token.special ? " special" : ""}${index >= limit ? " lost" : ""}`} title={`id ${token.id}`}>
            {token.text}
          </span>
        ))}
      </p>
      <p class="note">
        {count} tokens{count > limit ? `, of which the last ${count - limit} are cut off: the model takes ${limit}.` : Number.isFinite(limit) ? ` of at most ${limit}.` : "."}
      </p>
    </Card>
  );
}

interface Explanation {
  left_tokens: Token[];
  right_tokens: Token[];
  contributions: number[][];
}

const left = signal(0);
const right = signal(1);
const explanation = signal<(Explanation & { similarity: number }) | null>(null);
const explainProblem = signal("");

async function explain(): Promise<void> {
  const texts = embeddedTexts.value;
  const pair = [texts[left.value], texts[Math.min(right.value, texts.length - 1)]];
  explainProblem.value = "";
  try {
    const answer = await postJson<{ similarities: number[]; explanations: Explanation[] }>("v1/similarity", {
      ...requestBody(options.value),
      pairs: [pair],
      explain: true,
      ...(size.value < native.value ? { dimensions: size.value } : {}),
    });
    explanation.value = { ...answer.explanations[0]!, similarity: answer.similarities[0]! };
  } catch (error) {
    explanation.value = null;
    explainProblem.value = inWords(error);
  }
}

function Explain() {
  if (embeddedTexts.value.length < 2) return null;
  const shown = explanation.value;
  const name = (token: Token) => token.text;
  const largest = shown ? Math.max(...shown.contributions.flat().map(Math.abs), 1e-9) : 1;
  return (
    <Card title="Why two texts are near" note="What each pair of tokens adds; all of them add up to the cosine.">
      <div class="row">
        <TextChoice label="Text" value={left.value} onChange={(index) => ((left.value = index), (explanation.value = null))} />
        <TextChoice label="And" value={right.value} onChange={(index) => ((right.value = index), (explanation.value = null))} />
        <button type="button" onClick={explain}>
          Explain
        </button>
      </div>
      <Problem message={explainProblem.value} />
      {shown && (
        <>
          <HeatMap rows={shown.left_tokens.map(name)} columns={shown.right_tokens.map(name)} values={shown.contributions} scale={largest} caption="Contribution of each pair of tokens to the cosine" />
          <p class="note">They add up to {shown.similarity.toFixed(4)}.</p>
        </>
      )}
    </Card>
  );
}
