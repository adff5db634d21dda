"""Traits of tokens: padding, end tokens, chat templates, and what a generation configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.families import EOS_TOKEN_ID, VOCAB_SIZE
from pytest_llmdevice.zoo.prompts import PROMPTS
from pytest_llmdevice.zoo.traits.json_files import CONFIGURATION, GENERATION, TOKENIZER, change
from pytest_llmdevice.zoo.traits.trait import Trait

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_NEW_TOKENS: Final = 16

LARGE_VOCABULARY: Final = VOCAB_SIZE + 64

CHAT: Final = (
    "{% if messages[0]['role'] != 'system' %}<|reserved_0|>system\nYou are a helpful assistant.<|reserved_1|>\n"
    "{% endif %}{% for message in messages %}<|reserved_0|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|reserved_1|>\n{% endfor %}{% if add_generation_prompt %}<|reserved_0|>assistant\n{% endif %}"
)
"""In the form of ChatML: a system prompt where none is given, and special tokens around each turn."""


def _encodes(config: PreTrainedConfig) -> str | None:
    return "its decoder starts with the padding token" if config.is_encoder_decoder else None


def _without_pad(folder: Path) -> None:
    for name in (TOKENIZER, "special_tokens_map.json"):
        change(folder / name, lambda content: content.pop("pad_token", None))
    change(folder / GENERATION, lambda content: content.pop("pad_token_id", None))

    def without(content: dict[str, Any]) -> None:
        for part in (content, *(value for value in content.values() if isinstance(value, dict))):
            if "pad_token_id" in part:
                part["pad_token_id"] = None

    change(folder / CONFIGURATION, without)


def _on_the_right(folder: Path) -> None:
    change(folder / TOKENIZER, lambda content: content.update(padding_side="right"))


def _several_ends(folder: Path) -> None:
    """Make two tokens that the model says end tokens, behind the usual one, so that each of them ends some row."""
    ends = [EOS_TOKEN_ID, *ends_said(_said(folder))]
    change(folder / GENERATION, lambda content: content.update(eos_token_id=ends))
    change(folder / CONFIGURATION, lambda content: content.update(eos_token_id=ends))


def ends_said(rows: list[list[int]]) -> list[int]:
    """Two tokens of `rows` such that each is the first of the two in some row, and rows are as long as can be.

    Fewer where no two are.
    """
    said = sorted({token for row in rows for token in row})

    def lengths(ends: Iterable[int]) -> list[int]:
        known = set(ends)
        return sorted(min((row.index(token) for token in known if token in row), default=len(row)) for row in rows)

    def first_of(ends: Sequence[int]) -> set[int]:
        found = [[token for token in row if token in ends] for row in rows]
        return {row[0] for row in found if row}

    pairs = [pair for pair in combinations(said, 2) if first_of(pair) == set(pair)]
    if pairs:
        return list(max(pairs, key=lengths))
    return said[:1]


def _said(folder: Path) -> list[list[int]]:
    """What the model says to each prompt of the zoo, greedily, each prompt by itself."""
    import torch
    import transformers
    from transformers import AutoConfig

    library: Any = transformers
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    name = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    kind = getattr(library, name)
    model = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, dtype="float32").eval()
    rows = []
    with torch.no_grad():
        for prompt in PROMPTS:
            ids = torch.tensor([prompt])
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=_NEW_TOKENS,
                min_new_tokens=_NEW_TOKENS,
            )
            rows.append(output[0, 1 if config.is_encoder_decoder else len(prompt) :].tolist())
    return rows


def _with_chat(folder: Path) -> None:
    change(folder / TOKENIZER, lambda content: content.pop("chat_template", None))
    (folder / "chat_template.jinja").write_text(CHAT, encoding="utf-8")


def _sampled(folder: Path) -> None:
    settings = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    change(folder / GENERATION, lambda content: content.update(settings))


def _one_vocabulary(config: PreTrainedConfig) -> str | None:
    size = getattr(config.get_text_config(), "vocab_size", None)
    if config.is_encoder_decoder or size != VOCAB_SIZE:
        return "it has not one vocabulary for what it reads and what it says"
    return None


def _enlarged(folder: Path) -> None:
    """Add rows behind those of the tokenizer's tokens, so small that none of them is ever said."""
    import torch
    from transformers import AutoModelForCausalLM

    untyped: Any = AutoModelForCausalLM
    model = untyped.from_pretrained(folder, local_files_only=True, dtype="float32")
    model.resize_token_embeddings(LARGE_VOCABULARY, mean_resizing=False)
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for module in tables:
            weight = getattr(module, "weight", None)
            if weight is not None and weight.shape[0] == LARGE_VOCABULARY:
                weight[VOCAB_SIZE:] = 0.25 * weight[EOS_TOKEN_ID]
            if (bias := getattr(module, "bias", None)) is not None and bias.shape[0] == LARGE_VOCABULARY:
                bias[VOCAB_SIZE:] = 0
    model.save_pretrained(folder)


TRAITS: Final = (
    Trait(
        "no-pad",
        "no padding token, in tokenizer, configuration and generation configuration",
        "Llama, Mistral and GPT-2 were published without one, and whoever batches has to choose.",
        "https://huggingface.co/openai-community/gpt2/blob/main/tokenizer_config.json",
        "decoders",
        refusal=_encodes,
        rewrite=_without_pad,
    ),
    Trait(
        "right",
        "the tokenizer pads on the right",
        "It is transformers' default, and most checkpoints say it or nothing; a decoder needs the left.",
        "https://huggingface.co/docs/transformers/llm_tutorial",
        rewrite=_on_the_right,
    ),
    Trait(
        "eos-list",
        "a list of end tokens, two of which the model says",
        "Llama 3 ends a text, a message and a turn with tokens of their own.",
        "https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct/blob/main/generation_config.json",
        rewrite=_several_ends,
    ),
    Trait(
        "chat",
        "a chat template with special tokens around turns and a system prompt of its own",
        "Qwen's checkpoints have ChatML, whose template adds a system prompt where none is given.",
        "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct/blob/main/tokenizer_config.json",
        rewrite=_with_chat,
    ),
    Trait(
        "sampling",
        "the generation configuration samples: temperature, top-k and top-p",
        "Qwen, Llama and DeepSeek publish one, and `generate` without arguments then draws.",
        "https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/generation_config.json",
        rewrite=_sampled,
    ),
    Trait(
        "large-vocab",
        "more rows in the vocabulary than the tokenizer has tokens",
        "Qwen and Phi round the vocabulary up for the sake of kernels.",
        "https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json",
        "decoders with one vocabulary",
        refusal=_one_vocabulary,
        rewrite=_enlarged,
    ),
)
