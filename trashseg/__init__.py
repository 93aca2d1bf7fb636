"""Segmentation of trash photos: data, training, ensembling. Knows nothing of searches."""

import os

# albumentations asks the package index for newer releases at import: no network without being asked
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
