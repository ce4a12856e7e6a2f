ARG BASE=python:3.12-slim

# What runs; the other stages add to it.
FROM ${BASE} AS run
WORKDIR /app
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt

# The page is built here, and of this stage only the page is kept.
FROM run AS build
COPY requirements-build.txt ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.txt
COPY rxconfig.py ./
COPY reflex.lock reflex.lock
COPY assets assets
COPY comfyweb comfyweb
COPY vm_setup vm_setup
RUN REFLEX_TELEMETRY_ENABLED=false REFLEX_CHECK_LATEST_VERSION=false reflex export --frontend-only --no-zip

# The list of all Python packages that run (CycloneDX). What the page is made of is in reflex.lock.
FROM run AS packages
RUN python -m venv /lister && /lister/bin/pip install --no-cache-dir cyclonedx-bom==7.5.0 \
    && /lister/bin/cyclonedx-py environment --output-reproducible --output-file /packages.cdx.json "$(command -v python)"

FROM run
# `container` lets the app, and the demo, listen on all addresses (comfyweb/__main__.py).
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 container=docker DATABASE_URL=sqlite:////data/comfyweb.db
RUN useradd --uid 10001 --home-dir /data --create-home comfyweb
COPY rxconfig.py ./
COPY comfyweb comfyweb
COPY vm_setup vm_setup
RUN python -m compileall -q comfyweb vm_setup
COPY --from=build /app/.web/build/client .web/build/client
COPY --from=build /app/.web/backend .web/backend
COPY --from=packages /packages.cdx.json ./
USER comfyweb
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 3000)}/healthz', timeout=4)"]
CMD ["python", "-m", "comfyweb"]
