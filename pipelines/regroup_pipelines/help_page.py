"""The text of `regroup --help`: the workflow on one screen of 80 columns."""

HELP = """\
usage: regroup COMMAND [OPTIONS]          (regroup COMMAND --help explains each)

REGroup on Ray: a pre-trained classifier made robust at test time, and measured.
Every command first runs the missing steps before it and keeps its results in
--store (a folder or s3://bucket/prefix). Nothing is computed twice.

Start here
  demo              everything on embedded digits: bank, attacks, tables
  run               a study from one file: datasets, attacks, tables, figures
Step by step, in this order
  index-dataset     one row per image of a dataset
  extract           one forward pass per image; features are stored and reused
  build-bank        the mixtures of every voter, from training images
  attack            adversarial images (--list: every attack and preset)
  evaluate          accuracy of softmax and REGroup, clean and attacked
  defenses          what stands against attacks, and how each is attacked
From the store alone, in seconds, without the network
  rescore           every k, sign choice and voting option
  curve             accuracy against the size of the perturbation
  report            pages with tables, figures and every sample's votes
  export            every sample of a study as Parquet and CSV
Maintain a store
  ls                its elements: state, rows, size
  inspect           one element: its settings, and what it was made from
  diff              the settings that differ between two elements
  verify            everything against its checksums
  repair            mark damaged blocks to be computed again
  gc                list, or remove, what no study refers to
Other
  train-demo-model  the small network of the demo

Attack once, extract once, re-evaluate for free.
Example: regroup demo && regroup ls --store demo-store
Exit status: 0 success, 1 failure, 2 wrong usage. Shell completion:
source <(regroup --tyro-print-completion bash), or zsh; see docs/cli.md"""
