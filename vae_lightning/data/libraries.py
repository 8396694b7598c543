"""Data sets of other libraries: torchvision's, and those of the Hugging Face hub."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torchvision
from filelock import FileLock
from PIL import Image
from tqdm.auto import tqdm

from ..errors import DataError, first_line
from .decoded_cache import Decoded, MakeWriter, Writer, decoded
from .pictures import Fitting, PictureError, pixels
from .sources import Split, held_out, refuse_identifiers

__all__ = ["HuggingFace", "Torchvision"]

log = logging.getLogger(__name__)


WITHOUT_LABELS = "data.source.label=false leaves labels out"


class Opened(NamedTuple):
    """A data set as its library reads it.

    Attributes:
        train: training items, by number: pairs of a picture and its label.
        test: test items.
        class_names: in the order of the labels; `()` to leave labels out.
        version: what else tells these items from others, compared as text.
    """

    train: Any
    test: Any
    class_names: tuple[str, ...]
    version: Any


class Fitted:
    """Images of a data set, fitted to a shape, decoded once and mapped into memory.

    Subclasses provide `_open`.

    Args:
        name: of the data set.
        image_shape: `(C, H, W)` that pictures are fitted to, with 1 or 3 channels.
        fit: see `vae_lightning.data.pictures.pixels`.
        cache: see `vae_lightning.data.sources.cache_folder`.
        options: others that choose images; what is decoded is kept for each choice.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(self, name: str, image_shape: Sequence[int], fit: Fitting, cache: str | None, *options: Any) -> None:
        if len(image_shape) != 3 or image_shape[0] not in (1, 3):
            raise ValueError(f"image_shape: must be [1, height, width] or [3, height, width], got {list(image_shape)}")
        if fit not in ("crop", "pad"):
            raise ValueError(f"fit: must be crop or pad, got {fit!r}")
        self.name = name
        self.image_shape = tuple(image_shape)
        self.fit: Fitting = fit
        self.options = options
        self.cache = cache
        self.class_names: tuple[str, ...] = ()
        self._images: Decoded | None = None

    def prepare(self, root: Path) -> None:
        """Downloads the data set if it is not there, and decodes its images if they have not been before.

        Raises:
            DataError: if it cannot be downloaded or read.
        """
        opened = self._open(root)
        channels, height, width = self.image_shape

        def write(make_writer: MakeWriter) -> Writer:
            total = len(opened.train) + len(opened.test)
            log.info("data       reading %d images of %s, once …", total, self.name)
            with make_writer(opened.class_names) as images:
                for train, part in [(True, opened.train), (False, opened.test)]:
                    for number in tqdm(range(len(part)), desc="reading images", unit="", disable=None, leave=False):
                        picture, label = part[number]
                        try:
                            if picture is None:
                                raise PictureError("is missing")
                            found = pixels(picture, (height, width), channels, self.fit, 255)
                        except PictureError as error:
                            raise DataError(f"{self.name}: image {number} {error}") from error
                        images.add(train, found, int(label) if opened.class_names else None)
            return images

        place = (type(self).__name__, str(root.resolve()), self.image_shape, self.fit, self.options)
        version = (opened.version, len(opened.train), len(opened.test), opened.class_names)
        self._images = decoded(self.name.replace("/", "-"), place, version, write, self.cache)
        self.class_names = self._images.class_names

    def load(self, root: Path, train: bool) -> Split:
        if self._images is None:
            self.prepare(root)
        assert self._images is not None
        return self._images.train if train else self._images.test

    def _open(self, root: Path) -> "Opened":
        raise NotImplementedError


