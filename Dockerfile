# Targets: cpu (default) and gpu. The gpu image brings CUDA as locked wheels, so both share one small base; the host
# gives the driver. Plain syntax of 2022 on purpose: no frontend is fetched, and podman builds it as Docker does.
#
# Pinning: the base by a tag that keeps its minor version, so that a rebuild brings the security fixes of Python and
# Debian; every Python package by its hash. For builds that are the same to the byte give a digest:
# --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

# What others have made, and what seldom changes, comes before our own code in every stage: after a change of the code
# only some megabytes are built, pushed and pulled.
FROM ${PYTHON_IMAGE} AS venv
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/nestvec

FROM venv AS packages-cpu
# Extras that a server does not need: parquet, quality, or parquet,quality.
ARG EXTRAS=""
COPY requirements/cpu.txt requirements/
COPY requirements/extras requirements/extras
COPY docker/install_locked.sh docker/
RUN sh docker/install_locked.sh cpu ${EXTRAS}

FROM packages-cpu AS project-cpu
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY app app
RUN /opt/nestvec/bin/pip install --no-deps --no-build-isolation --prefix=/project .

FROM ${PYTHON_IMAGE} AS runtime
# /models and /data can be written by user 10001 and by any user in group 0, as which OpenShift runs containers.
RUN groupadd --gid 10001 nestvec \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /models --shell /usr/sbin/nologin nestvec \
 && install -d -o 10001 -g 0 -m 0775 /models /data
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
EXPOSE 8080
USER 10001
WORKDIR /tmp
# A first start downloads and exports the model; until then the container is "starting", not "unhealthy".
HEALTHCHECK --interval=5s --timeout=5s --start-period=10m --retries=3 \
  CMD ["python", "-IS", "/usr/local/lib/nestvec/healthcheck.py"]
ENTRYPOINT ["nestvec"]
CMD ["serve"]

# A model that is baked in (--build-arg BAKED_MODEL=all-MiniLM-L6-v2) is for hosts without a network: a new
# volume at /models begins with it. What is written to a VOLUME after its line is lost, so the line comes last.
FROM runtime AS cpu
COPY --from=packages-cpu /opt/nestvec /opt/nestvec
COPY --from=project-cpu /project /opt/nestvec
ARG BAKED_MODEL=""
RUN [ -z "${BAKED_MODEL}" ] || NESTVEC_HOST=127.0.0.1 nestvec model pull "${BAKED_MODEL}"
VOLUME ["/models", "/data"]

# Behind all of the image for CPUs: builders of before BuildKit make every stage that stands before their target.
FROM venv AS packages-gpu
ARG EXTRAS=""
COPY requirements/gpu.txt requirements/
COPY requirements/extras requirements/extras
COPY docker/install_locked.sh docker/
RUN sh docker/install_locked.sh gpu ${EXTRAS}

FROM packages-gpu AS project-gpu
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY app app
RUN /opt/nestvec/bin/pip install --no-deps --no-build-isolation --prefix=/project .

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NESTVEC_PROVIDER=cuda
COPY --from=packages-gpu /opt/nestvec /opt/nestvec
COPY --from=project-gpu /project /opt/nestvec
ARG BAKED_MODEL=""
RUN [ -z "${BAKED_MODEL}" ] || NESTVEC_HOST=127.0.0.1 NESTVEC_PROVIDER=cpu nestvec model pull "${BAKED_MODEL}"
VOLUME ["/models", "/data"]

# Without --target.
FROM cpu AS default
