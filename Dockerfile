# The command `magvit` with its packages, for one kind of device:
#
#   docker build --build-arg PLATFORM=tpu --tag ghcr.io/OWNER/magvit:0.1.0-tpu .
#
# PLATFORM is cpu, tpu or cuda (CUDA 13; the host brings the driver). Packages
# are a layer of their own, so that a change of the code sends a megabyte.
ARG PYTHON=3.11
FROM docker.io/library/python:${PYTHON}-slim-bookworm AS python

FROM python AS packages
ARG PLATFORM=cpu
WORKDIR /source
RUN python3 -m venv /opt/magvit
COPY requirements.txt .
RUN jax=$(grep -E "^jax==" requirements.txt) && \
    case "$PLATFORM" in \
      cpu) device= ;; \
      tpu) device="jax[tpu]==${jax#jax==}" ;; \
      cuda) device="jax[cuda13]==${jax#jax==}" ;; \
      *) echo "PLATFORM=$PLATFORM must be cpu, tpu or cuda" >&2; exit 1 ;; \
    esac && \
    /opt/magvit/bin/pip install --no-cache-dir --no-compile \
      -r requirements.txt gcsfs s3fs $device

FROM python AS wheel
WORKDIR /source
RUN python3 -m venv /opt/build && \
    /opt/build/bin/pip install --no-cache-dir "hatchling>=1.33"
COPY . .
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir=/wheel .

FROM python
RUN useradd --create-home --uid 1000 magvit
COPY --from=packages /opt/magvit /opt/magvit
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /opt/magvit/bin/pip install --no-cache-dir --no-deps /wheel/*.whl
ENV PATH=/opt/magvit/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER magvit
WORKDIR /home/magvit
ENTRYPOINT ["magvit"]
CMD ["--help"]
