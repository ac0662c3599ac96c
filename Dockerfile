# One image for the API, the worker, beat and the migrations; the command says which.
# Nothing secret goes in: settings come from the environment when it runs.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/livejobs
WORKDIR /src
# The pinned dependencies first: they change seldom, so this layer is kept.
COPY pyproject.toml constraints.txt LICENSE README.md ./
RUN /opt/livejobs/bin/pip install --constraint constraints.txt pip \
    && /opt/livejobs/bin/pip install --constraint constraints.txt \
       --build-constraint constraints.txt --only-deps '.[server,worker]'
COPY . .
RUN /opt/livejobs/bin/pip install --build-constraint constraints.txt --no-deps .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/livejobs livejobs \
    && mkdir /var/lib/livejobs/data \
    && chown livejobs:livejobs /var/lib/livejobs/data
COPY --from=build /opt/livejobs /opt/livejobs
ENV PATH="/opt/livejobs/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    LIVEJOBS_HOST=0.0.0.0 \
    LIVEJOBS_PORT=8000 \
    LIVEJOBS_DATA_DIR=/var/lib/livejobs/data \
    LIVEJOBS_LOG_FORMAT=json
USER livejobs
WORKDIR /var/lib/livejobs
EXPOSE 8000
# For the API; whoever runs another command has a check of their own, see docker-compose.yml.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"LIVEJOBS_PORT\"]}/healthz', timeout=4)"]
CMD ["livejobs", "server"]
