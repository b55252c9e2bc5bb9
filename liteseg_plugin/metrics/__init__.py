"""Numbers that say how good label maps are."""
