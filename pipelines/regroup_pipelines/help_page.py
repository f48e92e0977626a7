"""The text of `regroup --help`: the workflow on one screen of 80 columns."""

HELP = """\
usage: regroup COMMAND [OPTIONS]          (regroup COMMAND --help explains each)

REGroup on Ray: a pre-trained classifier made robust at test time, and measured.
Every command does what is missing of the steps before it, keeps the result in
--store (a folder or s3://bucket/prefix), and does nothing twice.

Start here
  demo              all of it on embedded digits: bank, attacks, tables
  run               a study, from one file: datasets, attacks, tables, figures
Step by step, in this order
  index-dataset     a row for each image of a dataset
  extract           one forward pass an image: its features, kept for ever
  build-bank        the mixtures of every voter, from training images
  attack            adversarial images (--list: every attack and preset)
  evaluate          accuracy of softmax and REGroup, clean and attacked
From the store alone, in seconds, without the network
  rescore           every k, sign choice and voting option
  curve             accuracy against the size of the perturbation
  report            a page with tables, figures and every sample's votes
  export            every sample of a study as Parquet and CSV
Look after a store
  ls                what it holds, how far it is, how large
  inspect           one element: its settings, and what it comes from
  diff              which settings make two elements different
  verify            everything against its checksums
  repair            have what is damaged computed again
  gc                list, or remove, what no study refers to
Beside
  train-demo-model  the small network of the demo

Example: regroup demo && regroup ls --store demo-store
Exit status: 0 all done, 1 failed, 2 wrong usage. Shell completion:
source <(regroup --tyro-print-completion bash), or zsh; see docs/cli.md"""
