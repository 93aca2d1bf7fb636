"""From COCO json and photos on disk to batches: read, split, cache, draw."""
