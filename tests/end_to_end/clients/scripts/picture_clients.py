"""Pictures by voyageai, cohere, google-genai and openai, each in its own words, and the errors that they raise."""

import base64
import io
import json
import sys

import cohere
import openai
import PIL.Image
import voyageai
from google import genai
from google.genai import types

url = sys.argv[1]
model, text = "clip", "red and green"
image = PIL.Image.effect_mandelbrot((70, 50), (-2, -1.5, 1, 1.5), 50).convert("RGB")
file = io.BytesIO()
image.save(file, "PNG")
png = file.getvalue()
encoded = base64.b64encode(png).decode()
data_url = f"data:image/png;base64,{encoded}"
broken = "data:image/png;base64," + base64.b64encode(png[:200]).decode()
part = {"type": "image_url", "image_url": {"url": data_url}}

voyage = voyageai.Client(base_url=f"{url}/v1", api_key="test-key")
of_voyage = voyage.multimodal_embed(inputs=[[text], [image]], model=model, truncation=True)
small = voyage.multimodal_embed(
    inputs=[{"content": [{"type": "image_base64", "image_base64": data_url}]}],
    model=model,
    output_dimension=8,
    output_dtype="int8",
)

v2 = cohere.ClientV2(base_url=url, api_key="test-key")
of_cohere = v2.embed(
    model=model, images=[data_url], input_type="image", embedding_types=["float", "binary"]
)
of_inputs = v2.embed(
    model=model,
    inputs=[{"content": [{"type": "text", "text": text}]}, {"content": [part]}],
    input_type="search_document",
    embedding_types=["float"],
)

gemini = genai.Client(api_key="test-key", http_options=types.HttpOptions(base_url=url))
of_gemini = gemini.models.embed_content(
    model=model,
    contents=[
        types.Content(parts=[types.Part.from_text(text=text)]),
        types.Content(parts=[types.Part.from_bytes(data=png, mime_type="image/png")]),
    ],
)

client = openai.OpenAI(base_url=f"{url}/v1", api_key="test-key")
of_openai = client.embeddings.create(model=model, input=[text, part])
of_messages = client.post(
    "/embeddings",
    body={"model": model, "messages": [{"role": "user", "content": [part]}]},
    cast_to=openai.types.CreateEmbeddingResponse,
)
of_jina = client.embeddings.create(model=model, input=[{"text": text}, {"image": encoded}])

raw = openai.OpenAI(base_url=f"{url}/v1", api_key="test-key")
of_labels = raw.post(
    "/classify",
    body={"model": model, "input": [{"image": encoded}], "labels": ["red", "blue"]},
    cast_to=object,
)
documents = [text, {"image": data_url}, {"text": text}]
of_rerank = raw.post(
    "/rerank",
    body={"model": model, "query": {"image": encoded}, "documents": documents},
    cast_to=object,
)
# Its own types name texts only, and it sends what it is given.
of_cohere_rerank = v2.rerank(model=model, query=text, documents=documents)

failures = {}
for name, call, kind in (
    (
        "voyage",
        lambda: voyage.multimodal_embed(
            [{"content": [{"type": "image_base64", "image_base64": broken}]}], model
        ),
        voyageai.error.VoyageError,
    ),
    (
        "cohere",
        lambda: v2.embed(model=model, images=[broken], input_type="image"),
        cohere.core.ApiError,
    ),
    (
        "openai",
        lambda: client.embeddings.create(model=model, input=[{"image": "https://a/b.png"}]),
        openai.OpenAIError,
    ),
):
    try:
        call()
    except kind as error:
        failures[name] = type(error).__name__
print(
    json.dumps(
        {
            "text": text,
            "picture": data_url,
            "voyage": of_voyage.embeddings,
            "voyage_usage": [
                of_voyage.text_tokens,
                of_voyage.image_pixels,
                of_voyage.total_tokens,
            ],
            "voyage_small": small.embeddings,
            "cohere": of_cohere.embeddings.float_,
            "cohere_bits": of_cohere.embeddings.binary,
            "cohere_images": [
                [each.width, each.height, each.format, each.bit_depth] for each in of_cohere.images
            ],
            "cohere_billed": of_cohere.meta.billed_units.images,
            "cohere_inputs": of_inputs.embeddings.float_,
            "gemini": [each.values for each in of_gemini.embeddings],
            "openai": [each.embedding for each in of_openai.data],
            "messages": [each.embedding for each in of_messages.data],
            "jina": [each.embedding for each in of_jina.data],
            "labels": of_labels["data"],
            "rerank": [[row["index"], row["relevance_score"]] for row in of_rerank["results"]],
            "cohere_rerank": [[r.index, r.relevance_score] for r in of_cohere_rerank.results],
            "failures": failures,
        }
    )
)
