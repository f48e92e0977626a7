"""The steps that commands and studies consist of. Each makes one element of a store."""
