"""What is learned: segmentation and DINOv2."""