class Torchvision(Fitted):
    """Any image data set of torchvision, such as CIFAR10, SVHN, CelebA or Omniglot.

    Its files are where torchvision keeps them below the folder of all data sets; missing ones are downloaded, by one
    process at a time.

    Args:
        dataset: the class's name in `torchvision.datasets`.
        image_shape: see `Fitted`.
        train: options of that class that choose the training images; by default `train=True` or `split="train"`,
            whichever it has.
        test: options of that class that choose the test images; by default `train=False` or `split="test"`.
        labels: whether to use the labels, if they are single numbers; false where training and test images have
            different classes.
        fit: see `Fitted`.
        cache: see `Fitted`.

    Raises:
        ValueError: for a data set or an option that torchvision does not have.
    """

    def __init__(
        self,
        dataset: str,
        image_shape: Sequence[int],
        train: Mapping[str, Any] | None = None,
        test: Mapping[str, Any] | None = None,
        labels: bool = True,
        fit: Fitting = "crop",
        cache: str | None = None,
    ) -> None:
        kind: Any = getattr(torchvision.datasets, dataset, None)
        if not (isinstance(kind, type) and issubclass(kind, torchvision.datasets.VisionDataset)):
            raise ValueError(f"dataset: must be the name of a class in torchvision.datasets, got {dataset!r}")
        self.accepted = _parameters(kind)
        given, usual = (train, test), _usual(self.accepted)
        parts = [each if asked is None else dict(asked) for asked, each in zip(given, usual, strict=True)]
        for name, options in zip(("train", "test"), parts, strict=True):
            if options is None or set(options) - self.accepted:
                allowed = f"options of {dataset} ({', '.join(sorted(self.accepted))}) that choose the images"
                found = "null" if options is None else ", ".join(sorted(set(options) - self.accepted))
                raise ValueError(f"{name}: must be {allowed}, got {found}")
        super().__init__(dataset, image_shape, fit, cache, *parts)
        self.kind = kind
        self.labels = labels

    def _open(self, root: Path) -> Opened:
        train, test = (self._part(root, options) for options in self.options)
        labelled = self.labels and _is_number(train[0][1])
        return Opened(train, test, tuple(map(str, _classes(train))) if labelled else (), ())

    def _part(self, root: Path, options: dict[str, Any]) -> Any:
        try:
            return self.kind(root, **options)
        except (RuntimeError, OSError, TypeError, ValueError) as error:
            if "download" not in self.accepted:
                raise DataError(f"{self.name} in {root}: {first_line(error)}") from error
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".{self.name}.lock"):
                return self.kind(root, **options, download=True)
        except Exception as error:  # torchvision's downloads raise whatever their libraries do
            raise DataError(
                f"{self.name} cannot be downloaded to {root}: {first_line(error)}\n"
                "Put its files there by hand, or name another folder with data.root=FOLDER."
            ) from error


