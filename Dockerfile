# Prediction and training on the CPU; docs/install.md shows how to use it.
FROM python:3.12-slim-bookworm

# What opencv-python links to.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY . .
RUN pip install --no-cache-dir --editable .

# Any user can run it; caches go to /tmp. The folder of the user's files is mounted at /work.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["python"]
CMD ["/app/tools/predict.py", "--help"]
