"""The small prior: trained from scratch on synthetic heads, shipped with the package (docs/small_prior.md)."""
