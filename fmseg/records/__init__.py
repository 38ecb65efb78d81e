"""Everything that is kept on disk, as frozen, strict, versioned records."""
