// Batches: files of requests that run when there is room; uploaded, watched, fetched and cancelled here.
import { signal } from "@preact/signals";
import { ApiError, call, getJson, inWords, postJson } from "../lib/api";
import { saveAs } from "../lib/files";
import { bytes, count, when } from "../lib/format";
import { whileOpen } from "../lib/url";
import { Card, Empty, Problem, Table, Tabs } from "../parts/basics";

interface Batch {
  id: string;
  status: string;
  created_at: number;
  completed_at: number | null;
  input_file_id: string;
  output_file_id: string | null;
  error_file_id: string | null;
  request_counts: { total: number; completed: number; failed: number } | null;
  errors?: { data: { message: string; line: number | null }[] } | null;
}

const EXAMPLE =
  '{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a text"}}\n{"custom_id": "2", "method": "POST", "url": "/v1/embeddings", "body": {"input": ["two", "texts"], "dimensions": 64}}';
const RUNNING = ["validating", "in_progress", "finalizing", "cancelling"];
const EVERY_MS = 1500;

const batches = signal<Batch[]>([]);
const more = signal(false);
const problem = signal("");
const off = signal(false);
const uploading = signal("");

async function refresh(after = ""): Promise<void> {
  try {
    const answer = await getJson<{ data: Batch[]; has_more: boolean }>(`v1/batches?limit=20${after ? `&after=${after}` : ""}`);
    batches.value = after ? [...batches.value, ...answer.data] : answer.data;
    more.value = answer.has_more;
    off.value = false;
  } catch (error) {
    off.value = error instanceof ApiError && error.status === 404;
    problem.value = off.value ? "" : inWords(error);
  }
}

whileOpen(
  "batches",
  EVERY_MS,
  () => void refresh(),
  () => batches.peek().some((batch) => RUNNING.includes(batch.status)) && void refresh(),
);

async function upload(file: File): Promise<void> {
  problem.value = "";
  uploading.value = `Sending ${file.name}, ${bytes(file.size)}…`;
  try {
    const form = new FormData();
    form.append("purpose", "batch");
    form.append("file", file);
    const sent = (await (await call("v1/files", { method: "POST", body: form })).json()) as { id: string };
    await postJson("v1/batches", { input_file_id: sent.id, endpoint: "/v1/embeddings", completion_window: "24h" });
    await refresh();
  } catch (error) {
    problem.value = inWords(error);
  }
  uploading.value = "";
}

async function download(file: string, name: string): Promise<void> {
  problem.value = "";
  try {
    saveAs(name, await (await call(`v1/files/${file}/content`)).blob());
  } catch (error) {
    problem.value = inWords(error);
  }
}

async function cancel(id: string): Promise<void> {
  try {
    await postJson(`v1/batches/${id}/cancel`, {});
  } catch (error) {
    problem.value = inWords(error);
  }
  await refresh();
}

export function BatchesView() {
  if (off.value) return <Empty title="No batches here">This server was started without files and batches (the setting files_api). An operator can switch them on.</Empty>;
  return (
    <>
      <Card title="New batch" wide note="A file of JSON lines, one request each, as OpenAI's Batch API takes it. It runs behind what people wait for.">
        <div class="row">
          <label class="field">
            <span>File of requests (.jsonl)</span>
            <input
              type="file"
              accept=".jsonl,.ndjson"
              disabled={uploading.value !== ""}
              onChange={async (event) => {
                const input = event.currentTarget;
                if (input.files?.[0]) await upload(input.files[0]);
                input.value = "";
              }}
            />
          </label>
          <p class="note" role="status">
            {uploading.value}
          </p>
        </div>
        <Problem message={problem.value} />
      </Card>
      {batches.value.length === 0 ? (
        <div class="wide">
          <Empty title="No batch yet">Upload a file like this one, of as many lines as you have; the results come as a file with the same ids.</Empty>
          <Tabs label="Example" texts={{ "requests.jsonl": EXAMPLE }} />
        </div>
      ) : (
        <div class="wide">
          <Table label="Batches" heads={["Batch", "State", "Lines", "Begun", "Results"]}>
            {batches.value.map((batch) => (
              <BatchRow key={batch.id} batch={batch} />
            ))}
          </Table>
          {more.value && (
            <button type="button" class="quiet" onClick={() => void refresh(batches.value.at(-1)!.id)}>
              Older ones
            </button>
          )}
        </div>
      )}
    </>
  );
}

function BatchRow({ batch }: { batch: Batch }) {
  const counts = batch.request_counts ?? { total: 0, completed: 0, failed: 0 };
  const done = counts.completed + counts.failed;
  return (
    <tr>
      <td>
        <code>{batch.id}</code>
      </td>
      <td>
        <span class={`state ${batch.status}`}>{batch.status.replaceAll("_", " ")}</span>
        {batch.errors?.data[0] && <p class="note">{batch.errors.data[0].message}</p>}
      </td>
      <td>
        <progress value={done} max={counts.total || 1} aria-label={`${done} of ${counts.total} lines`} /> {count(done)} of {count(counts.total)}
        {counts.failed > 0 && `, ${count(counts.failed)} failed`}
      </td>
      <td>{when(batch.created_at)}</td>
      <td class="row">
        {batch.output_file_id && (
          <button type="button" class="quiet" onClick={() => void download(batch.output_file_id!, `${batch.id}.jsonl`)}>
            Vectors
          </button>
        )}
        {batch.error_file_id && (
          <button type="button" class="quiet" onClick={() => void download(batch.error_file_id!, `${batch.id}-errors.jsonl`)}>
            Errors
          </button>
        )}
        {RUNNING.includes(batch.status) && batch.status !== "cancelling" && (
          <button type="button" class="quiet" onClick={() => void cancel(batch.id)}>
            Cancel
          </button>
        )}
      </td>
    </tr>
  );
}
