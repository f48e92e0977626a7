#!/usr/bin/env bash
# Makes the store of a study with everything that a store can hold, and what the commands must say of
# it for ever: tests/store_compat reads both. Once a release, its `regroup` being the one on the PATH:
#
#     cp -r tests/data/store-0.1.0.dev0-ba43c66 tests/data/store-VERSION-COMMIT
#     bash tests/data/make_study_store.sh tests/data/store-VERSION-COMMIT
#
# The folder must hold small.toml, gaps.toml, small_network.py and small_network.safetensors; what else
# it holds is made anew. No GPU is used. Two minutes on two cores.
set -euo pipefail
cd "$1"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
rm -rf store expected
mkdir expected

said() { # FILE STORE COMMAND ...: have what the command says, as JSON, in FILE
  local file=$1 store=$2
  shift 2
  regroup "$@" --store "$store" --json > "$file"
}
study() { # FILE NAME OPTION ...
  local file=$1 name=$2
  shift 2
  said "$file" store run "$name.toml" --gpus-per-worker 0 --output "$made/$name" "$@"
}

study "$made/small.json" small

# The attack of `gaps` is made whole, then loses its second block: the block goes, with all that was
# made of the attack, and has a folder where its chunk would be, so that no attempt can write it.
study "$made/gaps.json" gaps
attacked=$(echo store/adversarials/digits-val-*)
rm -r store/{features,votes}/digits-val-*-pgd-budget-* store/studies/gaps
rm "$attacked"/{summary.json,commits/00001.json,samples/part-00001.parquet,images.zarr/c/1/0/0/0}
mkdir "$attacked/images.zarr/c/1/0/0/0"
study "$made/gaps.json" gaps --allow-missing --attempts 1
rm -r "$attacked/images.zarr/c/1"

for bank in store/banks/*; do
  said "$made/rescore.json" store rescore --bank "$(basename "$bank")"
done

# Everything is there. What is said of it:
study "$made/small.json" small
study "$made/gaps.json" gaps --allow-missing
for bank in store/banks/*; do
  said "expected/rescore-borda-${bank##*-}.json" store rescore --bank "$(basename "$bank")"
done
said expected/ls.json store ls
said expected/verify.json store verify
said expected/gc.json store gc
for name in small gaps; do
  said "$made/export.json" store export --study $name --format parquet --output expected/export
done
regroup report --store store --output "$made/report" > "$made/report.txt"
cp -r "$made/small/preactivation-paper" expected/tables-small
cp -r "$made/gaps/preactivation-paper" expected/tables-gaps
rm expected/tables-*/*.json expected/tables-small/*.{png,svg} # the tables as JSON are long
(cd "$made" && find small gaps report/*/data -type f ! -name results.json ! -name '*.png' ! -name '*.svg' \
  ! -name '*.js' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) > expected/files.sha256

# What this release computes of the features that are there, in a copy that goes.
cp -r store "$made/store"
bank=$(ls -d store/banks/* | head -n 1)
said "expected/rescore-plurality-${bank##*-}.json" "$made/store" rescore --bank "$(basename "$bank")" --rule plurality
