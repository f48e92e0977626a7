"""Study files, attack options and the paper's values: parsing, types and checks."""
