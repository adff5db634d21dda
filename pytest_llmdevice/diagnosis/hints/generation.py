"""Known causes of errors between a prompt and the new tokens."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

LEFT_BEHIND: Final = Hint(
    "inputs-left-behind",
    "the target handed it over on another device than the embedding's: some versions of transformers and accelerate "
    "move it, others raise; move inputs to the device of model.get_input_embeddings()",
    "https://github.com/huggingface/transformers/pull/19468",
    when="a tensor among the traced arguments is on another device than the input embedding",
)
CAST: Final = Hint(
    "inputs-cast",
    "token ids and positions were cast along with the rest: only floating-point inputs take the model's dtype",
    "https://github.com/OpenGVLab/InternVL/issues/602",
    when="traced ids or positions are floating-point numbers",
)
RANDOM: Final = Hint(
    "not-deterministic",
    "random numbers are drawn while it generates: sampling is on (do_sample), or dropout is active",
    "https://huggingface.co/docs/transformers/generation_strategies",
    when="the same prompts got other tokens the second time, and one of torch's random generators was used meanwhile",
)
UNREPEATED: Final = Hint(
    "not-repeated",
    "something is kept from one call to the next (a history, a counter, a list), memory is read that was never "
    "written, or random numbers come from a generator of the code's own, or from one that it seeds anew",
    "https://github.com/jina-ai/rungpt/pull/49",
    when="the same prompts got other tokens the second time, or with the same seed, and no random number explains it",
    inferred="cell",
)
KEPT: Final = Hint(
    "kept-between-calls",
    "the history of one request is the beginning of the next: make the cache anew, or reset it, in each call",
    "https://github.com/jina-ai/rungpt/pull/49",
    when=(
        "the same prompts got other tokens the second time, no random number was drawn, and the first pass of the "
        "second call had a history or other ids"
    ),
)
SETTINGS: Final = Hint(
    "other-choice",
    "the model says the right thing and another token comes back: a penalty, a forbidden or forced token, or sampling, "
    "left on in the generation configuration or given with the call, or tokens that are changed afterwards",
    "https://huggingface.co/docs/transformers/generation_strategies",
    when=(
        "the logits of a step are those of a forward pass over the same tokens, and the token that was taken is "
        "not the one with the largest"
    ),
    inferred="cell",
)
BATCH: Final = Hint(
    "other-in-a-batch",
    "alone the prompt is answered right, and in a padded batch it is not: padding on the wrong side, a mask that is "
    "missing or does not hide the padding, or positions that count it",
    "https://huggingface.co/docs/transformers/llm_tutorial#wrong-padding-side",
    when="forward passes and the tokens of the prompt by itself are right, and its tokens in a padded batch are not",
    inferred="cell",
)
RIGHT_PADDING: Final = Hint(
    "right-padding",
    "a decoder goes on behind the last column, which is padding here: set tokenizer.padding_side = 'left'",
    "https://github.com/huggingface/transformers/pull/19067",
    when="the traced ids or mask of a `generate` end with padding",
)
MASK: Final = Hint(
    "wrong-mask",
    "tokens see padding, or do not see each other: hand over the attention_mask that the tokenizer made with the ids; "
    "generate can make one itself only where the padding token is none of the end tokens, and never for an encoder",
    "https://github.com/huggingface/transformers/pull/17426",
    when=(
        "a traced mask does not hide the padding of its ids, hides tokens of a prompt, or is missing where there "
        "is padding"
    ),
)
MASK_SHAPE: Final = Hint(
    "mask-shape",
    "an attention mask has a column for each token in the cache and for each new one",
    "https://huggingface.co/docs/transformers/cache_explanation",
    when="a traced mask has another number of rows or columns than its ids and the cache have",
)
POSITIONS: Final = Hint(
    "wrong-positions",
    "positions count the tokens of each row, not the columns of the batch: attention_mask.cumsum(-1) - 1",
    "https://github.com/unslothai/unsloth/pull/3795",
    when="traced position ids are not the numbers of the tokens in their rows",
)
EMBEDDED: Final = Hint(
    "inputs-not-cast",
    "embedded inputs are not in the dtype that the model's own embedding gives",
    "https://github.com/OpenGVLab/InternVL/issues/602",
    when="traced embedded inputs are in another dtype than the embedding's output",
)
CACHE: Final = Hint(
    "cache-apart",
    "the cache was made or moved without asking each layer for its device and dtype",
    "https://github.com/huggingface/transformers/issues/32624",
    when="a tensor of a traced cache is on another device than its layer computes on",
)
AUTOCAST: Final = Hint(
    "autocast",
    "autocast was left on, or is part of the target: the model computes in another dtype than it was loaded in",
    "https://docs.pytorch.org/docs/stable/amp.html",
    when="a module ran under autocast to another dtype than the cell's while the target generated",
)
PROMPT_IN_FRONT: Final = Hint(
    "prompt-in-front",
    "the prompt, or the start token, is in front of the new tokens: cut it, output[:, prompt_length:], where the "
    "length is that of the padded batch",
    "https://github.com/SearchSavior/OpenArc/pull/4",
    when=(
        "more tokens came back than were asked for, and the prompt, or the decoder's start token, is in front of them"
    ),
)
PADDING: Final = Hint(
    "padding-seen",
    "tokens see the padding of their row, are counted from its first column, or see each other otherwise than without "
    "padding: the mask or the positions do not reach every layer, or the mask of the padding replaces the causal one",
    "https://github.com/ndif-team/nnsight/pull/673",
    when=(
        "logits of a padded batch are finite and differ from those of its prompts alone by more than noise, and a "
        "plain load's do not"
    ),
    inferred="parts",
)
MASKED_ROW: Final = Hint(
    "masked-row",
    "a softmax over a row in which everything is hidden by -inf is nan, and spreads: hide with torch.finfo(dtype).min, "
    "or let padding see itself",
    "https://github.com/pytorch/pytorch/issues/103749",
    when="logits are nan or inf, or others, where a row of the batch is all padding or its mask holds -inf",
    inferred="cell",
)
STOP: Final = Hint(
    "end-tokens",
    "the end tokens in use are not those that the checkpoint's generation_config.json declares (replaced by the "
    "loader, or given with the call): generation stops at another place, or never",
    "https://github.com/huggingface/lighteval/pull/1279",
    when=(
        "the generation configuration lacks an end token of the checkpoint's, or a row that is right so far is "
        "filled with padding before any end token of the model"
    ),
)
PROCESSORS: Final = Hint(
    "logits-processors",
    "what is made of the logits before a token is chosen, or a tensor that is kept for it, is on another device",
    "https://github.com/huggingface/transformers/pull/38558",
    when="a token that was forbidden was generated, or one that was to be forced was not",
    inferred="cell",
)
BEAMS: Final = Hint(
    "beams",
    "a cache is not reordered with the beams, or the index of the beams is on another device than a layer's cache",
    "https://github.com/huggingface/transformers/issues/46612",
    when="two beams find less likely tokens with a cache than without one",
    inferred="cell",
)
STOP_IGNORED: Final = Hint(
    "end-ignored",
    "an end token does not end its row, or what follows it is no padding",
    "https://github.com/Lightning-AI/litgpt/pull/812",
    when="a token that was given as end token did not end its row",
    inferred="cell",
)
MANY_PROMPTS: Final = Hint(
    "rows-lost-or-mixed",
    "with more prompts than fit into one of its batches, or with equal ones, the target loses rows or gives them to "
    "others: the last batch is not full, results are kept by prompt or by length, or two lists are zipped",
    "https://github.com/ml-explore/mlx-lm/issues/1689",
    when=(
        "other than one row for each prompt, an empty row, a row of another prompt whose own is nowhere, or one that "
        "is right alone and in a small batch and wrong among many"
    ),
    inferred="cell",
)
TOO_MANY: Final = Hint(
    "too-many-new-tokens",
    "max_new_tokens does not arrive, or only where there are few prompts, or is counted another way (max_length counts "
    "the prompt too, a loop that goes once too often)",
    "https://huggingface.co/docs/transformers/main_classes/text_generation",
    when="more tokens came back than were asked for, and the prompt is not among them",
)
ROW_ORDER: Final = Hint(
    "rows-in-another-order",
    "results come back in the order in which they were made (sorted by length, or as they were done) and not in that "
    "of the prompts",
    "https://github.com/vllm-project/vllm/issues/394",
    when="a row holds the tokens of another prompt, and each prompt has as many rows as it has to",
)
SHIFTED: Final = Hint(
    "row-shifted",
    "the right tokens, cut at the wrong place: the output is cut one token too late or too early, or a start token "
    "that the prompt or the decoder has already is counted as new",
    "https://github.com/SearchSavior/OpenArc/pull/4",
    when="all rows are right from their second token on, or behind their first",
)
ENDED_TOGETHER: Final = Hint(
    "batch-ends-with-one-row",
    "the loop stops when any row ends (`if next_token == eos: break`): it must go on until all rows have ended, and "
    "fill those that have with padding",
    "https://github.com/Lightning-AI/lit-llama/pull/153",
    when="a row that is right beside others that do not end is as right, and shorter, where one ends",
    inferred="cell",
)
ENDS_MISSED: Final = Hint(
    "end-tokens-missed",
    "the loop stops at some of the end tokens only: at the first of a list, at the tokenizer's, at those of one "
    "configuration, or only at the last token of a block; stop at every id of generation_config.eos_token_id, wherever "
    "it stands",
    "https://github.com/Blaizzy/mlx-vlm/pull/309",
    when="a row ends at one of several end tokens and goes on behind another one",
)
END_DROPPED: Final = Hint(
    "end-token-dropped",
    "the end token is removed from the row, which cannot be told from one that was cut short: keep it",
    "https://huggingface.co/docs/transformers/main_classes/text_generation",
    when="a row ends right before its end token",
)
GOES_ON: Final = Hint(
    "ended-row-goes-on",
    "rows that have ended are fed and read on while others have not: keep a mark for each row, and fill those that "
    "have ended with padding",
    "https://github.com/Lightning-AI/lit-llama/pull/153",
    when="a row ends at an end token by itself, and goes on behind it in a batch",
)
CUT: Final = Hint(
    "prompt-cut",
    "the prompt is cut before it is handed to the model, to a context length that is not the model's (truncation=True, "
    "max_length=, tokenizer.model_max_length)",
    "https://github.com/stanford-crfm/helm/issues/367",
    when="the ids that were handed to the model are a part of the prompt",
)
RESPONSES: Final = Hint(
    "answers-kept-by-prompt",
    "answers are kept under the prompt alone, and given for another model, dtype or device too",
    "https://github.com/deeppavlov/AutoIntent/issues/334",
    when="an answer came back and the model that it was asked of was never called",
)
IN_FRONT: Final = Hint(
    "token-in-front-of-the-prompt",
    "prompts are token ids already, and a start token or a chat template is put in front of them once more "
    "(add_special_tokens=True on a text that has them, apply_chat_template)",
    "https://github.com/ggml-org/llama.cpp/pull/7107",
    when="the ids that were handed to the model have tokens in front of the prompt that are no padding",
)
