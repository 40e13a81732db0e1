// Search: a handful of documents, a question, and two settings side by side: what does the smaller index lose?
import { batch, computed, effect, signal } from "@preact/signals";
import { findModel, inWords, models } from "../lib/api";
import { embedCodes, embedRaw } from "../lib/embeddings";
import { bytes, count, milliseconds } from "../lib/format";
import { isPicture, readPictures, takesPictures, type Item, type Picture } from "../lib/pictures";
import { readTexts } from "../lib/tables";
import { openedWith, place, share } from "../lib/url";
import { bytesOf, cosine, DTYPES, ranking, stored, type Dtype } from "../lib/vectors";
import { Card, Choice, Dimensions, Empty, Field, ModelChoice, PictureFiles, Problem, Thumbnail } from "../parts/basics";

const MAX_DOCUMENTS = 2000;
const SHOWN = 10;
const EXAMPLE = [
  "Matryoshka vectors can be cut: their first values are a smaller vector of nearly the same use.",
  "A bakery on the corner sells rye bread, and on Sundays cardamom buns.",
  "Quantization stores each value in one byte instead of four and loses little.",
  "The ferry to the islands leaves at nine and needs two hours.",
  "An index of binary vectors is thirty-two times smaller and is searched by counting bits.",
  "Rain is expected in the north, and strong wind along the coast.",
  "A re-ranker reads question and document together and puts the best hits first.",
  "The museum shows paintings of the nineteenth century and is closed on Mondays.",
].join("\n");

const start = openedWith("search");
const pasted = signal(start.get("documents") ?? "");
const query = signal(start.get("query") ?? "");
const model = signal(start.get("model") ?? "");

interface Setting {
  dimensions: { value: number };
  dtype: { value: Dtype };
  codes: { value: Map<string, Float32Array[]> };
}

function setting(name: string, size: number, kind: Dtype): Setting {
  const [d, t] = (start.get(name) ?? "").split("x");
  return {
    dimensions: signal(Number(d) || size),
    dtype: signal((DTYPES as string[]).includes(t ?? "") ? (t as Dtype) : kind),
    codes: signal(new Map()),
  };
}
const first = setting("a", 0, "float32");
const second = setting("b", 64, "int8");

const documents = signal<{ items: Item[]; vectors: Float32Array[]; tookMs: number } | null>(null);
const question = signal<{ item: Item; vector: Float32Array } | null>(null);
const problem = signal("");
const busy = signal("");
// Pictures among the documents, and the one that is asked with in place of a text.
const pictures = signal<Picture[]>([]);
const asking = signal<Picture | null>(null);
const fits = signal(true);
const source = signal("");

const described = computed(() => (models.value, findModel(model.value)));
const name = computed(() => model.value || described.value?.id || "");
const native = computed(() => documents.value?.vectors[0]?.length ?? described.value?.dimensions?.native ?? 0);
const shown = computed(() => (takesPictures(described.value) ? pictures.value : []));
const toAsk = computed<Item>(() => (takesPictures(described.value) && asking.value) || query.value.trim());
const sizeOf = (one: Setting) => Math.min(one.dimensions.value || native.value, native.value || Infinity);

effect(() => {
  if (place.value.view !== "search") return;
  fits.value = share("search", {
    query: query.value,
    documents: pasted.value,
    model: model.value,
    a: `${first.dimensions.value || ""}x${first.dtype.value}`,
    b: `${second.dimensions.value || ""}x${second.dtype.value}`,
  });
});

async function embedDocuments(): Promise<void> {
  problem.value = "";
  try {
    const read = readTexts(pasted.value.trim() || EXAMPLE);
    await use([...(pasted.value.trim() || !shown.value.length ? read.texts : []), ...shown.value]);
  } catch (error) {
    problem.value = inWords(error);
  }
}

async function use(items: Item[]): Promise<void> {
  if (!items.length) throw new Error("There is no text in it.");
  const kept = items.slice(0, MAX_DOCUMENTS);
  busy.value = `0 of ${kept.length}`;
  try {
    const answer = await embedRaw(kept, { model: name.value, inputType: "document" }, (done) => (busy.value = `${done} of ${kept.length}`));
    batch(() => {
      documents.value = { items: kept, vectors: answer.vectors, tookMs: answer.tookMs };
      first.codes.value = second.codes.value = new Map();
    });
    if (items.length > MAX_DOCUMENTS) problem.value = `Only the first ${MAX_DOCUMENTS} of ${items.length} are searched: this is a page, not an index.`;
    if (toAsk.value) await ask();
  } finally {
    busy.value = "";
  }
}

