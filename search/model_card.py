"""ensemble/model_card.md: what an ensemble is, what it was made of, how good it is and where it fails.

Written from the files of the run alone: every number is one of theirs, or counted in them.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from search.card_tables import by_class, networks, scores_table, steps_table
from search.config import SearchConfig
from search.run_folder import RunFolder
from trashseg.config_file import load_train_config
from trashseg.data.coco import CocoDataset
from trashseg.files import write_text
from trashseg.manifest import Manifest, read_manifest
from trashseg.weighting import sum_of

FEW_OBJECTS = 20
LOW_IOU = 0.3
OF_ONE_CLASS = (
    " Litter that touches is one object, of one class: that which its pixels say most for, in sum."
)
LONGEST = 5000  # characters of a version's description that MLflow's databases hold


@dataclass(frozen=True)
class Facts:
    """What the card speaks of, as the run's files have it."""

    run: RunFolder
    config: SearchConfig
    manifest: Manifest
    metrics: dict[str, Any]
    post: dict[str, Any]
    dataset: CocoDataset
    dataset_key: str
    fold_sizes: tuple[int, ...]

    @property
    def nested(self) -> dict[str, Any]:
        return dict(self.metrics["nested"])

    @property
    def objects(self) -> Counter[str]:
        """How many there are of each class."""
        return Counter(
            self.dataset.classes[annotation.class_index]
            for photo in self.dataset.photos
            for annotation in photo.annotations
        )


def read_facts(run: RunFolder, dataset: CocoDataset) -> Facts:
    """`dataset` is the run's own, which is read once."""
    return Facts(
        run=run,
        config=run.config,
        manifest=read_manifest(run.ensemble),
        metrics=json.loads((run.ensemble / "metrics.json").read_text()),
        post=json.loads((run.ensemble / "post.json").read_text()),
        dataset=dataset,
        dataset_key=json.loads(run.dataset_json.read_text())["key"],
        fold_sizes=tuple(map(len, json.loads(run.folds_json.read_text())["folds"])),
    )


def write_model_card(run: RunFolder, dataset: CocoDataset) -> None:
    write_text(run.model_card, model_card(read_facts(run, dataset)))


def shortened(card: str, longest: int = LONGEST) -> str:
    """The card's beginning, whole lines of it, where it is too long for MLflow."""
    if len(card) <= longest:
        return card
    rest = "\n\nThe rest is in model_card.md of the ensemble's run."
    return card[: longest - len(rest)].rpartition("\n")[0].rstrip() + rest


def model_card(facts: Facts) -> str:
    metrics, manifest = facts.metrics, facts.manifest
    return "\n\n".join(
        [
            f"# {facts.run.path.name}: an ensemble that finds litter in photos",
            introduction(facts),
            "## Limits",
            "\n".join(f"- {limit}" for limit in limits(facts)),
            "## Scores",
            about_scores(facts),
            scores_table(metrics),
            "IoU by class, and what there was to learn each from:",
            by_class(facts.dataset, metrics),
            "## Data",
            data(facts),
            "## Networks",
            networks(manifest, metrics, facts.run.path / "folds"),
            "## What is done to their votes",
            votes(manifest),
            f"Each step was kept if it raised `{facts.post['metric']}` by more than its noise:",
            steps_table(metrics["steps"]),
            "## How to load it",
            loading(facts),
            "## Licence",
            licence(facts),
        ]
    ) + "\n"  # fmt: skip


# --- sentences ---------------------------------------------------------------------------------


def introduction(facts: Facts) -> str:
    classes, members = facts.manifest.classes, len(facts.manifest.members)
    metric = facts.post["metric"]
    refined = ", refined by a dense CRF" if facts.manifest.chosen == "soft_vote_crf" else ""
    return (
        f"It says of each pixel of a photo which of {len(classes)} classes it shows: "
        f"{', '.join(classes)}. {members} networks vote by the weighted mean of their "
        f"probabilities{refined}. Its nested `{metric}` out of fold is "
        f"{facts.nested[metric]:.4f}, over {facts.nested['images']} photos."
    )


