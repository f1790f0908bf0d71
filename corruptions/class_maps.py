"""Class maps of asymmetric noise: clean class -> the class it is taken for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ClassMap = Mapping[int, int]

# CIFAR-100's superclasses by name. Fine ids are the alphabetical order of the names, so that blocks
# of five consecutive ids are NOT superclasses: https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR100_SUPERCLASSES: dict[str, str] = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}


def _next_in_superclass() -> dict[int, int]:
    groups = [names.split() for names in CIFAR100_SUPERCLASSES.values()]
    ids = {name: i for i, name in enumerate(sorted(name for group in groups for name in group))}
    return {
        ids[name]: ids[group[(place + 1) % len(group)]]
        for group in groups
        for place, name in enumerate(group)
    }


# The entry named like a dataset is that dataset's default.
# mnist, cifar10: Patrini et al. 2017. mnist-tdsm: Na et al. 2024, without 7 -> 1.
# fashion-mnist has no standard; look-alike garments (SBDC), and the map of DMIS.
CLASS_MAPS: dict[str, ClassMap] = {
    "digits": {7: 1, 2: 7, 3: 8, 5: 6, 6: 5},
    "mnist": {7: 1, 2: 7, 3: 8, 5: 6, 6: 5},
    "mnist-tdsm": {2: 7, 3: 8, 5: 6, 6: 5},
    "fashion-mnist": {0: 6, 2: 4, 5: 7},
    "fashion-mnist-dmis": {2: 7, 3: 8, 5: 6, 6: 5},
    "cifar10": {9: 1, 2: 0, 4: 7, 3: 5, 5: 3},
    "cifar100": _next_in_superclass(),
}


def check_class_map(
    class_map: Mapping[Any, Any], num_classes: int, class_names: Sequence[str] = ()
) -> dict[int, int]:
    """Return a class map with integer keys and values.

    Args:
        class_map: Between class numbers or names.
        num_classes: K.
        class_names: K names, where classes have names.

    Raises:
        ValueError: If an entry is no class, or maps a class to itself, or one comes twice.
    """
    numbers = {str(number): number for number in range(num_classes)}
    numbers |= {name: number for number, name in enumerate(class_names)}
    checked: dict[int, int] = {}
    for clean, given in class_map.items():
        pair = numbers.get(str(clean)), numbers.get(str(given))
        if pair[0] is None or pair[1] is None or pair[0] == pair[1]:
            raise ValueError(
                f"a class map goes between different classes, numbers in [0, {num_classes}) or "
                f"names, got {clean!r} -> {given!r}"
            )
        if checked.setdefault(pair[0], pair[1]) != pair[1]:
            raise ValueError(f"a class map takes each class to one other, got two for {clean!r}")
    return checked


def find_class_map(wanted: ClassMap | str | None, dataset: str | None) -> Mapping[Any, Any]:
    """Return the class map that is asked for.

    Args:
        wanted: A mapping; the name of one in `CLASS_MAPS`; the path of a JSON file such as
            {"7": 1, "2": 7}; None for the dataset's default.
        dataset: Name of the dataset, or None.

    Raises:
        ValueError: If there is no such map.
    """
    if isinstance(wanted, Mapping):
        return wanted
    name = dataset if wanted is None else wanted
    if name in CLASS_MAPS:
        return CLASS_MAPS[name]
    if wanted is not None and Path(wanted).suffix == ".json":
        return _read_class_map(Path(wanted))
    raise ValueError(
        f"asymmetric noise needs a class map: {', '.join(CLASS_MAPS)}, or a .json file, "
        f"got {name!r}"
    )


def _read_class_map(path: Path) -> Mapping[Any, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read a class map from {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} must hold a class map such as {{"7": 1}}, got {content!r:.40}')
    return content
