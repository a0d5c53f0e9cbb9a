# The control plane. Build: docker build -t cloudlunacy .
# Run:   docker run -v cloudlunacy:/data -v /etc/traefik/dynamic:/dynamic -p 7300:7300 cloudlunacy \
#          serve --repo URL --branch main --data /data --listen 0.0.0.0:7300 \
#          --traefik-file /dynamic/cloudlunacy.yml --traefik-api http://traefik:8080

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/cloudlunacy
ENV PATH=/opt/cloudlunacy/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements-image.lock requirements.lock ./
RUN pip install --require-hashes --requirement requirements-image.lock
# hatchling, as the lock file has it, builds the wheel in a place of its own and stays behind with this stage.
RUN python -m venv /opt/builder \
    && sed -nE '/^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/,/[^\\]$/p' requirements.lock > build.lock \
    && /opt/builder/bin/pip install --require-hashes --requirement build.lock
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY reconciler reconciler
COPY schemas schemas
COPY templates templates
COPY state-repo-example state-repo-example
RUN /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && pip install --no-deps /wheel/*.whl \
    && pip uninstall --yes pip

FROM python:3.12-slim-bookworm
# git fetches and pushes, ssh reaches the remote, gpg verifies signed commits.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git gpg openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin cloudlunacy \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/cloudlunacy /opt/cloudlunacy
ENV PATH=/opt/cloudlunacy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEALTH_URL=http://127.0.0.1:7300/healthz
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 7300
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ['HEALTH_URL'], timeout=4).close()"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cloudlunacy"]
CMD ["--help"]
