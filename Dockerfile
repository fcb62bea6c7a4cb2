# The service in a container; see compose.yaml.
FROM python:3.13-slim
# `otel` for spans: docs/operations.md.
ARG EXTRAS=
WORKDIR /src
COPY setup.cfg setup.py README.md LICENSE ./
COPY kazoo_ips kazoo_ips
COPY couch_views couch_views
RUN pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}" && rm -rf /src && useradd --system --no-create-home kazoo-ips
WORKDIR /
USER kazoo-ips
ENV KAZOO_IPS_BIND=[::]:8000
EXPOSE 8000
# gunicorn is process 1: SIGTERM reaches it, and it finishes what it has accepted.
STOPSIGNAL SIGTERM
CMD ["gunicorn", "-c", "python:kazoo_ips.gunicorn_conf"]
