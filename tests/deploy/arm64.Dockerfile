# The tests' arm64 root file system as an image of a device; its folder is the context.
FROM scratch
COPY . /
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin FEDSTILL_HOME=/var/lib/fedstill/device XDG_DATA_HOME=/var/lib \
    PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
WORKDIR /var/lib/fedstill
