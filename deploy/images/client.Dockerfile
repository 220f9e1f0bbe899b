# A device: agent and SuperNode. EXTRA=edge holds no torch; EXTRA=edge-train learns with it.
# docker build -f deploy/images/client.Dockerfile --build-arg EXTRA=edge-train -t fedstill/client:train .
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/fedstill \
    && useradd --uid 10001 --home-dir /var/lib/fedstill --create-home fedstill
ENV PATH=/opt/fedstill/bin:$PATH XDG_DATA_HOME=/var/lib

# pip reads these while the image is built; see server.Dockerfile.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
ARG PIP_TRUSTED_HOST
WORKDIR /opt/source
# Empty packages first: a change of the code then leaves the layer of the dependencies as it is. On ARM torch 2.10 dies
# with an illegal instruction on older cores, and later builds want CUDA.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN for room in fedstill protos server client simulations deploy; do mkdir $room && touch $room/__init__.py; done \
    && if [ "$(uname -m)" = aarch64 ]; then sed -i 's/^torch==.*/torch>=2.8,<2.10/' constraints.txt; fi \
    && pip install --no-cache-dir --constraint constraints.txt '.[edge]'
ARG EXTRA=edge
RUN if [ "$EXTRA" != edge ]; then pip install --no-cache-dir --constraint constraints.txt ".[$EXTRA]"; fi
COPY fedstill fedstill
COPY protos protos
COPY server server
COPY client client
COPY simulations simulations
COPY deploy deploy
RUN pip install --no-cache-dir --no-deps --force-reinstall --constraint constraints.txt . \
    && mkdir /var/lib/fedstill/data /var/lib/fedstill/device && chmod 700 /var/lib/fedstill/device \
    && chown -R fedstill:fedstill /var/lib/fedstill

ENV FEDSTILL_HOME=/var/lib/fedstill/device
WORKDIR /var/lib/fedstill
USER 10001:10001
VOLUME /var/lib/fedstill/device
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s \
    CMD ["python", "-m", "deploy.health", "device"]
CMD ["fedstill", "client", "start"]
