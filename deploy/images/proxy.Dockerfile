# The reverse proxy: the only thing of the server that devices reach.
# docker build -f deploy/images/proxy.Dockerfile -t fedstill/proxy .
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl nginx-light \
    && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled \
    && useradd --uid 10001 --no-create-home fedstill \
    && install -d -o fedstill -g fedstill /etc/fedstill/tls
COPY deploy/images/nginx.conf /etc/nginx/nginx.conf
USER 10001:10001
EXPOSE 8443
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["curl", "--silent", "--fail", "--insecure", "https://127.0.0.1:8443/healthy"]
CMD ["nginx", "-g", "daemon off;"]
