#!/usr/bin/env bash
# Makes the store of a study with everything that a store can hold, and what its commands must say of it
# for ever; tests/store_compat reads both. Once a release, by that release:
#
#     cp -r tests/data/store-0.1.0.dev0-ba43c66 tests/data/store-VERSION-COMMIT
#     bash tests/data/make_study_store.sh tests/data/store-VERSION-COMMIT
#
# What that folder must hold: small.toml, gaps.toml, small_network.py and small_network.safetensors.
# `regroup` and `python` are those on the PATH. Half a minute on two cores.
set -euo pipefail
cd "$1"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
at=(--store store --json --gpus-per-worker 0)
rm -rf store expected && mkdir expected
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

# An attack loses its second block: that block is removed, and a folder stands where its chunk would go.
obstruct() {
  local attacked
  attacked=$(echo store/adversarials/*-"$1"-*)
  rm -r "$attacked"/{summary.json,commits/00001.json,samples/part-00001.parquet,images.zarr/c/1/0/0/0}
  mkdir "$attacked"/images.zarr/c/1/0/0/0
}

regroup run small.toml "${at[@]}" --output "$made/small" >/dev/null
regroup run gaps.toml "${at[@]}" --output "$made/gaps" --set banks.paper.seed=1 >/dev/null
