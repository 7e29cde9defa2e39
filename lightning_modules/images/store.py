"""Images loaded once: listed, checked, decoded, resized and kept as a memory map keyed by content."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import NO_ROOM, InputError, Problem, printable
from lightning_modules.images.decoding import Decoding, content_digest, stream
from lightning_modules.images.folders import Groups, list_folder
from lightning_modules.images.index import ImageIndex, OnBad, build_index
from lightning_modules.images.listing import ListedImage, Listing, Outside, list_manifest
from lightning_modules.images.mask_file import defect_pixels
from lightning_modules.images.pixel_store import PixelStore, StoredFile, open_store, remove_leftovers, selected_rows
from lightning_modules.images.reading import DEFAULT_MAX_PIXELS, Fit, header_size, read_bytes
from lightning_modules.images.resolution import Resolution
from lightning_modules.images.split_units import Rows
from lightning_modules.images.tiling import Tiling, mask_counts
from lightning_modules.images.value_range import ValueRange, choose_range
from lightning_modules.whole_file import from_cache, read_checked, whole_file

__all__ = ["ImageSet", "Source", "load_images"]

Source = Literal["folder", "manifest", "simulated"]
Size = tuple[int, int]
Progress = Callable[[int, int], None]
Choose = Callable[[ImageIndex], Resolution]

# Part of every key: raise it when decoding or resizing gives other pixels.
_PROCESSING: Final = 3
_DIGESTS: Final = "digests.txt"  # of a simulated set


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A checked set of images.

    Attributes:
        pixels: uint8 (N, H, W, C), memory-mapped, read-only; row i belongs to `index.records[i]`, or with a `tiling`
            rows starts[i] to starts[i + 1]. C is 1 where every image is grey, else 3. Fancy indexing (`pixels[rows]`)
            gives a writable copy for torch.
        resolution: What they were brought to; None of a set that was put together of another one's rows.
        tiling: How each image is cut into tiles; None where it is one row.
    """

    index: ImageIndex
    pixels: NDArray[np.uint8]
    resolution: Resolution | None = None
    tiling: Tiling | None = None

    @cached_property
    def starts(self) -> Rows:
        """(N + 1,) int64: where the rows of each image begin in `pixels`, and where the last ones end."""
        if self.tiling is None:
            return np.arange(len(self.index.records) + 1, dtype=np.int64)
        return _starts(self.tiling, (record.size for record in self.index.records))

    def pixel_rows(self, rows: Rows) -> tuple[Rows, Rows]:
        """Rows of `pixels` that show the images at `rows`, one after the other, and the place in `rows` of each."""
        return _expanded(self.starts, rows)


def load_images(
    source: Source,
    path: Path | None,
    *,
    size: Size,
    fit: Fit = "stretch",
    on_bad: OnBad = "refuse",
    min_per_class: int = 5,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    groups: Groups = "none",
    outside: Outside = "refuse",
    images: int | None = None,
    seed: int = 0,
    cache: Path,
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] = lambda _: None,
    accept: Callable[[ImageIndex], Rows | None] = lambda _: None,
    value_range: ValueRange | None = None,
    choose: Choose | None = None,
    tiling: Tiling | None = None,
) -> ImageSet:
    """Lists, checks, decodes and resizes a set of images, or opens what an earlier call kept.

    Every file is decoded once, in threads, in one pass that checks, hashes and resizes; 16-bit images read before the
    set's range of values is known are decoded a second time. A later call over files with the same contents,
    whatever their names and labels, hashes them and decodes nothing. Memory does not grow with the set's pixels.

    Args:
        path: Folder or manifest; None for "simulated".
        size: (height, width) in pixels.
        fit: How another aspect ratio is brought to `size` (`fit_image`).
        on_bad: "refuse" everything if anything is wrong, or "set_aside" what is (`build_index`).
        min_per_class: Fewest images of a class.
        max_pixels: Largest width x height decoded.
        groups: "folder" reads the folder level below the class as group; for source "folder" only.
        outside: Whether images outside the folder, or the manifest's folder, are read ("allow") or "refuse"d.
        images: How many to simulate; for source "simulated" only, None is the simulator's default.
        cache: Folder that keeps pixels under images/ and simulated sets under simulated/. Neither it nor anything in
            it is created when the input is refused.
        on_progress: Called with (files decoded, files to decode), from the calling thread.
        on_note: Called with a line for the user where what an earlier call kept is damaged, and is made again.
        accept: Called with the index before anything is kept; raises to refuse it. Returns the rows whose images decide
            which values become black and white (`choose_range`); None for all.
        value_range: Values that become black and white, as a model knows them; None lets the images decide.
        choose: Called with the index, whose records then say how large the images are; gives the size and fit in place
            of `size` and `fit`, or raises to refuse the input. It depends on nothing else. Not for "simulated", whose
            images are drawn at `size`.
        tiling: Cuts each image into tiles, which are resized to `size` instead of the image; not for "simulated". The
            index stays one of images; where there is a normal class, the masks of the others are read.

    Raises:
        BadImages: What is wrong with the images.
        InputError: An argument, the folder or manifest as a whole, or a cache that cannot be written.
    """
    _check_arguments(source, path, size, fit, on_bad, min_per_class, max_pixels, groups, outside, images)
    if tiling is not None and source == "simulated":
        raise InputError("data.tile cuts images of a folder or manifest; data=simulated draws them at data.size")
    given = Resolution(size, fit)
    reading = _Reading(
        given, on_bad, min_per_class, max_pixels, cache, on_progress, on_note, accept, value_range, choose, tiling
    )
    if path is not None:
        return reading.images(
            list_folder(path, groups, outside) if source == "folder" else list_manifest(path, outside)
        )
    with _simulated(cache, images, size, seed, on_note) as manifest:
        return reading.images(list_manifest(manifest))


