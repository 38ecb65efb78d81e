"""From facts to numbers and reasons; nothing here imports torch."""
