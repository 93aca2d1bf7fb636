"""The commands. Each is a few lines: the work is in search/ and trashseg/, imported when needed."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from search.config import SearchConfig

app = typer.Typer(
    help="Search, retrain and ensemble: trash segmentation from photos to masks.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Name = Annotated[str, typer.Option(help="Name of the run.")]
Storage = Annotated[Path, typer.Option(help="Folder in which runs are kept.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting: section.key=value; repeatable."),
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="YAML file; what it leaves out has defaults.")
]
TopK = Annotated[int, typer.Option(min=1, help="How many of the best configurations.")]
Seeds = Annotated[
    int, typer.Option(min=1, help="Seeds to train each of them with; those vote as one.")
]
Model = Annotated[Path, typer.Option(help="runs/NAME/ensemble, or a single fold's folder.")]


@contextmanager
def user_errors() -> Iterator[None]:
    """A user's error is one line and exit code 2; Ctrl-C is exit code 130."""
    from trashseg.errors import TrashSegError

    try:
        yield
    except TrashSegError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:  # a full disk, a folder that may not be written
        typer.echo(f"error: {error.filename or ''}: {error.strerror or error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt as stop:
        typer.echo(f"stopped by Ctrl-C{': ' if str(stop) else ''}{stop}", err=True)
        raise typer.Exit(130) from None


@data_app.command("sample")
def data_sample(
    out: Annotated[Path, typer.Argument(help="New folder.")],
    images: Annotated[int, typer.Option(help="Number of scenes.")] = 60,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Other seeds give other scenes.")] = 0,
) -> None:
    """Write a built-in data set of rendered scenes, to try everything without photos."""
    with user_errors():
        from trashseg.data.sample import write_sample

        write_sample(out, images, size, seed)
        typer.echo(f"{out}: {images} scenes of {size}x{size} and train_all.json")


@data_app.command("check")
def data_check(
    data: Annotated[Path, typer.Argument(help="Folder of the photos and their json.")],
    config: ConfigFile = None,
    run: Annotated[
        Path | None,
        typer.Option(help="runs/NAME, or any folder of trained folds: look for wrong labels too."),
    ] = None,
    report: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("data_check.html"),
    set_: Set = None,
) -> None:
    """List all that is wrong with a data set; exit code 1 where training would refuse it."""
    with user_errors():
        from search.config import load_search_config
        from search.display import Display, print_findings
        from trashseg.data.doctor import examine
        from trashseg.data.doctor_page import write_page
        from trashseg.data.listing import read_listing

        settings = load_search_config(config, set_ or []).data
        listing = read_listing(data)
        if run:
            from trashseg.label_errors import find_members, folds_file, wrong_class_cases

            members = find_members(run)
            given = {"folds_file": str(folds_file(run, members))}
            settings = settings.model_copy(update=given)
        with Display("data check", len(listing.dataset.photos), "photos") as display:
            found = examine(listing, settings, on_photo=display.advance)
        if run:
            found = found.with_cases(wrong_class_cases(found, members))
        write_page(report, found)
        print_findings(found, report)
        raise typer.Exit(1 if found.errors else 0)


@app.command()
def search(
    space: Annotated[str | None, typer.Option(help="configs/spaces/NAME.yaml, or a file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the photos and their json.")] = None,
    config: ConfigFile = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a trial that is not stopped.")
    ] = None,
    set_: Set = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, or auto.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store or server.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the proposals.")] = None,
    storage: Annotated[Path | None, typer.Option(help="Folder in which runs are kept.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run of that name; --trials may be more."),
    ] = False,
) -> None:
    """Search: try configurations, stop weak ones early, rank them."""
    given = {
        "search.space": space,
        "search.data_dir": data and data.resolve(),
        "search.name": name,
        "search.trials": trials,
        "epochs": epochs,
        "search.address": address,
        "search.tracking_uri": tracking_uri,
        "search.seed": seed,
        "search.storage": storage,
    }
    with user_errors():
        if resume and config is None:
            config = _kept_config(name, storage)
        resolved = _resolve(config, given, set_)
        from search.driver import run_search
        from search.tables import print_leaderboard

        run, rows = run_search(resolved, resume=resume)
        print_leaderboard(run, rows)


