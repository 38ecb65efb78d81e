"""The store of prepared images, and what is drawn from it."""
