# One image for all of a cluster: Ray's head, its workers, and a single `sweep` command.
#
#   docker build -t sweep:ray2.60.0-py3.11.7 .        CUDA: PyTorch's wheels bring it; the host needs NVIDIA's driver only
#   docker build -t sweep:ray2.60.0-py3.11.7-cpu --build-arg TORCH_INDEX=<the index that pytorch.org names for CPU> .
#   docker run --rm -v sweep:/mnt/sweep sweep:ray2.60.0-py3.11.7 sweep run search_spaces/digits.py --studies /mnt/sweep
#
# Ray joins only what has its own version and Python's, to the last digit: constraints.txt holds the one, PYTHON the
# other, the tag says both, and tests/test_cluster_files.py compares them with cluster/.
ARG PYTHON=3.11.7
ARG BASE=python:${PYTHON}-slim-bookworm
FROM ${BASE}

# Ray's launcher: ssh from the head to the workers, rsync into the container. KubeRay: wget asks whether a pod lives.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

# Without a virtual environment: login shells, which Ray's launcher uses, forget any PATH but the system's.
WORKDIR /opt/sweep
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
ARG TORCH_INDEX=""
# What changes seldom comes first: a new commit of sweep is a layer of a megabyte, and nodes pull no more than that.
COPY pyproject.toml constraints.txt README.md ./
COPY sweep/__init__.py sweep/
RUN pip install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} '.[cluster]' -c constraints.txt \
    && pip uninstall --yes robust-sweep
COPY sweep sweep
RUN pip install --no-deps . && rm -rf build ./*.egg-info

# As the hosts' first user: what Ray's launcher copies into the container, its token among it, can be read.
RUN useradd --uid 1000 --create-home --shell /bin/bash sweep \
    && install -d -o sweep -g sweep /home/sweep/.ray /data /cache /mnt/sweep
USER sweep
WORKDIR /home/sweep
COPY --chown=sweep search_spaces search_spaces
ENV SWEEP_DATA_DIR=/data SWEEP_CACHE_DIR=/cache PYTHONUNBUFFERED=1

# No entry point: Ray's launcher runs `bash` here, KubeRay `ray start`, and people `sweep`.
CMD ["sweep", "--help"]
