"""The configuration: every key we add is read somewhere, and every YAML loads and builds its model."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import detectron2
import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model

import rec_attend_d2
from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.config import different_settings, input_words, load_config
from rec_attend_d2.data import register_datasets

PACKAGE = Path(rec_attend_d2.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
# Quick-*.yaml are second bases, no whole configs. Mask R-CNN's are Detectron2's, see benchmark/test_baselines.py.
YAMLS = sorted(
    path
    for path in [*CONFIGS.rglob("*.yaml"), *(ROOT / "tests" / "configs").rglob("*.yaml")]
    if not path.name.startswith("Quick-") and "mask_rcnn" not in path.name and path.parent.name != "baselines"
)


def leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All keys, dotted, with their values."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def our_cfg() -> CfgNode:
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    return cfg


OUR_KEYS = sorted(dict(leaves(our_cfg())).keys() - dict(leaves(get_cfg())).keys())


# ---------------------------------------------------------------- keys that nobody reads


def dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    """``cfg.MODEL.X`` as text, where names may stand for such text; None for other expressions."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, aliases)
        return None if owner is None else f"{owner}.{node.attr}"
    return None


def keys_read(source: str) -> set[str]:
    """Attribute chains of upper-case names in python source, as full as the code shows them.

    ``node = cfg.MODEL.REC_ATTEND`` followed by ``node.TIME_STEPS`` is MODEL.REC_ATTEND.TIME_STEPS; where ``node`` is
    a parameter, all that shows is TIME_STEPS.
    """
    tree = ast.parse(source)
    aliases: dict[str, str] = {}
    found = set()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for scope in functions:
        aliases = {}
        for statement in ast.walk(scope):
            if isinstance(statement, ast.Assign):
                pairs = [(target, statement.value) for target in statement.targets]
                for target, value in list(pairs):
                    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                        pairs += list(zip(target.elts, value.elts, strict=True))
                for target, value in pairs:
                    text = dotted(value, aliases)
                    if isinstance(target, ast.Name) and text:
                        aliases[target.id] = text
        chains = [dotted(node, aliases) for node in ast.walk(scope) if isinstance(node, ast.Attribute)]
        for chain in filter(None, chains):
            names = chain.split(".")
            first = next((i for i, name in enumerate(names) if name.isupper()), len(names))
            found.add(".".join(name for name in names[first:] if name.isupper()))
    return found - {""}


def is_read(key: str, found: set[str]) -> bool:
    """Whether a chain is the key, or the last names of it where the code does not show the rest."""
    return any(key == chain or key.endswith(f".{chain}") for chain in found)


@pytest.fixture(scope="module")
def found() -> set[str]:
    """What the package reads; the lines that add the keys do not count."""
    sources = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "config.py"]
    assert len(sources) > 30
    return set().union(*(keys_read(path.read_text(encoding="utf-8")) for path in sources))


@pytest.mark.parametrize("key", OUR_KEYS)
def test_every_key_is_read(key: str, found: set[str]):
    assert is_read(key, found), f"nothing in rec_attend_d2 reads {key}"


def test_the_search_for_reads_knows_a_read_from_a_mention():
    read = keys_read(
        '''
def build(cfg, other):
    """Reads MODEL.NEVER."""
    node, key = cfg.MODEL.PART, "MODEL.PART.NEVER"
    cfg.MODEL.PART.DIRECT
    node.BY_ALIAS.lower()
    other.BY_PARAMETER
    return node
'''
    )
    assert is_read("MODEL.PART.DIRECT", read)
    assert is_read("MODEL.PART.BY_ALIAS", read)
    assert is_read("MODEL.ANY.BY_PARAMETER", read)
    assert not is_read("MODEL.NEVER", read) and not is_read("MODEL.PART.NEVER", read)
    assert not is_read("MODEL.OTHER_PART.DIRECT", read) and not is_read("MODEL.OTHER_PART.BY_ALIAS", read)


# ---------------------------------------------------------------- keys that nobody needs


