"""Target assignment: which prediction answers for which box."""
