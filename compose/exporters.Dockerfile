# syntax=docker/dockerfile:1
# sentinel-exporter for the monitoring host, where it asks BMCs. On nodes it runs natively: the
# GPU, NPU and SSH collectors need the node's own driver, processes and users.

FROM python:3.11.11-slim-bookworm AS build
# What builds the wheel is locked too: nothing is fetched unpinned.
COPY requirements/up.txt /locks/
RUN python -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r /locks/up.txt
COPY requirements/exporters.txt /locks/
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes -r /locks/exporters.txt
COPY exporters /src/exporters
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels /src/exporters \
    && /venv/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.11.11-slim-bookworm
RUN groupadd --gid 10001 sentinel \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin sentinel
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SENTINEL_EXPORTER_LISTEN=0.0.0.0:9290 \
    SENTINEL_EXPORTER_COLLECTORS=ipmi
USER 10001:10001
EXPOSE 9290
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9290/healthz', timeout=4)"]
ENTRYPOINT ["sentinel-exporter"]
CMD ["serve"]
