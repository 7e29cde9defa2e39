# Search, UI and serving as a user without rights. PyPI's PyTorch brings CUDA's libraries, so the one image computes on
# the CPU, and on a GPU where the container is given one (docker run --gpus all). See docs/scaling.md.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    OPENBLAS_NUM_THREADS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_worker_niceness=0

WORKDIR /opt/thawline
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY explain explain
COPY lightning_modules lightning_modules
COPY search search
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

RUN useradd --uid 1000 --create-home thawline && install --directory --owner=thawline /data
USER thawline
WORKDIR /data
VOLUME /data

ENTRYPOINT ["python", "-m"]
CMD ["search", "--help"]