async function drop(files: File[]): Promise<void> {
  problem.value = "";
  try {
    if (takesPictures(described.value) && files.some(isPicture)) {
      pictures.value = await readPictures(files.filter(isPicture));
      return await embedDocuments();
    }
    const file = files[0];
    if (!file) return;
    const read = readTexts(await file.text(), file.name);
    source.value = `${file.name}: ${count(read.texts.length)} texts${read.column ? `, column “${read.column}”` : ""}`;
    pasted.value = read.texts.map((text) => text.replace(/\s+/g, " ")).join("\n");
    await use(read.texts);
  } catch (error) {
    problem.value = inWords(error);
  }
}

async function ask(): Promise<void> {
  if (!documents.value) return embedDocuments();
  if (!toAsk.value) return;
  problem.value = "";
  try {
    const answer = await embedRaw([toAsk.value], { model: name.value, inputType: "query" });
    question.value = { item: toAsk.value, vector: answer.vectors[0]! };
  } catch (error) {
    problem.value = inWords(error);
  }
}

// Two pictures may have one name.
const keyOf = (item: Item) => (typeof item === "string" ? item : item.url);

// Codes of int8 of all documents and of the question, by size: asked for once.
async function fetchCodes(one: Setting): Promise<void> {
  const docs = documents.value;
  const asked = question.value;
  const size = sizeOf(one);
  if (one.dtype.value !== "int8" || !docs || !asked) return;
  const key = `${size}/${keyOf(asked.item)}`;
  if (one.codes.value.has(key)) return;
  try {
    const rows = await embedCodes(docs.items, { model: name.value, inputType: "document" }, size);
    const [row] = await embedCodes([asked.item], { model: name.value, inputType: "query" }, size);
    one.codes.value = new Map([[key, [...rows, row!]]]);
  } catch (error) {
    problem.value = inWords(error);
  }
}
for (const one of [first, second]) {
  let waiting = 0;
  effect(() => {
    void [documents.value, question.value, one.dtype.value, sizeOf(one)];
    clearTimeout(waiting);
    waiting = window.setTimeout(() => void fetchCodes(one), 150);
  });
}

function scoresOf(one: Setting): number[] | null {
  const docs = documents.value;
  const asked = question.value;
  if (!docs || !asked) return null;
  const size = sizeOf(one);
  if (one.dtype.value === "int8") {
    const codes = one.codes.value.get(`${size}/${keyOf(asked.item)}`);
    return codes ? codes.slice(0, -1).map((row) => cosine(row, codes.at(-1)!)) : null;
  }
  const wanted = stored(asked.vector, size, one.dtype.value);
  return docs.vectors.map((row) => cosine(stored(row, size, one.dtype.value), wanted));
}
const scores = [computed(() => scoresOf(first)), computed(() => scoresOf(second))] as const;
const ranks = scores.map((each) => computed(() => (each.value ? ranking(each.value) : null)));

async function askBy(files: File[]): Promise<void> {
  asking.value = (await readPictures(files))[0] ?? null;
  await ask();
}

function show(item: Item) {
  return typeof item === "string" ? item : <Thumbnail picture={item} />;
}

