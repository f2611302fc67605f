# syntax=docker/dockerfile:1
# Fills the settings into the files of Prometheus, Alertmanager and Grafana, once, and ends.
# There is nothing to ask it, so it has no health check.

FROM python:3.11.11-slim-bookworm
RUN groupadd --gid 10001 sentinel \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin sentinel \
    && install -d -o sentinel -g sentinel -m 0755 /config
COPY provisioning /sentinel/provisioning
COPY alert_rules /sentinel/alert_rules
USER 10001:10001
VOLUME /config
ENTRYPOINT ["python", "/sentinel/provisioning/render.py", "/config"]
