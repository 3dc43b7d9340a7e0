"""A company's rows at a position of its log."""
