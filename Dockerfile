ARG BASE=python:3.12-slim

# The page is built here, and of this stage only the page is kept.
FROM ${BASE} AS build
WORKDIR /app
COPY requirements.txt requirements-build.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt \
    && pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.txt
COPY rxconfig.py ./
COPY reflex.lock reflex.lock
COPY assets assets
COPY comfyweb comfyweb
COPY vm_setup vm_setup
RUN REFLEX_TELEMETRY_ENABLED=false REFLEX_CHECK_LATEST_VERSION=false reflex export --frontend-only --no-zip

FROM ${BASE}
# `container` lets the app listen on all addresses (comfyweb/__main__.py).
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 container=docker DATABASE_URL=sqlite:////data/comfyweb.db
WORKDIR /app
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt \
    && useradd --uid 10001 --home-dir /data --create-home comfyweb
COPY rxconfig.py ./
COPY comfyweb comfyweb
COPY vm_setup vm_setup
RUN python -m compileall -q comfyweb vm_setup
COPY --from=build /app/.web/build/client .web/build/client
COPY --from=build /app/.web/backend .web/backend
USER comfyweb
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 3000)}/healthz', timeout=4)"]
CMD ["python", "-m", "comfyweb"]