@dataclass(frozen=True)
class _Reading:
    """How a listing becomes a set; see `load_images` for the fields."""

    given: Resolution
    on_bad: OnBad
    min_per_class: int
    max_pixels: int
    cache: Path
    on_progress: Progress | None
    on_note: Callable[[str], None]
    accept: Callable[[ImageIndex], Rows | None]
    value_range: ValueRange | None
    choose: Choose | None
    tiling: Tiling | None

    def images(self, listing: Listing) -> ImageSet:
        listing, digests = _with_files(listing, self.max_pixels, sizes=self.choose is not None)
        remove_leftovers(self.cache / "images")
        wanted = self._expected(listing, digests)
        found, store = self._brought_to(wanted, listing, digests)
        if (found.chosen.size, found.chosen.fit) != (wanted.size, wanted.fit):
            # Rare: what only decoding shows, such as damaged files, changes the choice.
            found, store = self._brought_to(found.chosen, listing, digests)
        index = _with_values(found.index, store.files)
        with _writing(self.cache):
            return ImageSet(index, selected_rows(store, found.rows, self.on_note), found.chosen, self.tiling)

    def _expected(self, listing: Listing, digests: Sequence[str | Problem]) -> Resolution:
        """What will be chosen, as far as files tell that are not decoded yet."""
        if self.choose is None:
            return self.given
        try:
            index, _ = build_index(listing, digests, on_bad=self.on_bad, min_per_class=self.min_per_class)
            return self.choose(index)
        except InputError:  # all that is wrong is said once every file was decoded, at whatever size
            return self.given

    def _brought_to(
        self, wanted: Resolution, listing: Listing, digests: Sequence[str | Problem]
    ) -> tuple[_Indexed, PixelStore]:
        stores = self.cache / "images"
        key = _key(digests, wanted.size, wanted.fit, self.max_pixels, self.tiling)

        def folder(found: ValueRange) -> Path:
            return stores / f"{key}-{found.black}-{found.white}"

        # Splits and what is set aside decide the range, so one set of files may have several.
        kept = sorted(stores.glob(f"{key}-*")) if self.value_range is None else [folder(self.value_range)]
        store = next(filter(None, (open_store(place, self.on_note) for place in kept)), None)
        if store is not None and {digest for digest in digests if isinstance(digest, str)} <= store.files.keys():
            found = self._index(listing, digests, store.files)
            if store.value_range[:2] != found.index.value_range[:2]:
                store = open_store(folder(found.index.value_range), self.on_note)
        if store is None:
            found, store = self._decoded(wanted, listing, digests, folder)
        elif self.on_progress is not None:
            self.on_progress(len(store.files), len(store.files))
        return found, store

    def _decoded(
        self,
        wanted: Resolution,
        listing: Listing,
        digests: Sequence[str | Problem],
        folder: Callable[[ValueRange], Path],
    ) -> tuple[_Indexed, PixelStore]:
        with (
            _writing(self.cache),
            tempfile.TemporaryFile(dir=_existing(self.cache)) as scratch,
            warnings.catch_warnings(),
        ):
            # Pillow warns of odd metadata; what matters is whether the pixels can be read.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            decoded = Decoding(scratch, wanted.size, wanted.fit, self.max_pixels, self.value_range, self.tiling)
            paths = _distinct(listing, digests)
            decoded.run(paths, self.on_progress)
            found = self._index(listing, digests, decoded.files)
            value_range = found.index.value_range
            decoded.scale(paths, value_range)
            return found, decoded.keep(folder(value_range), digests, value_range)

    def _index(self, listing: Listing, digests: Sequence[str | Problem], files: dict[str, StoredFile]) -> _Indexed:
        contents: list[str | Problem] = []
        for image, digest in zip(listing.images, digests, strict=True):
            if isinstance(digest, Problem):
                contents.append(digest)
            else:
                entry = files[digest]
                contents.append(entry.digest or Problem(printable(image.path), entry.reason or ""))
        if self.tiling is None:
            masks: dict[Path, tuple[int, ...] | Problem] = {}
        else:
            masks = _mask_counts(listing, digests, files, self.tiling, self.max_pixels)
        unusable = {path: found for path, found in masks.items() if isinstance(found, Problem)}
        index, rows = build_index(
            listing, contents, on_bad=self.on_bad, min_per_class=self.min_per_class, unusable=unusable
        )
        index = _with_values(index, files)
        if self.tiling is not None:
            self.tiling.normal_position(index.classes)
            counts = {path: found for path, found in masks.items() if not isinstance(found, Problem)}
            records = (replace(record, defect=counts.get(record.path)) for record in index.records)
            index = replace(index, records=tuple(records))
            sides = {entry.digest: entry.sides for entry in files.values()}
            readable = sorted(content for content in contents if isinstance(content, str))
            rows, _ = _expanded(_starts(self.tiling, (sides[digest] for digest in readable)), rows)
        deciding, values = self.accept(index), [record.values for record in index.records]
        resolution = self.given if self.choose is None else self.choose(index)
        if self.value_range is not None:
            return _Indexed(replace(index, value_range=self.value_range), rows, resolution)
        chosen = values if deciding is None else [values[row] for row in deciding.tolist()]
        # An image of more than 8 bits among the others alone is better off with a range of its own than nearly black.
        found = choose_range(chosen if any(chosen) else values)
        return _Indexed(replace(index, value_range=found), rows, resolution)


