// The unmodified openai client for Node: its default base64, floats, cuts, a model's name with a slash, errors.
import OpenAI from "openai";

const url = process.argv[2];
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "test-key", maxRetries: 0 });
const texts = ["hello", "world", "", "日本語 🙂"];
const model = "all-MiniLM-L6-v2";
const standard = await client.embeddings.create({ model, input: texts });
const floats = await client.embeddings.create({ model, input: texts, encoding_format: "float" });
const cut = await client.embeddings.create({ model, input: "hello", dimensions: 64 });
const models = [];
for await (const one of client.models.list()) models.push(one.id);
const named = await client.models.retrieve("sentence-transformers/all-MiniLM-L6-v2");
let failure = {};
try {
  await client.embeddings.create({ model: "nope", input: "a" });
} catch (error) {
  failure = { status: error.status, code: error.code, type: error.type };
}
console.log(JSON.stringify({
  texts,
  default: standard.data.map((item) => item.embedding),
  float: floats.data.map((item) => item.embedding),
  cut: cut.data[0].embedding,
  models,
  model: named.id,
  failure,
}));