def _resolve(
    config: Path | None, given: Mapping[str, object], set_: list[str] | None
) -> "SearchConfig":
    """The file, changed by the options that were given, changed by --set."""
    from search.config import load_search_config

    options = [f"{key}={value}" for key, value in given.items() if value is not None]
    return load_search_config(config, [*options, *(set_ or [])])


def _kept_config(name: str | None, storage: Path | None) -> Path:
    """The settings that the run was started with."""
    from search.run_folder import open_run_folder
    from trashseg.errors import ConfigError

    if name is None:
        raise ConfigError("--resume: of which run? add --name")
    return open_run_folder(name, storage or Path("runs")).search_yaml


@app.command()
def status(name: Name, storage: Storage = Path("runs")) -> None:
    """How a search is doing: trials, rungs, epochs an hour, time to go; from any terminal."""
    with user_errors():
        from search.run_folder import open_run_folder
        from search.status import read_status
        from search.tables import print_status

        run = open_run_folder(name, storage)
        print_status(run, read_status(run))


@app.command()
def ui(name: Name, storage: Storage = Path("runs")) -> None:
    """Look at a run in the browser: MLflow and optuna-dashboard, on this machine, until Ctrl-C."""
    with user_errors():
        from search.run_folder import open_run_folder
        from search.ui import run_ui

        run_ui(open_run_folder(name, storage), say=typer.echo)


@app.command()
def retrain(
    name: Name,
    top_k: TopK = 2,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Train folds 0 to FOLDS-1; all, if left out.")
    ] = None,
    seeds: Seeds = 1,
    storage: Storage = Path("runs"),
) -> None:
    """Choose the best configurations on more folds, train them on every fold; what exists is kept."""
    with user_errors():
        from search.finals import retrain as run_retrain
        from search.run_folder import open_run_folder
        from search.tables import ensemble_command

        run = open_run_folder(name, storage)
        models = run_retrain(run, top_k, folds, seeds)
        typer.echo(f"{len(models)} folds are trained; next: {ensemble_command(run)}")


@app.command()
def ensemble(
    name: Name,
    test: Annotated[Path | None, typer.Option(help="Folder of test photos and json.")] = None,
    top_k: TopK = 2,
    seeds: Seeds = 1,
    storage: Storage = Path("runs"),
) -> None:
    """Average the folds' predictions, refine them where it helps, score; trains what is missing."""
    with user_errors():
        from search.ensemble import run_ensemble
        from search.run_folder import open_run_folder
        from search.tables import print_ensemble

        run = open_run_folder(name, storage)
        print_ensemble(run, run_ensemble(run, top_k, seeds, test))


@app.command("tune-post")
def tune_post(
    name: Name,
    trials: Annotated[
        int, typer.Option(min=1, help="CRF settings, and sets of views, to try.")
    ] = 20,
    photos: Annotated[
        int, typer.Option(min=2, help="Photos to compare CRFs on; the best is checked on all.")
    ] = 60,
    views: Annotated[
        str, typer.Option(help="Views that may be averaged, by comma; see trashseg/tta.py.")
    ] = "identity,horizontal_flip",
    scales: Annotated[str, typer.Option(help="Scales of the photo that may be, by comma.")] = "1",
    per_class: Annotated[
        bool | None, typer.Option(help="Try weights for each class; as in the run, if left out.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Folder of test photos and json.")] = None,
    top_k: TopK = 2,
    storage: Storage = Path("runs"),
) -> None:
    """Search CRF parameters and views out of fold; build the ensemble anew without any training."""
    with user_errors():
        from search.post import tune_post as run_tune_post
        from search.retrain import plan_folds
        from search.run_folder import open_run_folder
        from search.tables import print_ensemble

        run = open_run_folder(name, storage)
        offered = views.split(","), scales.split(",")
        models = plan_folds(run, top_k)
        metrics = run_tune_post(run, models, trials, photos, *offered, test, per_class)
        print_ensemble(run, metrics)


