// Map: texts as points on the plane that shows most of their differences, coloured by cluster.
import { batch, computed, effect, signal } from "@preact/signals";
import { findModel, inWords, models } from "../lib/api";
import { embedRaw } from "../lib/embeddings";
import { saveAs } from "../lib/files";
import { readTexts } from "../lib/tables";
import { openedWith, place, share } from "../lib/url";
import { clusters, cosine, project, ranking, stored } from "../lib/vectors";
import { Card, Choice, Empty, Field, ModelChoice, Problem } from "../parts/basics";

const MAX_POINTS = 1000;
const NEIGHBOURS = 5;
const EXAMPLE = ["the cat purrs", "a kitten plays with wool", "dogs like long walks", "a puppy chews a shoe", "the stock market fell", "investors sold their shares", "the central bank raised rates", "rain is expected on Monday", "a storm comes in from the west", "the sun shines all week", "bake the bread for forty minutes", "knead the dough and let it rest"].join("\n");

const start = openedWith("map");
const pasted = signal(start.get("texts") ?? EXAMPLE);
const model = signal(start.get("model") ?? "");
const groups = signal(Number(start.get("clusters")) || 4);
const shown = signal<{ texts: string[]; vectors: Float32Array[] } | null>(null);
const chosen = signal(-1);
const problem = signal("");
const busy = signal("");
const fits = signal(true);
const described = computed(() => (models.value, findModel(model.value)));

effect(() => {
  if (place.value.view !== "map") return;
  fits.value = share("map", { texts: pasted.value === EXAMPLE ? "" : pasted.value, model: model.value, clusters: groups.value === 4 ? "" : String(groups.value) });
});

const plane = computed(() => {
  const value = shown.value;
  return value ? project(value.vectors) : { points: [], share: 0 };
});
const labels = computed(() => (shown.value ? clusters(shown.value.vectors, groups.value) : []));
const nearest = computed(() => {
  const value = shown.value;
  if (!value || chosen.value < 0) return [];
  const scores = value.vectors.map((row) => cosine(row, value.vectors[chosen.value]!));
  return ranking(scores)
    .filter((index) => index !== chosen.value)
    .slice(0, NEIGHBOURS)
    .map((index) => ({ index, score: scores[index]! }));
});

async function draw(content: string, fileName = ""): Promise<void> {
  problem.value = "";
  try {
    const texts = readTexts(content, fileName).texts.slice(0, MAX_POINTS);
    if (texts.length < 3) throw new Error("A map needs at least three texts.");
    busy.value = `0 of ${texts.length}`;
    const answer = await embedRaw(texts, { model: model.value || described.value?.id || "" }, (done) => (busy.value = `${done} of ${texts.length}`));
    batch(() => {
      chosen.value = -1;
      shown.value = { texts, vectors: answer.vectors.map((row) => stored(row, row.length, "float32")) };
    });
  } catch (error) {
    problem.value = inWords(error);
  } finally {
    busy.value = "";
  }
}

function save(name: string, content: string, type: string): void {
  saveAs(name, new Blob([content], { type }));
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ");
}

export function MapView() {
  const value = shown.value;
  return (
    <>
      <Card title="Texts" note="One a line, JSONL, or a CSV, TSV or JSONL file.">
        <Field label="Texts, one a line">
          <textarea rows={9} spellcheck={false} value={pasted.value} onInput={(event) => (pasted.value = event.currentTarget.value)} />
        </Field>
        <div class="row">
          <ModelChoice value={model.value} onChange={(name) => (model.value = name)} />
          <Choice label="Clusters" value={String(groups.value)} options={["2", "3", "4", "5", "6", "8"]} onChange={(count) => (groups.value = Number(count))} />
          <label class="field">
            <span>Or a file</span>
            <input
              type="file"
              accept=".csv,.tsv,.jsonl,.ndjson,.json,.txt"
              onChange={async (event) => {
                const file = event.currentTarget.files?.[0];
                if (!file) return;
                const content = await file.text();
                await draw(content, file.name);
                if (shown.value) pasted.value = shown.value.texts.map(oneLine).join("\n");
              }}
            />
          </label>
          <button type="button" disabled={busy.value !== ""} onClick={() => void draw(pasted.value)}>
            {busy.value ? `Embedding ${busy.value}` : "Draw"}
          </button>
        </div>
        <Problem message={problem.value} />
        {!fits.value && <p class="note">The texts are too long for a link: what is shared is the rest.</p>}
      </Card>
      {value ? <Plane texts={value.texts} /> : <Empty title="What lies near what">Draw the texts: each is a point, near points mean alike, and a point tells its neighbours.</Empty>}
      {value && (
        <Card title="Take it along" wide note="For viewers that hold more points than a page: TensorFlow's Embedding Projector reads the two TSV files, everything else the JSON lines.">
          <div class="row">
            <button type="button" class="quiet" onClick={() => save("vectors.tsv", value.vectors.map((row) => row.join("\t")).join("\n"), "text/tab-separated-values")}>
              vectors.tsv
            </button>
            <button
              type="button"
              class="quiet"
              onClick={() => save("metadata.tsv", ["text\tcluster", ...value.texts.map((text, i) => `${oneLine(text)}\t${labels.value[i]! + 1}`)].join("\n"), "text/tab-separated-values")}
            >
              metadata.tsv
            </button>
            <button
              type="button"
              class="quiet"
              onClick={() =>
                save(
                  "texts.jsonl",
                  value.texts.map((text, i) => JSON.stringify({ text, cluster: labels.value[i]! + 1, x: plane.value.points[i]![0], y: plane.value.points[i]![1], embedding: [...value.vectors[i]!] })).join("\n"),
                  "application/jsonl",
                )
              }
            >
              texts.jsonl
            </button>
          </div>
        </Card>
      )}
    </>
  );
}

function Plane(props: { texts: string[] }) {
  const { points, share } = plane.value;
  const reach = Math.max(...points.flat().map(Math.abs), 1e-9);
  const near = new Set(nearest.value.map((each) => each.index));
  return (
    <Card title="Map" note={`The two directions in which these texts differ most hold ${(share * 100).toFixed(0)}% of their differences: what looks near may not be. Neighbours are computed from whole vectors.`}>
      <svg class="plane" viewBox="-1.1 -1.1 2.2 2.2" role="group" aria-label="Texts as points">
        {points.map(([x, y], index) => (
          <circle
            key={index}
            cx={x / reach}
            cy={-y / reach}
            r={index === chosen.value ? 0.04 : 0.026}
            class={`point c${(labels.value[index]! % 8) + 1}${near.has(index) ? " near" : ""}${index === chosen.value ? " chosen" : ""}`}
            tabindex={0}
            role="button"
            aria-label={`${props.texts[index]!.slice(0, 80)}, cluster ${labels.value[index]! + 1}`}
            onMouseEnter={() => (chosen.value = index)}
            onFocus={() => (chosen.value = index)}
            onClick={() => (chosen.value = index)}
          />
        ))}
      </svg>
      <div class="neighbours" aria-live="polite">
        {chosen.value < 0 ? (
          <p class="note">Point at a text, or move with the Tab key.</p>
        ) : (
          <>
            <p>
              <b>{props.texts[chosen.value]}</b>
            </p>
            <ol class="hits">
              {nearest.value.map((each) => (
                <li key={each.index}>
                  <span class="score">{each.score.toFixed(3)}</span>
                  <span class="text">{props.texts[each.index]}</span>
                </li>
              ))}
            </ol>
          </>
        )}
      </div>
    </Card>
  );
}
