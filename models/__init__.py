"""What a model is (its card) and how to load one safely. Imports nothing of the audit and nothing of the pages."""
