"""The parts of a `transformers` model, config and tokenizer that this package uses, and the adapters of `peft`.

For type checking only: neither library is typed, nothing is ever an instance of these classes, and an attribute may be
missing where its comment says so. Models are subclasses of `nn.Module` and not protocols, because torch's functions ask
for an `nn.Module`.
Shapes: B sequences, L tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from sdft_cli.types import Json


class ModelConfig(Protocol):
    """A model's config; `get_text_config` gives that of the language model inside a multimodal one.

    Other fields differ from model to model and are read with `getattr` and a default.
    """

    _attn_implementation: str | dict[str, str]
    _name_or_path: str
    model_type: str
    sub_configs: Mapping[str, object]
    per_layer_config: Iterable[object]  # may be missing
    num_hidden_layers: int
    tie_word_embeddings: bool

    def get_text_config(self) -> ModelConfig: ...


class GenerationConfig(Protocol):
    """``validate`` raises `ValueError` for settings that contradict each other; `to_diff_dict` has those given."""

    eos_token_id: int | list[int] | None

    def validate(self, *, strict: bool) -> None: ...

    def to_diff_dict(self) -> dict[str, Json]: ...


class DecoderOutput(Protocol):
    """``last_hidden_state`` is [B, L, H]."""

    last_hidden_state: Tensor


class CausalLMOutput(Protocol):
    """``logits`` is [B, L, V]."""

    logits: Tensor


class Decoder(nn.Module):
    """The layers without the output head: ids [B, L] to hidden states [B, L, H]."""

    __call__: Callable[..., DecoderOutput]


class CausalLM(nn.Module):
    """A decoder with its output head: ids [B, L] to logits [B, L, V]."""

    config: ModelConfig
    generation_config: GenerationConfig  # may be missing
    supports_gradient_checkpointing: bool  # may be missing
    is_gradient_checkpointing: bool

    __call__: Callable[..., CausalLMOutput]
    get_decoder: Callable[[], Decoder]
    get_input_embeddings: Callable[[], nn.Embedding]
    get_output_embeddings: Callable[[], nn.Linear]
    set_attn_implementation: Callable[[str | dict[str, str]], None]
    _can_set_attn_implementation: Callable[[], bool]
    gradient_checkpointing_enable: Callable[[dict[str, bool]], None]
    gradient_checkpointing_disable: Callable[[], None]
    disable_input_require_grads: Callable[[], None]
    save_pretrained: Callable[..., None]


class AdapterConfig(Protocol):
    """A LoRA adapter's settings; ``r`` is its rank, ``target_modules`` names of layers or a pattern."""

    r: int
    target_modules: set[str] | str
    base_model_name_or_path: str | None

    def save_pretrained(self, save_directory: Path) -> None: ...


class AdapterLayer(Protocol):
    """A layer with adapters, by `peft`."""

    def get_base_layer(self) -> nn.Module: ...

    def merge(self, *, safe_merge: bool, adapter_names: list[str]) -> None: ...


class LoadedKeys(Protocol):
    """Names of weights that a file lacks, and that it has over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class PeftModel(CausalLM):
    """A causal LM that `peft` has put adapters into, by name; what a `CausalLM` has, it has too."""

    peft_config: dict[str, AdapterConfig]

    add_adapter: Callable[[str, AdapterConfig], None]
    set_adapter: Callable[[str], None]
    delete_adapter: Callable[[str], None]
    load_adapter: Callable[..., LoadedKeys]
    unload: Callable[[], CausalLM]


class AddedToken(Protocol):
    """A token that is found in a text before it is split into words; ``special`` if it is no part of what is said."""

    special: bool


class Tokenizer(Protocol):
    """``chat_template`` is the template's source, or several by name."""

    chat_template: str | dict[str, str] | None
    eos_token_id: int | None
    pad_token_id: int | None
    all_special_ids: list[int]
    added_tokens_decoder: Mapping[int, AddedToken]

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Mapping[str, list[int]]: ...

    def apply_chat_template(
        self,
        conversation: list[Json],
        *,
        tools: list[Json] | None,
        tokenize: bool,
        add_generation_prompt: bool,
        **switches: bool,
    ) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, **options: bool) -> str: ...

    def save_pretrained(self, save_directory: Path) -> object: ...
