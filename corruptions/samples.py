"""What label files are joined to: the samples of a dataset, by number, by file and by content."""

from dataclasses import dataclass

from corruptions.types import Ints


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a dataset.

    Attributes:
        clean: (N,) int64 labels of the dataset, taken as the truth.
        num_classes: K.
        class_names: K names; None if the classes have numbers only.
        paths: N files, relative to the dataset's folder; None if the samples do not come as files.
        digests: N digests of the files' contents; None where nobody has taken them.
        held_out: Files of the same dataset that are not among the samples.
    """

    clean: Ints
    num_classes: int
    class_names: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    digests: tuple[str, ...] | None = None
    held_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """K names, of bare numbers the numbers."""
        return self.class_names or tuple(str(number) for number in range(self.num_classes))

    def shown(self, number: int) -> str:
        """Name a sample: its file, or its number."""
        return str(number) if self.paths is None else self.paths[number]
