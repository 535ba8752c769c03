"""Small generated tables of the built-in rigs (made by scripts/build_*.py)."""
