"""The materials: cases, readers, preparation, views, augmentation, metrics."""
