"""The kinds of elements: what each one holds."""
