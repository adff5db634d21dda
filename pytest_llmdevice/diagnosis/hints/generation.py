"""Known causes of errors between a prompt and the new tokens."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

LEFT_BEHIND: Final = Hint(
    "inputs-left-behind",
    "the target handed it over on another device than the embedding's: some versions of transformers and accelerate "
    "move it, others raise; move inputs to the device of model.get_input_embeddings()",
    "https://github.com/huggingface/transformers/pull/19468",
)
CAST: Final = Hint(
    "inputs-cast",
    "token ids and positions were cast along with the rest: only floating-point inputs take the model's dtype",
    "https://github.com/OpenGVLab/InternVL/issues/602",
)
NONDETERMINISTIC: Final = Hint(
    "not-deterministic",
    "sampling is on, dropout is active, or uninitialised memory is read",
    "https://huggingface.co/docs/transformers/generation_strategies",
)
CHOICE: Final = Hint(
    "other-choice",
    "the forward pass agrees and generation does not: padding on the wrong side, a missing attention mask, "
    "wrong position ids, sampling, or a cache in another dtype",
    "https://huggingface.co/docs/transformers/llm_tutorial#wrong-padding-side",
)
RIGHT_PADDING: Final = Hint(
    "right-padding",
    "a decoder goes on behind the last column, which is padding here: set tokenizer.padding_side = 'left'",
    "https://github.com/huggingface/transformers/pull/19067",
)
MASK: Final = Hint(
    "wrong-mask",
    "tokens see padding, or do not see each other: hand over the attention_mask that the tokenizer made with the ids; "
    "generate can make one itself only where the padding token is none of the end tokens, and never for an encoder",
    "https://github.com/huggingface/transformers/pull/17426",
)
MASK_SHAPE: Final = Hint(
    "mask-shape",
    "an attention mask has a column for each token in the cache and for each new one",
    "https://huggingface.co/docs/transformers/cache_explanation",
)
POSITIONS: Final = Hint(
    "wrong-positions",
    "positions count the tokens of each row, not the columns of the batch: attention_mask.cumsum(-1) - 1",
    "https://github.com/unslothai/unsloth/pull/3795",
)
EMBEDDED: Final = Hint(
    "inputs-not-cast",
    "embedded inputs are not in the dtype that the model's own embedding gives",
    "https://github.com/OpenGVLab/InternVL/issues/602",
)
CACHE: Final = Hint(
    "cache-apart",
    "the cache was made or moved without asking each layer for its device and dtype",
    "https://github.com/huggingface/transformers/issues/32624",
)
AUTOCAST: Final = Hint(
    "autocast",
    "autocast was left on, or is part of the target: the model computes in another dtype than it was loaded in",
    "https://docs.pytorch.org/docs/stable/amp.html",
)
PROMPT_IN_FRONT: Final = Hint(
    "prompt-in-front",
    "the prompt, or the start token, is in front of the new tokens: cut it, output[:, prompt_length:], where the "
    "length is that of the padded batch",
    "https://github.com/SearchSavior/OpenArc/pull/4",
)
PADDING: Final = Hint(
    "padding-seen",
    "tokens see the padding of their row, or are counted from its first column: the mask or the positions do not reach "
    "every layer",
    "https://github.com/ndif-team/nnsight/pull/673",
)
MASKED_ROW: Final = Hint(
    "masked-row",
    "a softmax over a row in which everything is hidden by -inf is nan, and spreads: hide with torch.finfo(dtype).min, "
    "or let padding see itself",
    "https://github.com/pytorch/pytorch/issues/103749",
)
STOP: Final = Hint(
    "end-tokens",
    "the loader replaced the end tokens that the checkpoint's generation_config.json declares: generation stops at "
    "another place, or never",
    "https://github.com/huggingface/lighteval/pull/1279",
)
PROCESSORS: Final = Hint(
    "logits-processors",
    "what is made of the logits before a token is chosen, or a tensor that is kept for it, is on another device",
    "https://github.com/huggingface/transformers/pull/38558",
)
BEAMS: Final = Hint(
    "beams",
    "a cache is not reordered with the beams, or the index of the beams is on another device than a layer's cache",
    "https://github.com/huggingface/transformers/issues/46612",
)
STOP_IGNORED: Final = Hint(
    "end-ignored",
    "an end token does not end its row, or what follows it is no padding",
    "https://github.com/Lightning-AI/litgpt/pull/812",
)
MANY_PROMPTS: Final = Hint(
    "rows-lost-or-mixed",
    "with more prompts than fit into one of its batches, or with equal ones, the target loses rows or gives them to "
    "others: the last batch is not full, results are kept by prompt or by length, or two lists are zipped",
    "https://github.com/ml-explore/mlx-lm/issues/1689",
)
ROW_ORDER: Final = Hint(
    "rows-in-another-order",
    "results come back in the order in which they were made (sorted by length, or as they were done) and not in that "
    "of the prompts",
    "https://github.com/vllm-project/vllm/issues/394",
)
SHIFTED: Final = Hint(
    "row-shifted",
    "the right tokens, cut at the wrong place: the output is cut one token too late or too early, or a start token "
    "that the prompt or the decoder has already is counted as new",
    "https://github.com/SearchSavior/OpenArc/pull/4",
)
ENDED_TOGETHER: Final = Hint(
    "batch-ends-with-one-row",
    "the loop stops when any row ends (`if next_token == eos: break`): it must go on until all rows have ended, and "
    "fill those that have with padding",
    "https://github.com/Lightning-AI/lit-llama/pull/153",
)
OTHER_TEXT: Final = Hint(
    "another-text-than-the-prompt",
    "already the first new token is chosen after something else than this prompt: it was cut to a length that is not "
    "the model's, a token was put in front of it or fed twice, or its positions are counted in a half",
    "https://github.com/stanford-crfm/helm/issues/367",
)
RESPONSES: Final = Hint(
    "answers-kept-by-prompt",
    "answers are kept under the prompt alone, and given for another model, dtype or device too",
    "https://github.com/deeppavlov/AutoIntent/issues/334",
)
IN_FRONT: Final = Hint(
    "token-in-front-of-the-prompt",
    "prompts are token ids already, and a start token or a template is put in front of them once more "
    "(add_special_tokens=True on a text that has them)",
    "https://github.com/ggml-org/llama.cpp/pull/7107",
)
