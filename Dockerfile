# The control plane, with git, Traefik for the preflight, and the commands of an agent. docs/container.md says how to run it.
# Build: docker build -t cloudlunacy .

# Any Debian with Python 3.11 or newer as `python`, such as the copy in a registry of your own.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# What installs and builds stays behind with this stage: pip, and hatchling as the lock file has it.
RUN python -m venv /opt/builder \
    && python -m venv --without-pip /opt/cloudlunacy
COPY requirements-image.lock requirements.lock ./
RUN /opt/builder/bin/pip --python /opt/cloudlunacy/bin/python install --require-hashes --requirement requirements-image.lock \
    && sed -nE '/^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/,/[^\\]$/p' requirements.lock > build.lock \
    && /opt/builder/bin/pip install --require-hashes --requirement build.lock
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY reconciler reconciler
COPY schemas schemas
COPY templates templates
COPY state-repo-example state-repo-example
RUN /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/builder/bin/pip --python /opt/cloudlunacy/bin/python install --no-deps /wheel/*.whl

FROM ${BASE}
# git fetches and pushes, ssh reaches the remote, gpg verifies signed commits.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git gpg openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /data --shell /usr/sbin/nologin cloudlunacy \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/cloudlunacy /opt/cloudlunacy
ENV PATH=/opt/cloudlunacy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEALTH_URL=https://127.0.0.1:7300/healthz \
    HEALTH_CA=/data/ca.pem
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 7300
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; r.urlopen(os.environ['HEALTH_URL'], timeout=4, context=ssl.create_default_context(cafile=os.environ['HEALTH_CA'])).close()"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cloudlunacy"]
CMD ["--help"]