@dataclass(frozen=True, eq=False)
class _Indexed:
    """What `build_index` gives, and what is chosen for that index."""

    index: ImageIndex
    rows: NDArray[np.int64]
    chosen: Resolution


def _with_values(index: ImageIndex, files: dict[str, StoredFile]) -> ImageIndex:
    found = {file.digest: file for file in files.values()}
    kept = ((record, found[record.digest]) for record in index.records)
    records = (
        replace(record, values=file.values, grey_levels=file.grey_levels, size=file.sides or record.size)
        for record, file in kept
    )
    return replace(index, records=tuple(records))


def _mask_counts(
    listing: Listing, digests: Sequence[str | Problem], files: dict[str, StoredFile], tiling: Tiling, max_pixels: int
) -> dict[Path, tuple[int, ...] | Problem]:
    """By path the mask pixels of each tile, of images that have a mask and are not of the normal class.

    A mask that is unreadable, empty or of another size than its image is a problem.
    """
    if tiling.normal is None:
        return {}

    def counted(item: tuple[ListedImage, tuple[int, int]]) -> tuple[Path, tuple[int, ...] | Problem]:
        image, sides = item
        mask_path = image.mask or image.path
        try:
            mask = defect_pixels(mask_path, max_pixels=max_pixels)
        except InputError as error:
            return image.path, Problem(printable(image.path), str(error))
        name = f"mask {printable(mask_path)}"
        if mask.shape != sides:
            (high, wide), (height, width) = mask.shape, sides
            reason = f"{name} is {wide} x {high} pixels, the image {width} x {height}"
        elif not mask.any():
            reason = f"{name} marks no pixel of an image labelled {image.label!r}; leave the mask out of the manifest"
        else:
            return image.path, mask_counts(mask, tiling.boxes(sides))
        return image.path, Problem(printable(image.path), reason)

    wanted = []
    for image, digest in zip(listing.images, digests, strict=True):
        entry = files[digest] if isinstance(digest, str) else None
        if image.mask is not None and image.label != tiling.normal and entry is not None and entry.sides is not None:
            wanted.append((image, entry.sides))
    return dict(stream(counted, wanted))


def _starts(tiling: Tiling, sides: Iterable[tuple[int, int] | None]) -> Rows:
    """(M + 1,) where the tiles of each of M images begin, and where the last ones end."""
    counts = [0, *(tiling.count(one) for one in sides if one is not None)]
    return np.cumsum(counts, dtype=np.int64)


