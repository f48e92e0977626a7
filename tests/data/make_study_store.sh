#!/usr/bin/env bash
# Makes the store of a study with everything that a store can hold, and what its commands must say of
# it for ever: tests/store_compat reads both. Once a release, with that release's `regroup` on the PATH:
#
#     cp -r tests/data/store-0.1.0.dev0-ba43c66 tests/data/store-VERSION-COMMIT
#     bash tests/data/make_study_store.sh tests/data/store-VERSION-COMMIT
#
# The folder must hold small.toml, gaps.toml, small_network.py and small_network.safetensors; what
# else it holds is made anew. No GPU is used. About two minutes on two cores.
set -euo pipefail
cd "$1"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
rm -rf store expected
mkdir expected

regroup_here() { # FILE COMMAND ...: what the command says as JSON goes to expected/FILE.json
  local file=$1 command=$2
  shift 2
  regroup "$command" "$@" --store store --json > "expected/$file.json"
}
study() { # NAME OPTION ...
  local name=$1
  shift
  regroup run "$name.toml" --store store --json --gpus-per-worker 0 --output "$made/$name" "$@"
}

study small > "$made/first.json"

# The attack of `gaps` is made whole, then loses its second block for good: the block and all that was
# made of it are removed, and a folder that stands where its chunk would go has every attempt fail.
study gaps > "$made/whole.json"
rm -r store/{features,votes}/digits-val-*-pgd-budget-* store/studies/gaps
torn=$(echo store/adversarials/digits-val-*-pgd-budget-*)
rm "$torn"/{summary.json,commits/00001.json,samples/part-00001.parquet,images.zarr/c/1/0/0/0}
mkdir "$torn/images.zarr/c/1/0/0/0"
study gaps --allow-missing --attempts 1 > "$made/torn.json"
rmdir "$torn/images.zarr/c/1/0/0/0" "$torn/images.zarr/c/1/0/0" "$torn/images.zarr/c/1/0" "$torn/images.zarr/c/1"

bank() { basename store/banks/*-"$1"*; }
banks=(store/banks/*)
first=$(basename "${banks[0]}") second=$(basename "${banks[1]}")
for rule in borda copeland; do
  for bank in "$first" "$second"; do regroup rescore --store store --json --bank "$bank" --rule $rule > "$made/rescored.json"; done
done

# From here on nothing is written, but for the votes of `plurality`, which are made in a copy.
study small > expected/small.json
study gaps --allow-missing > expected/gaps.json
for name in small gaps; do
  regroup export --store store --json --study $name --output "$made/export" --format parquet > "$made/export.json"
  rm "$made/$name"/*/*.{png,svg}
done
regroup report --store store --output "$made/report" > "$made/report.txt"
cp -r "$made/export" "$made/small" "$made/gaps" expected/
