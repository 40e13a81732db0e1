// Unmodified npm clients, each by its own way to embeddings: what each got, by the client's name.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { InferenceClient } from "@huggingface/inference";
import { OpenAIEmbeddings } from "@langchain/openai";
import { OpenAIEmbedding } from "@llamaindex/openai";
import { embed, embedMany } from "ai";
import { CohereClientV2 } from "cohere-ai";
import { Ollama } from "ollama";
import { VoyageAIClient } from "voyageai";

const LIMIT_MS = 150_000;
const url = process.argv[2];
const apiKey = "test-key";
const texts = ["hello", "world", "日本語 🙂"];
const model = "all-MiniLM-L6-v2";
const alias = "text-embedding-3-small"; // for clients that know OpenAI's names only
const query = "Which animal?";
const documents = ["Rain is wet.", "A cat is an animal."];
const authorization = { authorization: `Bearer ${apiKey}` };

const clients = {
  async "@langchain/openai"() {
    const client = new OpenAIEmbeddings({ model, apiKey, maxRetries: 0, configuration: { baseURL: `${url}/v1` } });
    const cut = new OpenAIEmbeddings({ model, dimensions: 64, apiKey, maxRetries: 0, configuration: { baseURL: `${url}/v1` } });
    return { vectors: await client.embedDocuments(texts), cut: await cut.embedQuery(texts[0]) };
  },
  async "@ai-sdk/openai-compatible"() {
    const provider = createOpenAICompatible({ name: "nestvec", baseURL: `${url}/v1`, apiKey });
    const embedding = provider.textEmbeddingModel(model);
    const many = await embedMany({ model: embedding, values: texts, maxRetries: 0 });
    const cut = await embed({
      model: embedding, value: texts[0], maxRetries: 0, providerOptions: { nestvec: { dimensions: 64 } },
    });
    return { vectors: many.embeddings, cut: cut.embedding, tokens: many.usage.tokens };
  },
  async "@ai-sdk/openai"() {
    const embedding = createOpenAI({ baseURL: `${url}/v1`, apiKey }).textEmbeddingModel(alias);
    const many = await embedMany({ model: embedding, values: texts, maxRetries: 0 });
    const cut = await embed({
      model: embedding, value: texts[0], maxRetries: 0, providerOptions: { openai: { dimensions: 64 } },
    });
    return { vectors: many.embeddings, cut: cut.embedding };
  },
  async "cohere-ai"() {
    const client = new CohereClientV2({ token: apiKey, environment: url, maxRetries: 0 });
    const request = { model, inputType: "search_document", texts };
    const all = await client.embed({ ...request, embeddingTypes: ["float"] });
    const cut = await client.embed({ ...request, embeddingTypes: ["float", "int8", "ubinary"], outputDimension: 64 });
    const ranked = await client.rerank({ model, query, documents, topN: 1 });
    return {
      vectors: all.embeddings.float,
      cut: cut.embeddings.float[0],
      int8: cut.embeddings.int8,
      ubinary: cut.embeddings.ubinary,
      ranked: ranked.results.map((result) => result.index),
    };
  },
  async "ollama"() {
    const client = new Ollama({ host: url, headers: authorization });
    const all = await client.embed({ model, input: texts });
    const cut = await client.embed({ model, input: texts[0], dimensions: 64 });
    const listed = await client.list();
    return { vectors: all.embeddings, cut: cut.embeddings[0], models: listed.models.map((one) => one.name) };
  },
  async "voyageai"() {
    const client = new VoyageAIClient({ apiKey, environment: `${url}/v1`, maxRetries: 0 });
    const all = await client.embed({ model, input: texts });
    const cut = await client.embed({ model, input: texts, outputDimension: 64 });
    const ranked = await client.rerank({ model, query, documents, topK: 1 });
    return {
      vectors: all.data.map((item) => item.embedding),
      cut: cut.data[0].embedding,
      ranked: ranked.data.map((item) => item.index),
    };
  },
  async "@huggingface/inference"() {
    const client = new InferenceClient(apiKey, { endpointUrl: url });
    const similarities = await client.sentenceSimilarity({ inputs: { source_sentence: query, sentences: documents } });
    return { vectors: await client.featureExtraction({ inputs: texts }), similarities };
  },
  async "@llamaindex/openai"() {
    const client = new OpenAIEmbedding({ model: alias, apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
    const cut = new OpenAIEmbedding({ model: alias, dimensions: 64, apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
    return { vectors: await client.getTextEmbeddings(texts), cut: await cut.getTextEmbedding(texts[0]) };
  },
};

// A client that waits for ever must not hold the others up.
setTimeout(() => {
  console.error("the clients took too long");
  process.exit(3);
}, LIMIT_MS).unref();
const names = Object.keys(clients);
const got = await Promise.all(names.map((name) => clients[name]().catch((error) => ({ failed: `${error}` }))));
console.log(JSON.stringify({ texts, documents, clients: Object.fromEntries(names.map((name, n) => [name, got[n]])) }));