def _expanded(starts: Rows, rows: Rows) -> tuple[Rows, Rows]:
    """The tiles of some images, and the place in `rows` of each one's image."""
    counts = starts[rows + 1] - starts[rows]
    place = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
    within = np.arange(len(place), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    return starts[rows][place] + within, place


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Turn an error of writing to the disk into one line for the user."""
    try:
        yield
    except OSError as error:
        cure = "make room on the disk" if error.errno in NO_ROOM else "make it writable"
        raise InputError(
            f"cache {printable(cache)} cannot be written: {error.strerror or error}; {cure}, then run the same command "
            "again"
        ) from None


def _check_arguments(
    source: str,
    path: Path | None,
    size: Size,
    fit: str,
    on_bad: str,
    min_per_class: int,
    max_pixels: int,
    groups: str,
    outside: str,
    images: int | None,
) -> None:
    for name, value, accepted in (
        ("source", source, Source),
        ("fit", fit, Fit),
        ("on_bad", on_bad, OnBad),
        ("groups", groups, Groups),
        ("outside", outside, Outside),
    ):
        if value not in get_args(accepted):
            raise InputError(f"data.{name}={value!r}; accepted are {', '.join(get_args(accepted))}")
    for name, number in (("min_per_class", min_per_class), ("max_pixels", max_pixels)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"data.{name} must be a whole number of at least 1, got {number!r}")
    if len(size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise InputError(f"data.size must be [height,width] in whole pixels of at least 1, got {size!r}")
    if (path is None) != (source == "simulated"):
        raise InputError(
            f"data={source} needs data.path"
            if path is None
            else f"data.path={printable(path)}: data=simulated has none"
        )
    if images is not None and source != "simulated":
        raise InputError(f"data.images={images} acts on data=simulated only, not on data={source}")
    if groups != "none" and source != "folder":
        raise InputError(f"data.groups={groups} acts on data=folder only, not on data={source}")


@contextmanager
def _simulated(
    cache: Path, images: int | None, size: Size, seed: int, on_note: Callable[[str], None]
) -> Iterator[Path]:
    """The manifest of a simulated set, written once by arguments and by the simulator's own source.

    What was written for images that are refused then (too few of a class, say) is removed.
    """
    from filelock import FileLock

    from lightning_modules.simulated import generator as simulated

    arguments: dict[str, Any] = {"size": size, "seed": seed} | ({} if images is None else {"images": images})
    try:
        simulated.simulate(**({"images": 1} | arguments))
    except (TypeError, ValueError) as error:
        raise InputError(f"data=simulated: {error}") from None
    digest = hashlib.blake2b(repr(sorted(arguments.items())).encode(), digest_size=16)
    for module in sorted(Path(simulated.__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    folder = cache / "simulated" / digest.hexdigest()
    manifest = folder / "manifest.csv"
    new = not _is_whole(folder)
    absent = [place for place in (folder.parent, *folder.parent.absolute().parents) if not place.exists()]
    if new:
        with _writing(cache):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / ".lock"):
                for leftover in folder.parent.glob(".*.partial-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                if not _is_whole(folder):
                    if folder.exists():
                        on_note(f"{printable(folder)} is damaged, or an older version wrote it; it is simulated again.")
                        shutil.rmtree(folder)
                    simulated.write(folder, **arguments)
                    written = _contents(folder)
                    with whole_file(folder / _DIGESTS, digest=True) as file:
                        file.write_text(written, encoding="ascii")
    try:
        yield manifest
    except InputError:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        if absent:
            (folder.parent / ".lock").unlink(missing_ok=True)
        for place in absent:
            with suppress(OSError):  # another process keeps something there
                place.rmdir()
        raise


def _is_whole(folder: Path) -> bool:
    """Whether a simulated set is there, byte by byte as it was written."""
    kept = from_cache(folder / _DIGESTS, read_checked)
    return kept is not None and kept.decode("ascii") == _contents(folder)


def _contents(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _DIGESTS)
    return "\n".join(f"{content_digest(file.read_bytes())}  {file.relative_to(folder).as_posix()}" for file in files)


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists: the same disk, and nothing is created for input that may be refused."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _with_files(listing: Listing, max_pixels: int, *, sizes: bool) -> tuple[Listing, list[str | Problem]]:
    """The listing, with the images' sizes if these are asked for, and the digest of each file or why it has none."""

    def read(image: ListedImage) -> tuple[ListedImage, str | Problem]:
        try:
            data = read_bytes(image.path, max_pixels=max_pixels)
        except InputError as error:
            return image, Problem(printable(image.path), str(error))
        return replace(image, size=header_size(data)) if sizes else image, content_digest(data)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        found = list(stream(read, listing.images))
    return replace(listing, images=[image for image, _ in found]), [digest for _, digest in found]


def _key(digests: Sequence[str | Problem], size: Size, fit: Fit, max_pixels: int, tiling: Tiling | None = None) -> str:
    cut = () if tiling is None else (tiling.side, tiling.overlap)
    parts = [
        repr((_PROCESSING, size, fit, max_pixels, *cut)),
        *sorted(digest for digest in digests if isinstance(digest, str)),
    ]
    return content_digest("\n".join(parts).encode())


def _distinct(listing: Listing, digests: Sequence[str | Problem]) -> dict[str, Path]:
    """One path for every different content."""
    paths: dict[str, Path] = {}
    for image, digest in zip(listing.images, digests, strict=True):
        if isinstance(digest, str):
            paths.setdefault(digest, image.path)
    return paths