@app.command()
def register(
    name: Name,
    as_: Annotated[
        str | None, typer.Option("--as", help="Name of the model; the run's own, if left out.")
    ] = None,
    storage: Storage = Path("runs"),
) -> None:
    """Register the run's ensemble in MLflow's model registry, where ensemble could not."""
    with user_errors():
        from search.registry import register_later
        from search.run_folder import open_run_folder

        register_later(open_run_folder(name, storage), as_, typer.echo)


@app.command()
def study(
    which: Annotated[str, typer.Argument(help="losses, augmentations, or a file such as those.")],
    data: Annotated[Path, typer.Option(help="Folder of the photos and their json.")],
    config: ConfigFile = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; the study's own.")] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Train on folds 0 to FOLDS-1; all, if left out.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from the configuration's on.")] = 3,
    set_: Set = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, or auto.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store or server.")] = None,
    storage: Annotated[Path | None, typer.Option(help="Folder in which runs are kept.")] = None,
) -> None:
    """Compare variants of a configuration over folds and seeds; what exists is not trained again."""
    given = {
        "search.data_dir": data.resolve(),
        "search.name": name or Path(which).stem,
        "search.grace_period": 1,  # a search's; a study stops nothing early
        "search.address": address,
        "search.tracking_uri": tracking_uri,
        "search.storage": storage,
    }
    with user_errors():
        resolved = _resolve(config, given, set_)
        from search.study import load_study, run_study
        from search.tables import print_study

        run, results = run_study(load_study(which), resolved, folds, seeds)
        print_study(run.path, results)


@app.command()
def results(
    data: Annotated[Path, typer.Option(help="Folder of the photos and their json.")],
    config: Annotated[
        Path, typer.Option(help="YAML file: the hand tuning, and the search around it.")
    ] = Path("configs/results.yaml"),
    name: Annotated[str, typer.Option(help="Name of the run.")] = "results",
    seeds: Annotated[
        int, typer.Option(min=1, help="Seeds of hand tuning and of the best configuration.")
    ] = 3,
    top_k: TopK = 3,
    set_: Set = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, or auto.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store or server.")] = None,
    storage: Annotated[Path | None, typer.Option(help="Folder in which runs are kept.")] = None,
) -> None:
    """What helped: hand tuning, a search, each addition alone, all of it; goes on after a kill."""
    given = {
        "search.data_dir": data.resolve(),
        "search.name": name,
        "search.address": address,
        "search.tracking_uri": tracking_uri,
        "search.storage": storage,
    }
    with user_errors():
        resolved = _resolve(config, given, set_)
        from search.ablation import Effort, run_ablation

        run, _ = run_ablation(resolved, Effort(seeds=seeds, top_k=top_k))
        typer.echo(run.results_page.read_text())
        typer.echo(f"results.md and results.json: {run.path}")


@app.command()
def report(
    name: Name,
    storage: Storage = Path("runs"),
    png: Annotated[
        bool, typer.Option("--png", help="The figures as PNG too, in runs/NAME/figures.")
    ] = False,
) -> None:
    """What came out of a run, as one HTML page; logged to MLflow. Also while the run goes on."""
    with user_errors():
        from search.report.build import write_report
        from search.run_folder import open_run_folder

        write_report(open_run_folder(name, storage), png)


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="YAML file, such as runs/NAME/best/0.yaml.")],
    data: Annotated[Path, typer.Option(help="Folder of the photos and their json.")],
    fold: Annotated[int, typer.Option(help="Fold to validate on.")],
    out: Annotated[Path, typer.Option(help="Folder for the trained fold.")],
    pseudo: Annotated[
        Path | None, typer.Option(help="Folder of unlabelled photos to learn from too, in rounds.")
    ] = None,
    set_: Set = None,
) -> None:
    """Train one configuration on one fold, without a search."""
    given = ["pseudo.name=folder", f"pseudo.folder={pseudo.resolve()}"] if pseudo else []
    with user_errors():
        from trashseg.config_file import load_train_config

        resolved = load_train_config(config, [*given, *(set_ or [])])
        from search.display import print_scores
        from trashseg.data.coco import load_coco
        from trashseg.data.folds import make_folds
        from trashseg.device import local_resources
        from trashseg.rounds import train_in_rounds

        dataset = load_coco(data)
        folds = make_folds(dataset, resolved.data)
        scores = train_in_rounds(
            resolved, dataset, folds, fold, out, local_resources(), on_epoch=_print_epoch
        )
        print_scores({f"fold {fold}": scores})


