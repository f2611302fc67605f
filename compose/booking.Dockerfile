# syntax=docker/dockerfile:1
# The booking server and its worker: one image, two commands. Built from the repository's root.

FROM node:22.12.0-bookworm-slim AS pages
WORKDIR /pages
COPY booking/package.json booking/package-lock.json ./
# The lock file's hashes say what is accepted.
RUN npm ci --ignore-scripts --no-audit --no-fund

FROM python:3.11.11-slim-bookworm AS build
# What builds the wheel, pybabel and setuptools, is locked too: nothing is fetched unpinned.
COPY requirements/up.txt /locks/
RUN python -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r /locks/up.txt
COPY requirements/booking.txt /locks/
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes -r /locks/booking.txt
COPY booking /src/booking
# booking links to them from its source tree.
COPY docs/runbooks /src/docs/runbooks
COPY --from=pages \
    /pages/node_modules/htmx.org/dist/htmx.min.js \
    /pages/node_modules/uplot/dist/uPlot.iife.min.js \
    /pages/node_modules/uplot/dist/uPlot.min.css \
    /src/booking/src/sentinel_booking/web/static/vendor/
COPY --from=pages /pages/node_modules/htmx.org/LICENSE \
    /src/booking/src/sentinel_booking/web/static/vendor/LICENSE.htmx
COPY --from=pages /pages/node_modules/uplot/LICENSE \
    /src/booking/src/sentinel_booking/web/static/vendor/LICENSE.uplot
RUN /build/bin/pybabel -q compile -d /src/booking/src/sentinel_booking/web/translations \
    && /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels /src/booking \
    && /venv/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.11.11-slim-bookworm
RUN groupadd --gid 10001 sentinel \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin sentinel \
    && install -d -o sentinel -g sentinel -m 0750 /var/lib/sentinel
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SENTINEL_BOOKING_LISTEN=0.0.0.0:8800
USER 10001:10001
VOLUME /var/lib/sentinel
EXPOSE 8800
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8800/readyz', timeout=4)"]
ENTRYPOINT ["sentinel-booking"]
CMD ["serve"]
