# One image for every part of the farm; docker-compose.yml says which part a container runs.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
COPY constraints.txt pyproject.toml README.md ./
COPY farm farm
COPY producer producer
COPY worker worker
COPY dashboard dashboard
COPY migrations migrations
RUN pip install --constraint constraints.txt '.[server,worker]' \
    && useradd --uid 10001 --create-home farm \
    && mkdir -p /data /models && chown farm /data /models

USER farm
VOLUME ["/data", "/models"]
CMD ["farm", "--help"]
