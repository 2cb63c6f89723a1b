"""Of which image layer masks are, where they do not say so."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image

from napari_uniultra.plugin.image_layer import frames_shape
from napari_uniultra.plugin.layers import METADATA_KEY, names_image, same_source


def images_of(viewer: Any, masks: Any, in_use: Any) -> list[Any]:
    """The image layers that masks may be of; of those that say the same of pixels and times, one.

    That is the one they name, else one of the same file, else, among those of their size, the one that is worked on.
    Images that say nothing of pixels and times are left out beside others.
    """
    images = [other for other in viewer.layers if isinstance(other, Image) and _lies_on(masks, other)]
    tests = (names_image(masks, image) for image in images), (same_source(masks, image) for image in images)
    for answers in (*tests, (image == in_use for image in images)):
        meant = [image for image, is_meant in zip(images, answers, strict=True) if is_meant]
        if meant:
            return meant[:1]
    known = [image for image in images if METADATA_KEY in image.metadata]
    return [image for row, image in enumerate(known) if not any(_is_alike(image, other) for other in known[:row])]


def known_of(layer: Any) -> dict[str, Any]:
    """What our reader, or a session, left with a layer."""
    return layer.metadata.get(METADATA_KEY, {})


def _lies_on(masks: Any, image: Any) -> bool:
    """Whether masks are of an image, or may be: of its size, where they do not say."""
    said = names_image(masks, image)
    return said if said is not None else frames_shape(masks) == frames_shape(image)


def _is_alike(image: Any, other: Any) -> bool:
    """Whether two images say the same of the size of a pixel and of time."""
    one, two = known_of(image), known_of(other)
    return all(np.array_equal(one.get(name), two.get(name)) for name in ("spacing_mm", "frame_times_s"))
