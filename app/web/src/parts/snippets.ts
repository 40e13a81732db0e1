// The same call in the words of those who will make it.
import { ROOT } from "../lib/api";

export interface Call {
  model: string;
  texts: string[];
  dimensions: number | null;
  dtype: string;
  extra: Record<string, unknown>;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function python(value: unknown): string {
  return JSON.stringify(value).replace(/\btrue\b/g, "True").replace(/\bfalse\b/g, "False").replace(/\bnull\b/g, "None");
}

export function snippets(call: Call): Record<string, string> {
  const base = `${ROOT}v1`;
  const input = call.texts.slice(0, 2);
  const extra = { ...call.extra, ...(call.dtype === "float32" ? {} : { output_dtype: call.dtype }) };
  const dims = call.dimensions === null ? {} : { dimensions: call.dimensions };
  const body = { model: call.model, input, ...dims, ...extra };
  const hasExtra = Object.keys(extra).length > 0;
  return {
    curl: `curl ${base}/embeddings \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(body))}`,
    Python: [
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url=${JSON.stringify(base)}, api_key="your key, or any text where the server has none")`,
      "answer = client.embeddings.create(",
      `    model=${JSON.stringify(call.model)},`,
      `    input=${python(input)},`,
      ...(call.dimensions === null ? [] : [`    dimensions=${call.dimensions},`]),
      // The client asks for base64 unasked, which holds floats only.
      ...(call.dtype === "float32" ? [] : ['    encoding_format="float",']),
      ...(hasExtra ? [`    extra_body=${python(extra)},`] : []),
      ")",
      "vectors = [row.embedding for row in answer.data]",
    ].join("\n"),
    JavaScript: [
      `const response = await fetch(${JSON.stringify(`${base}/embeddings`)}, {`,
      '  method: "POST",',
      '  headers: { "content-type": "application/json" },',
      `  body: JSON.stringify(${JSON.stringify(body)}),`,
      "});",
      "const vectors = (await response.json()).data.map((row) => row.embedding);",
    ].join("\n"),
    LangChain: [
      "from langchain_openai import OpenAIEmbeddings",
      "",
      "embeddings = OpenAIEmbeddings(",
      `    base_url=${JSON.stringify(base)},`,
      '    api_key="your key, or any text where the server has none",',
      `    model=${JSON.stringify(call.model)},`,
      ...(call.dimensions === null ? [] : [`    dimensions=${call.dimensions},`]),
      "    check_embedding_ctx_length=False,",
      ...(hasExtra ? [`    model_kwargs={"extra_body": ${python(extra)}},`] : []),
      ")",
      `vectors = embeddings.embed_documents(${python(input)})`,
    ].join("\n"),
  };
}
