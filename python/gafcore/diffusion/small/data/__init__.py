"""The shipped prior's weights (docs/small_prior.md)."""
