# robustdiff on a machine with Docker: `docker build -t robustdiff .`, see docs/install.md.
FROM python:3.13-slim

# Where torch comes from: CPU builds by default; https://pypi.org/simple has those for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision

COPY . /source
RUN pip install --no-cache-dir /source && rm -rf /source \
    && useradd --create-home --uid 1000 robustdiff && mkdir /work && chown robustdiff /work

USER robustdiff
WORKDIR /work
ENTRYPOINT ["robustdiff"]
CMD ["--help"]