@app.command()
def predict(
    model: Model,
    images: Annotated[Path, typer.Option(help="Folder of photos.")],
    out: Annotated[Path, typer.Option(help="New folder for the masks.")],
) -> None:
    """Masks, overlays, COCO results and submission.csv for a folder of photos."""
    with user_errors():
        from search.display import Display
        from trashseg.data.unlabelled import find_photos
        from trashseg.device import local_resources
        from trashseg.ensemble import load_ensemble
        from trashseg.predict import predict as run_predict

        loaded = load_ensemble(model, local_resources())
        with Display("predict", len(find_photos(images)), "photos") as display:
            count = run_predict(loaded, images, out, on_photo=display.advance)
        typer.echo(f"{out}: masks, overlays, predictions.json and submission.csv of {count} photos")


@app.command()
def demo(
    model: Model,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    samples: Annotated[
        Path | None, typer.Option(help="Folder of photos to offer; the run's own, if left out.")
    ] = None,
) -> None:
    """A page that finds the materials in a photo, for people, and the same over HTTP for programs."""
    with user_errors():
        from search.run_folder import photos_of
        from trashseg.demo.samples import load_samples
        from trashseg.demo.server import listen, require_gradio, serve
        from trashseg.device import local_resources
        from trashseg.ensemble import load_ensemble

        require_gradio()
        folder = samples or photos_of(model)
        with listen(host, port) as listener:
            offered = load_samples(folder) if folder else []
            serve(load_ensemble(model, local_resources()), offered, listener)


@app.command()
def export(
    model: Annotated[Path, typer.Option(help="A trained fold: runs/NAME/folds/TRIAL/FOLD.")],
    out: Annotated[Path, typer.Option(help="New .onnx file.")],
    images: Annotated[
        Path | None, typer.Option(help="Photos to compare with torch on; built-in ones else.")
    ] = None,
) -> None:
    """Write a trained fold as an ONNX file, if it says there what it says in torch."""
    with user_errors():
        from trashseg.export import export_member

        exported = export_member(model, out, images)
        typer.echo(f"{out}: {exported.describe()}")


@app.command()
def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="Folder of photos and their json.")],
) -> None:
    """Scores of a model on labelled photos that it has not seen."""
    with user_errors():
        from search.display import Display, print_scores
        from trashseg.data.cache import dataset_key
        from trashseg.data.coco import load_coco_test
        from trashseg.device import local_resources
        from trashseg.ensemble import evaluate_ensemble, load_ensemble

        loaded = load_ensemble(model, local_resources())
        dataset = load_coco_test(data)
        if dataset_key(dataset) == loaded.members[0].dataset:
            typer.echo(
                "warning: the members were trained on these very photos; the scores below are too "
                f"good, honest ones are in {model}/metrics.json",
                err=True,
            )
        with Display("evaluate", len(dataset.photos), "photos") as display:
            scores = evaluate_ensemble(loaded, dataset, on_photo=display.advance)
        print_scores({str(model): scores})


def _print_epoch(metrics: dict[str, Any]) -> None:
    if metrics["round"] and metrics["epoch"] == 1:
        typer.echo(f"round {metrics['round']}, from scratch, with pseudo labels too")
    typer.echo(
        f"epoch {metrics['epoch']:3d}  loss {metrics['loss']:.4f}  val loss {metrics['val_loss']:.4f}"
        f"  miou {metrics['miou']:.4f}  best {metrics['best_miou']:.4f}  {metrics['seconds']:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(app())