def flat(node: dict, prefix: str = "") -> set[str]:
    """Dotted keys of a YAML file's content."""
    return set().union(
        *(
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
            for key, value in node.items()
        )
    )


def set_by_recipes() -> set[str]:
    """Keys in the files of configs/, those for tests not among them."""
    files = [path for path in CONFIGS.rglob("*.yaml") if path.name != "ablation.yaml"]
    return set().union(*(flat(yaml.safe_load(path.read_text())) for path in files))


def explained_to_users() -> set[str]:
    """Keys that docs/config.md names, in its config or its text."""
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.M | re.S)
    assert blocks
    named = set(re.findall(r"[A-Z][A-Z_]*(?:\.[A-Z][A-Z_]*)+", page))
    return named.union(*(flat(yaml.safe_load(block)) for block in blocks))


def test_every_key_is_needed():
    converter = keys_read((PACKAGE / "checkpoint" / "original_options.py").read_text(encoding="utf-8"))
    needed = set_by_recipes() | explained_to_users()
    unneeded = {key for key in OUR_KEYS if key not in needed and not is_read(key, converter)}
    assert unneeded == set()


def test_our_keys_are_where_they_are_said_to_be():
    allowed = ("MODEL.REC_ATTEND.", "INPUT.", "SOLVER.", "DATASETS.", "TEST.")
    assert len(OUR_KEYS) >= 50
    assert [key for key in OUR_KEYS if not key.startswith(allowed)] == []


def test_detectron2s_own_defaults_stay_as_they_are():
    ours, theirs = dict(leaves(our_cfg())), dict(leaves(get_cfg()))
    assert {key: ours[key] for key in theirs} == theirs


def test_adding_the_keys_changes_no_other_config():
    first = our_cfg()
    first.MODEL.REC_ATTEND.BOX_PROPOSER.CONV_CHANNELS.append(1)
    first.INPUT.IMAGE_SIZE[0] = 7
    second = our_cfg()
    assert second.MODEL.REC_ATTEND.BOX_PROPOSER.CONV_CHANNELS == [8, 8, 16, 16, 32, 32, 64, 64]
    assert second.INPUT.IMAGE_SIZE == [224, 224]
    assert not hasattr(get_cfg().MODEL, "REC_ATTEND")


def test_every_key_has_a_comment():
    documented, uncommented = False, []
    for line in (PACKAGE / "config.py").read_text(encoding="utf-8").partition("def _add_data_config")[2].splitlines():
        text = line.strip()
        if text.startswith("#"):
            documented = True  # of all keys up to the next line that is none
        elif " = CN()" in text or " = " not in text:
            documented = False
        elif not documented:
            uncommented.append(text)
    assert uncommented == []


# ---------------------------------------------------------------- the files


def load(path: Path) -> CfgNode:
    return load_config(path, ["MODEL.DEVICE", "cpu"])


def test_there_are_config_files():
    assert CONFIGS / "Base-RecAttend.yaml" in YAMLS
    assert len(YAMLS) > 3


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_file_builds_its_model(path: Path):
    cfg = load(path)
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    assert architecture.__module__.startswith("rec_attend_d2.")
    model = build_model(cfg)
    assert isinstance(model, architecture)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1000


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_file_avoids_detectron2s_traps(path: Path):
    cfg = load(path)
    assert cfg.INPUT.MASK_FORMAT == "bitmask"
    assert cfg.INPUT.FORMAT == "BGR"
    assert not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS  # images without objects are examples of stopping
    if cfg.SOLVER.LR_SCHEDULER_NAME == "StaircaseExponentialLR":
        assert cfg.SOLVER.WARMUP_ITERS == 0  # it has no warm-up, and Detectron2's default is 1000 iterations
    # The paper's models have it as a term of the loss.
    assert cfg.SOLVER.WEIGHT_DECAY == 0 or cfg.MODEL.META_ARCHITECTURE == "FastRecAttend"
    assert cfg.MODEL.PIXEL_STD == [255.0] * 3 and cfg.MODEL.PIXEL_MEAN == [0.0] * 3


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_file_names_registered_data_sets(path: Path):
    register_datasets(load(path))  # raises for a name that is not known