export function SearchView() {
  const docs = documents.value;
  const [a, b] = ranks.map((rank) => rank.value);
  return (
    <>
      <Card title="Documents" note="Paste lines or JSONL, or drop a CSV, TSV, JSONL or text file. The file is read in your browser; its texts go to this server, and nothing is kept.">
        <div
          class="drop"
          onDragOver={(event) => event.preventDefault()}
          onDrop={(event) => {
            event.preventDefault();
            void drop([...(event.dataTransfer?.files ?? [])]);
          }}
        >
          <Field label="Documents, one a line">
            <textarea rows={7} spellcheck={false} value={pasted.value} placeholder={EXAMPLE} onInput={(event) => ((pasted.value = event.currentTarget.value), (source.value = ""))} />
          </Field>
        </div>
        <div class="row">
          <ModelChoice value={model.value} onChange={(value) => batch(() => ((model.value = value), (documents.value = question.value = null)))} />
          <label class="field">
            <span>Or a file</span>
            <input type="file" accept=".csv,.tsv,.jsonl,.ndjson,.json,.txt" onChange={(event) => void drop([...(event.currentTarget.files ?? [])])} />
          </label>
          {takesPictures(described.value) && <PictureFiles label="And pictures" multiple onFiles={(files) => void drop(files)} />}
          <button type="button" disabled={busy.value !== ""} onClick={embedDocuments}>
            {busy.value ? `Embedding ${busy.value}` : "Embed documents"}
          </button>
        </div>
        <p class="note" role="status">
          {source.value} {docs && `${count(docs.items.length)} documents embedded in ${milliseconds(docs.tookMs / 1000)}.`}
          {!fits.value && " The documents are too long for a link: what is shared is the rest."}
        </p>
      </Card>
      <Card title="Question">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void ask();
          }}
        >
          <Field label="What are you looking for?">
            <input type="search" value={query.value} placeholder="how do I make my index smaller" onInput={(event) => batch(() => ((query.value = event.currentTarget.value), (asking.value = null)))} />
          </Field>
          <div class="row">
            {takesPictures(described.value) && <PictureFiles label="Or by a picture" onFiles={(files) => void askBy(files)} />}
            {asking.value && <Thumbnail picture={asking.value} />}
            <button type="submit" disabled={busy.value !== ""}>
              Ask
            </button>
          </div>
        </form>
        <Problem message={problem.value} />
        <Verdict />
      </Card>
      {docs && question.value ? (
        <div class="pair wide">
          <Ranked title="One setting" one={first} order={a ?? null} scores={scores[0].value} other={b ?? null} />
          <Ranked title="Another" one={second} order={b ?? null} scores={scores[1].value} other={a ?? null} />
        </div>
      ) : (
        <div class="wide">
          <Empty title="Two settings side by side">
            Embed documents and ask. You will see the hits of whole vectors beside those of vectors that take a tenth of the room, and which of them have moved.
          </Empty>
        </div>
      )}
    </>
  );
}

function Verdict() {
  const [a, b] = ranks.map((rank) => rank.value);
  const docs = documents.value;
  if (!a || !b || !docs) return null;
  // Of few documents all would be among the first ten, whatever their order.
  const depth = Math.min(SHOWN, Math.ceil(docs.items.length / 3));
  const shared = b.slice(0, depth).filter((index) => a.slice(0, depth).includes(index)).length;
  const sizes = [first, second].map((one) => bytesOf(sizeOf(one), one.dtype.value));
  return (
    <p class="verdict" role="status">
      <b>
        {shared} of {depth}
      </b>{" "}
      first hits are the same; a vector takes <b>{sizes[0]}</b> bytes here and <b>{sizes[1]}</b> there: {bytes(sizes[0]! * 1e6)} and {bytes(sizes[1]! * 1e6)} a million.
    </p>
  );
}

function Ranked(props: { title: string; one: Setting; order: number[] | null; scores: number[] | null; other: number[] | null }) {
  const { one, order, other } = props;
  return (
    <Card title={props.title}>
      <div class="row">
        <Dimensions value={sizeOf(one)} native={native.value} trained={described.value?.dimensions?.trained ?? []} onInput={(value) => (one.dimensions.value = value)} />
        <Choice label="Stored as" value={one.dtype.value} options={DTYPES} onChange={(value) => (one.dtype.value = value as Dtype)} />
      </div>
      {order === null ? (
        <p class="note">Asking the server for its codes…</p>
      ) : (
        <ol class="hits">
          {order.slice(0, SHOWN).map((index, rank) => {
            const moved = other ? other.indexOf(index) - rank : 0;
            return (
              <li key={index}>
                <span class="score">{props.scores![index]!.toFixed(3)}</span>
                <span class="text">{show(documents.value!.items[index]!)}</span>
                {moved !== 0 && (
                  <span class={moved > 0 ? "moved up" : "moved down"}>
                    {moved > 0 ? "▲" : "▼"} {Math.abs(moved)}
                    <span class="hidden"> places {moved > 0 ? "above" : "below"} its place in the other list</span>
                  </span>
                )}
              </li>
            );
          })}
        </ol>
      )}
    </Card>
  );
}
