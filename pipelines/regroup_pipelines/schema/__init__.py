"""What people write: study files, attacks and the paper's values, typed and checked."""