def limits(facts: Facts) -> Iterator[str]:
    """What the numbers say that it cannot do."""
    iou, objects = facts.nested["iou"], facts.objects
    named = facts.dataset.classes[1:]
    if unseen := [name for name in named if iou[name] is None]:
        yield f"No photo shows {join(unseen)}: nothing is known of how these are found."
    if never := [name for name in named if iou[name] == 0]:
        yield f"Never found where they are: {join(never)} (IoU 0)."
    if low := [name for name in named if iou[name] is not None and 0 < iou[name] < LOW_IOU]:
        values = join([f"{name} {iou[name]:.4f}" for name in low])
        yield f"Found badly, with an IoU below {LOW_IOU}: {values}."
    if few := [name for name in named if 0 < objects[name] < FEW_OBJECTS]:
        counts = join([f"{name} {objects[name]}" for name in few])
        yield (
            f"Seldom seen, with fewer than {FEW_OBJECTS} objects in all: {counts}. Their scores hang "
            "on a few photos."
        )
    sizes = sorted({config.data.image_size for config in member_configs(facts)})
    yield (
        f"Whatever a photo's size, a network sees it as a square of {join(sizes)} pixels a side: what "
        "is small there is lost."
    )
    yield (
        "The weights of each network are those of its best epoch on its validation photos, and the "
        "configurations were chosen on such photos too: scores out of fold are a little better than "
        "on new photos. " + tested(facts)
    )
    yield "Photos of another kind (place, camera, distance) than these may come out worse."


def tested(facts: Facts) -> str:
    if facts.metrics["test"] is None:
        return "There is no test folder, whose score would be free of that."
    return "The score of the test folder is free of that."


def about_scores(facts: Facts) -> str:
    return (
        "All at the photos' own size. Out of fold: each photo is scored by just those networks that "
        "had it in their validation fold. Nested: each fold's photos under choices (weights, views "
        "and what follows) made on the other folds; this is the score to quote, and versions are "
        f"compared by its `{facts.post['metric']}`. `miou` counts the pixels of all photos together, "
        "`miou_image` is the mean over photos."
    )


def data(facts: Facts) -> str:
    config, sizes = facts.config.data, sorted(set(facts.fold_sizes))
    how = (
        "given by a file"
        if config.folds_file
        else f"stratified by the classes in a photo, with seed {config.folds_seed}"
    )
    between = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return (
        f"{len(facts.dataset.photos)} photos with {facts.objects.total()} objects in "
        f"{len(facts.dataset.classes) - 1} classes, known by the key `{facts.dataset_key}` of their "
        f"content. {len(facts.fold_sizes)} folds of {between} photos, {how}."
    )


def votes(manifest: Manifest) -> str:
    tta, crf = manifest.tta, manifest.crf
    views, scales = join([f"`{view}`" for view in tta.views]), join(tta.scales)
    seen = (
        f"Each network sees each photo in the views {views}, at scale {scales}.{favoured(manifest)}"
        f"{OF_ONE_CLASS if manifest.by_object else ''}"
    )
    if manifest.chosen == "soft_vote":
        return f"{seen} No CRF refines the mean: it did not help."
    settings = ", ".join(f"`{name}` {value}" for name, value in crf.model_dump().items())
    return f"{seen} A dense CRF refines the mean: {settings}."


def favoured(manifest: Manifest) -> str:
    """A sentence of the classes that count more than others; nothing where none does."""
    of_classes = sum_of([member.weight for member in manifest.members])
    more = [
        f"{name} {times:.2f} times"
        for name, times in zip(manifest.classes, of_classes, strict=False)
        if times > 1.001
    ]
    return f" The votes for rare classes count more: {join(more)}." if more else ""


def loading(facts: Facts) -> str:
    folder = f"runs/{facts.run.path.name}/ensemble"
    here = f"In trashseg: `python launch.py predict --model {folder} --images DIR --out DIR`."
    name = facts.config.search.registered_model
    if name is None:
        return here
    return (
        f"{here} Anywhere, from MLflow's registry, with this version's number: "
        f"`mlflow models predict -m models:/{name}/VERSION -t json -i photos.json`, or\n\n"
        "```python\n"
        f'model = mlflow.pyfunc.load_model("models:/{name}/VERSION")\n'
        'answers = model.predict(pandas.DataFrame({"photo": [open("photo.jpg", "rb").read()]}))\n'
        "```\n\n"
        "`photo` is an encoded photo (JPEG, PNG, ...; base64 in JSON); of each, `mask` is the class of "
        "each pixel as a PNG of the photo's size, upright, in the order of the classes above from 0 "
        "on, and `shares` are the classes' shares in its pixels."
    )


def licence(facts: Facts) -> str:
    starts = sorted({config.model.weights for config in member_configs(facts)} - {"none"})
    return (
        "The code is under the MIT licence. The weights were learnt from the photos above"
        + (f", beginning with encoders' pretrained weights ({join(starts)})" if starts else "")
        + ": the licences of those hold for this model too."
    )


def member_configs(facts: Facts) -> Iterator[Any]:
    for member in facts.manifest.members:
        yield load_train_config(facts.run.ensemble / member.folder / "config.yaml")


def join(items: Sequence[Any]) -> str:
    """As a sentence lists them."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last
