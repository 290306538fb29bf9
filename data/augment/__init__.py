"""Training augmentation: the original's, driven by the cfg's keys, and further ones from a file."""

from data.augment.detection import DetectionAugment, Sample
from data.augment.extra import ExtraAugment, read_extra
from data.augment.mix import Mix

__all__ = ["DetectionAugment", "ExtraAugment", "Mix", "Sample", "read_extra"]
