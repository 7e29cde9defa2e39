"""Which images there are and how they are split, as `settings.data` says; without torch."""

from __future__ import annotations

from lightning_modules.errors import InputError
from lightning_modules.images.folders import list_folder
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.listing import Listing, list_manifest
from lightning_modules.images.splits import Splits, make_splits
from search.settings.schema import DataSettings, Settings

__all__ = ["listed", "split"]


def listed(data: DataSettings) -> Listing:
    """The images of a folder or manifest, none of them opened.

    Raises:
        InputError: there is nothing, it is laid out in another way than those read, or images are simulated.
    """
    if data.path is None:
        raise InputError(f"data={data.source} has no images to list")
    if data.source == "folder":
        return list_folder(data.path, data.groups, data.outside)  # type: ignore[arg-type]
    return list_manifest(data.path, data.outside)  # type: ignore[arg-type]


def split(settings: Settings, index: ImageIndex) -> Splits:
    """Split as `settings.data` says."""
    data = settings.data
    return make_splits(
        index,
        test=data.test,  # type: ignore[arg-type]
        test_months=data.test_months,
        test_fraction=data.test_fraction,
        validation=data.validation,  # type: ignore[arg-type]
        validation_fraction=data.validation_fraction,
        folds=data.folds,
        repeats=data.repeats,
        max_train_per_class=data.max_train_per_class,
        seed=settings.seed,
    )
