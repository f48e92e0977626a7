"""Running a study: its steps, its plan, its results."""
