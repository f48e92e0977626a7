"""The method: taps, accumulators, banks, scoring, classifier and attacks; torch and NumPy only.

- `regroup.taps`, `regroup.accumulators`: what one forward pass records.
- `regroup.bank_samples`, `regroup.bank`, `regroup.candidates`: which samples make a bank, and the
  bank itself.
- `regroup.scoring`, `regroup.voting`, `regroup.choose_k`: predictions and true ranks from a bank.
- `regroup.classifier`: REGroup as an `nn.Module`.
- `regroup.models`, `regroup.images`: classifiers by name, and the pixels they take.
- `regroup.attacks`: attacks in pixel space.
- `regroup.reference`, `regroup.reference_voting`: slow, literal oracles of all of the above.
- `regroup.kernels`: the compiled loops.

The package itself imports nothing.
"""
