"""The pages of `regroup report`: what they say, gathered from a store, and how it is written."""
