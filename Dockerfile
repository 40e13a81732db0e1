# syntax=docker/dockerfile:1
# Targets: cpu (default) and gpu. The gpu image brings CUDA and cuDNN as locked wheels, so both share one small base;
# the host gives the driver.
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS source
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY app app
COPY models models

FROM source AS build-cpu
RUN python -m venv /opt/nestvec \
 && /opt/nestvec/bin/pip install --no-cache-dir --require-hashes -r requirements/cpu.txt \
 && /opt/nestvec/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM source AS build-gpu
RUN python -m venv /opt/nestvec \
 && /opt/nestvec/bin/pip install --no-cache-dir --require-hashes -r requirements/gpu.txt \
 && /opt/nestvec/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --system --uid 10001 --home-dir /models --shell /usr/sbin/nologin nestvec \
 && install -d -o nestvec -g nestvec /models /data
COPY docker/healthcheck.py /usr/local/lib/nestvec/healthcheck.py
# Everything that is ever written goes to /models and /data (volumes) and /tmp: the root file system may be read-only.
# hadolint takes the TOKEN of a tokenizer's cache folder for a secret.
# hadolint ignore=DL3064
ENV PATH=/opt/nestvec/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    HF_HOME=/models/huggingface \
    TIKTOKEN_CACHE_DIR=/models/tiktoken \
    NESTVEC_CACHE_DIR=/models \
    NESTVEC_DATA_DIR=/data \
    NESTVEC_HOST=0.0.0.0 \
    NESTVEC_PORT=8080
VOLUME ["/models", "/data"]
EXPOSE 8080
USER 10001
WORKDIR /tmp
# A first start downloads and exports the model; until then the container is "starting", not "unhealthy".
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --start-interval=2s --retries=3 \
  CMD ["python", "/usr/local/lib/nestvec/healthcheck.py"]
ENTRYPOINT ["nestvec"]
CMD ["serve"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NESTVEC_PROVIDER=cuda
COPY --from=build-gpu /opt/nestvec /opt/nestvec

FROM runtime AS cpu
COPY --from=build-cpu /opt/nestvec /opt/nestvec