class HuggingFace(Fitted):
    """A data set of the Hugging Face hub, or one in a local folder that its `datasets` library can read.

    Args:
        name: on the hub, such as `uoft-cs/cifar10`, or of a folder.
        image_shape: see `Fitted`.
        config: name of the data set's configuration, if it has several.
        revision: commit or tag on the hub.
        train: name of the split with the training images.
        test: name of the split with the test images; null holds out `test_share` of the training images.
        image: name of the column of images; by default the first one.
        label: name of the column of labels, which are whole numbers from 0 or the names of classes; by default the
            first with class names, if there is one whose labels are all known. False for no labels.
        test_share: see `test`.
        split_seed: seed of their selection.
        fit: see `Fitted`.
        cache: see `Fitted`.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        name: str,
        image_shape: Sequence[int],
        config: str | None = None,
        revision: str | None = None,
        train: str = "train",
        test: str | None = "test",
        image: str | None = None,
        label: str | Literal[False] | None = None,
        test_share: float = 0.1,
        split_seed: int = 0,
        fit: Fitting = "crop",
        cache: str | None = None,
    ) -> None:
        options = config, revision, train, test, image, label, test_share, split_seed
        super().__init__(name, image_shape, fit, cache, *options)
        if not 0 < test_share < 1:
            raise ValueError(f"test_share: must be a number between 0 and 1, got {test_share}")
        self.config = config
        self.revision = revision
        self.parts = (train, test)
        self.image = image
        self.label = label
        self.test_share = test_share
        self.split_seed = split_seed

    def _open(self, root: Path) -> Opened:
        try:
            import datasets
        except ImportError as error:
            raise DataError("data=huggingface: needs a package; pip install vae-lightning[huggingface]") from error
        try:
            found = datasets.load_dataset(self.name, self.config, revision=self.revision)
        except Exception as error:  # of the network, the hub, or any of its file formats
            raise DataError(f"data.source.name={self.name}: cannot be loaded: {first_line(error)}") from error
        for option, part in zip(("train", "test"), self.parts, strict=True):
            if part is not None and part not in found:
                hint = "; null holds some out" if option == "test" else ""
                raise DataError(f"data.source.{option}={part}: must be one of {', '.join(found)}{hint}")
        train = found[self.parts[0]]
        image = self._column(train.features, "image", self.image, datasets.Image)
        if image is None:
            raise DataError(f"data.source.name={self.name}: has no column of images, but {', '.join(train.features)}")
        if not isinstance(train.features[image], datasets.Image):
            kind = _kind(train.features[image])
            raise DataError(f"data.source.image={image}: must be a column of images, not of {kind}")
        label = None if self.label is False else self._column(train.features, "label", self.label, datasets.ClassLabel)
        names = () if label is None else self._names(label, [found[part] for part in self.parts if part is not None])
        if names is None:
            log.info("data       %s: without labels, because some of %s are unknown", self.name, label)
            label, names = None, ()
        if self.parts[1] is not None:
            test = found[self.parts[1]]
        else:
            chosen = held_out(len(train), self.test_share, self.split_seed, f"data.source.name={self.name}")
            train, test = (train.select(rows.nonzero().flatten().tolist()) for rows in (~chosen, chosen))
        version = (image, label, *(part.cache_files for part in (train, test)))  # their names depend on the content
        return Opened(_Rows(train, image, label, names), _Rows(test, image, label, names), names, version)

    def _names(self, label: str, tables: Sequence[Any]) -> tuple[str, ...] | None:
        """The names of the classes in a column that was asked for or found; None for one found with unknown labels."""
        feature, place = tables[0].features[label], f"data.source.label={label}"
        kind = _kind(feature)
        if not kind.startswith(("bool", "int", "uint", "string")):
            raise DataError(f"{place}: must be whole numbers from 0 or names, got {kind}; {WITHOUT_LABELS}")
        values: set[Any] = set()
        for table in tables:
            values |= set(table.unique(label) if label in table.features else [None])
        if None in values or (kind != "string" and min(values) < 0):
            if self.label is None:
                return None
            raise DataError(f"{place}: has labels that are unknown, missing or below 0; {WITHOUT_LABELS}")
        if kind == "string":
            return tuple(sorted(values))
        if not hasattr(feature, "names"):
            refuse_identifiers(max(values), sum(map(len, tables)), "label")
        return tuple(map(str, getattr(feature, "names", None) or _numbers(values)))

    def _column(self, features: Mapping[str, Any], option: str, name: str | None, kind: type) -> str | None:
        if name is None:
            return next((name for name, feature in features.items() if isinstance(feature, kind)), None)
        if name not in features:
            raise DataError(f"data.source.{option}={name}: must be one of the columns {', '.join(features)}")
        return name


class _Rows:
    """Pictures and labels in columns of a table."""

    def __init__(self, table: Any, image: str, label: str | None, names: Sequence[str]) -> None:
        self.table, self.image, self.label = table, image, label
        self.numbers = {name: number for number, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, number: int) -> tuple[Image.Image, Any]:
        row = self.table[number]
        label = None if self.label is None else row[self.label]
        return row[self.image], self.numbers[label] if isinstance(label, str) else label


def _kind(feature: Any) -> str:
    """The type of a column, such as `int64` or `string`."""
    return str(getattr(feature, "dtype", type(feature).__name__)).removeprefix("large_")


def _parameters(kind: type) -> set[str]:
    """The options of a class of torchvision, including those that it passes on to its base class."""
    found = inspect.signature(kind).parameters
    names = {name for name, parameter in found.items() if parameter.kind is not parameter.VAR_KEYWORD}
    if len(names) < len(found):
        names |= _parameters(kind.__bases__[0])
    return names - {"root", "transform", "target_transform", "transforms"}


def _usual(accepted: set[str]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The options that choose the training and the test images of most classes of torchvision."""
    if "train" in accepted:
        return {"train": True}, {"train": False}
    return ({"split": "train"}, {"split": "test"}) if "split" in accepted else (None, None)


def _is_number(label: Any) -> bool:
    return not isinstance(label, bool) and getattr(label, "ndim", 0) == 0 and hasattr(label, "__index__")


def _classes(dataset: Any) -> Sequence[Any]:
    if names := getattr(dataset, "classes", None):
        return names
    for name in ("targets", "labels"):  # of most classes; it avoids decoding every picture
        if (labels := getattr(dataset, name, None)) is not None:
            return _numbers(labels)
    return _numbers([dataset[number][1] for number in range(len(dataset))])


def _numbers(labels: Any) -> Sequence[int]:
    return range(int(max(labels)) + 1)
