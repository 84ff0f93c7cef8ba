# The image of `tarazu serve` (the default) and of every other command: docker run IMAGE worker.
#
# The same tag in both stages: the environment that the first one fills is copied whole and needs the same interpreter.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
# 1 adds the motor driver (MONGO_DRIVER=motor); PyMongo's own async API is always there.
ARG MOTOR=0
WORKDIR /src
# Without pip: what runs has no use for it. The base image's own pip fills the environment from outside.
RUN python -m venv --without-pip /opt/tarazu
COPY requirements/ requirements/
RUN pip --python /opt/tarazu/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary :all: -r requirements/run.txt
# requirements/dev.txt pins motor with its hashes; all that it depends on is there already.
RUN if [ "${MOTOR}" = 1 ]; then \
      sed -n '/^motor==/,/[^\\]$/p' requirements/dev.txt > requirements/motor.txt && \
      pip --python /opt/tarazu/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: --no-deps -r requirements/motor.txt; \
    fi
COPY . .
# The pinned build tools make the package, and go before the environment is copied.
RUN pip --python /opt/tarazu/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-build-isolation . && \
    pip --python /opt/tarazu/bin/python uninstall --yes hatchling editables pathspec pluggy trove-classifiers

FROM python:${PYTHON}
# The base image's own pip, setuptools and wheel build nothing here.
RUN pip uninstall --yes --root-user-action=ignore pip setuptools wheel && \
    groupadd --system --gid 10001 tarazu && \
    useradd --system --uid 10001 --gid tarazu --no-create-home --home-dir /var/lib/tarazu --shell /usr/sbin/nologin tarazu && \
    install --directory --owner=tarazu --group=tarazu --mode=0750 /var/lib/tarazu /var/lib/tarazu/data
COPY --from=build /opt/tarazu /opt/tarazu
COPY deploy/healthcheck.py /opt/tarazu/
ENV PATH=/opt/tarazu/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    LOG_FORMAT=json
# An embedded database is data/tarazu.db in here: mount a volume there. With MongoDB nothing is written at all, and the root
# file system may be read-only.
WORKDIR /var/lib/tarazu
USER 10001:10001
EXPOSE 8000
# /healthz and not /readyz: a new start would not help a store that is down. For the commands that do not listen, switch it off.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "/opt/tarazu/healthcheck.py"]
# Drains: one last write for each live session, the lease given up, goodbye to the sockets. Allow 15 s before SIGKILL.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tarazu"]
CMD ["serve"]
