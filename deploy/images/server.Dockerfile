# The server: SuperLink, superexec, enrolment, delivery, metrics; each container runs one of them.
# docker build -f deploy/images/server.Dockerfile -t fedstill/server .
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/fedstill \
    && useradd --uid 10001 --home-dir /var/lib/fedstill --create-home fedstill
ENV PATH=/opt/fedstill/bin:$PATH XDG_DATA_HOME=/var/lib

# pip reads these while the image is built. PyTorch's index has the builds without CUDA; a site with an index or with
# wheels of its own names them (--build-arg PIP_INDEX_URL=..., PIP_FIND_LINKS=..., PIP_NO_INDEX=1).
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
ARG PIP_TRUSTED_HOST
WORKDIR /opt/source
# What is depended on comes first, with empty packages: a change of the code then leaves this layer as it is.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN for room in fedstill protos server client simulations deploy; do mkdir $room && touch $room/__init__.py; done \
    && pip install --no-cache-dir --constraint constraints.txt '.[server,runs]'
COPY fedstill fedstill
COPY protos protos
COPY server server
COPY client client
COPY simulations simulations
COPY deploy deploy
RUN pip install --no-cache-dir --no-deps --force-reinstall --constraint constraints.txt . \
    && cd /var/lib/fedstill && mkdir server keys data && chmod 700 server keys \
    && mkdir -p /etc/fedstill/tls \
    && chown -R fedstill:fedstill /var/lib/fedstill /etc/fedstill

ENV FEDSTILL_SERVER=/var/lib/fedstill/server
WORKDIR /var/lib/fedstill
USER 10001:10001
# What a container is asked depends on what it runs: see compose.yaml and kubernetes/server.yaml. This is the default's.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-m", "deploy.health", "superlink"]
CMD ["fedstill", "server", "start"]
