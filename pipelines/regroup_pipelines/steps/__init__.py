"""The steps that commands and studies are made of: each makes one element of a store."""