# ---------------------------------------------------------------- loading


def test_without_cuda_the_device_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_config("", []).MODEL.DEVICE == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_config("", []).MODEL.DEVICE == "cuda"


def test_options_come_last(tmp_path: Path):
    path = tmp_path / "three.yaml"
    path.write_text("MODEL:\n  REC_ATTEND:\n    TIME_STEPS: 3\nVERSION: 2\n")
    assert load_config(path, []).MODEL.REC_ATTEND.TIME_STEPS == 3
    assert load_config(path, ["MODEL.REC_ATTEND.TIME_STEPS", "4"]).MODEL.REC_ATTEND.TIME_STEPS == 4
    with pytest.raises(ValueError, match="options SEEED 3 are not valid: .*SEEED"):
        load_config("", ["SEEED", 3])


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_config("nowhere.yaml", [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("MODEL:\n  REC_ATTEND:\n    TIMESTEPS: 3\nVERSION: 2\n", "MODEL.REC_ATTEND.TIMESTEPS"),
        ("MODEL: [1\n", "expected ',' or ']'"),
        ("- SEED\n", ""),
        ("", ""),
        ("_BASE_: missing.yaml\nVERSION: 2\n", "missing.yaml"),
        ("SEED: three\nVERSION: 2\n", "SEED"),
    ],
    ids=["unknown key", "no yaml", "a list", "empty", "no base", "wrong type"],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, content: str, reason: str):
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"(?s)wrong.yaml' .*is not valid: .*{re.escape(reason)}"):
        load_config(path, [])


@pytest.mark.parametrize("name", ["evil.yaml", "harmless.yaml"], ids=["the file", "its base"])
def test_a_file_that_would_run_code_is_refused(tmp_path: Path, name: str):
    ran = tmp_path / "ran"
    (tmp_path / "evil.yaml").write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{ran}']\nVERSION: 2\n")
    (tmp_path / "harmless.yaml").write_text("_BASE_: evil.yaml\n")
    with pytest.raises(ValueError, match=f"(?s){name}' asks for a Python object.*evil.yaml"):
        load_config(tmp_path / name, [])
    assert not ran.exists()


def test_the_baselines_of_detectron2_need_no_code():
    folder = Path(detectron2.__file__).parent / "model_zoo" / "configs" / "COCO-InstanceSegmentation"
    paths = sorted(folder.glob("*.yaml"))
    assert len(paths) > 5 and all(load_config(path, []).MODEL.MASK_ON for path in paths)


def test_how_large_images_are_in_the_network_is_said_in_words():
    cfg = load_config("", ["INPUT.IMAGE_SIZE", "[32, 48]"])
    assert input_words(cfg) == "32 x 48"
    cfg.MODEL.META_ARCHITECTURE = "FastRecAttend"
    assert input_words(cfg) == "objects of 12 pixels"
    cfg.INPUT.OBJECT_SIZE = 30.5
    assert input_words(cfg) == "objects of 12 pixels (30.5 in the file)"
    # Trained before sizes followed from objects.
    assert input_words({"MODEL": cfg.MODEL, "INPUT": {"IMAGE_SIZE": [64, 64]}}) == "64 x 64"


def test_a_setting_that_is_newer_than_a_training_counts_as_its_default(tmp_path: Path):
    cfg = load_config("", ["SEED", 3])
    older = {key: value for key, value in yaml.safe_load(cfg.dump()).items() if key != "SEED"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older))
    assert different_settings(cfg, tmp_path / "config.yaml") == ["SEED"]
    cfg.SEED = load_config("", []).SEED
    cfg.OUTPUT_DIR = "elsewhere"
    assert different_settings(cfg, tmp_path / "config.yaml") == []
