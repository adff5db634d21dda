"""Known causes of changes that a load or a generation leaves in the model or the process."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

TRAINING: Final = Hint(
    "training-mode",
    "dropout is active where the model has any, and caches may be off: the same prompt gives other logits each time; "
    "call model.eval()",
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.eval",
    when="a module that minds it is in training mode",
)
ENVIRONMENT: Final = Hint(
    "environment-changed",
    "the environment belongs to the whole process: which cards are visible, and what their numbers mean, is another "
    "for whatever is loaded next; hand the choice over as an argument",
    "https://github.com/aschampion/diluvian/issues/11",
    when="a variable of the environment changed during the load or a generation",
)
DEFAULT_DTYPE: Final = Hint(
    "default-dtype-left",
    "torch.set_default_dtype was not set back: every tensor that is made from now on without a dtype has this one; "
    "set it back in a finally block, or ask from_pretrained for the dtype",
    "https://github.com/huggingface/transformers/issues/28461",
    when="torch's default dtype changed",
)
DEFAULT_DEVICE: Final = Hint(
    "default-device-left",
    "torch.set_default_device was not set back, or a torch.device context was entered and not left: every tensor that "
    "is made from now on without a device is on this one; use `with torch.device(...)` around the load only",
    "https://github.com/pytorch/pytorch/pull/174317",
    when="torch's default device changed",
)
CURRENT_CARD: Final = Hint(
    "current-card-changed",
    "set_device changes what `cuda` without an index means for the whole process; name the index instead, or use "
    "`with torch.cuda.device(...)`",
    "https://github.com/pytorch/tensorpipe/pull/254",
    when="the current card changed",
)
PATCHED: Final = Hint(
    "function-left-patched",
    "a function of a library was replaced for the load (initialisers that do nothing, parameters that go to meta) and "
    "not put back: the next model is made with it; restore it in a finally block, or use a context such as "
    "torch.nn.utils.skip_init or accelerate.init_empty_weights",
    "https://github.com/pytorch/pytorch/issues/29523",
    when="a function of a library is another one after the load or a generation",
)
MODE: Final = Hint(
    "mode-left-on",
    "a context that sees every call of torch was entered and not left; use it in a `with` block",
    "https://docs.pytorch.org/docs/stable/notes/extending.html#extending-all-torch-api-with-modes",
    when="a mode of torch's that sees calls is on afterwards, and was not before",
)
AUTOCAST: Final = Hint(
    "autocast-left-on",
    "autocast was switched on for the whole process: operations of whatever runs next are in another dtype than its "
    "tensors; use it in a `with` block around the forward pass",
    "https://docs.pytorch.org/docs/stable/amp.html",
    when="autocast is on afterwards, and was not before",
)
FOLDER: Final = Hint(
    "working-folder-changed",
    "relative paths mean something else from now on; give libraries absolute paths instead of os.chdir",
    "https://docs.python.org/3/library/contextlib.html#contextlib.chdir",
    when="the working folder changed",
)
CHECKPOINT: Final = Hint(
    "checkpoint-changed",
    "whoever loads this folder next gets another model; change the configuration in memory and hand it to "
    "from_pretrained as config=, and write converted weights to a folder of their own",
    "https://huggingface.co/docs/huggingface_hub/guides/manage-cache",
    when="a file of the checkpoint was written or removed by the load",
)
COLLECTOR: Final = Hint(
    "garbage-collection-off",
    "offloaded models are part of cycles, which only the garbage collector frees: with it off they stay in memory",
    "https://docs.python.org/3/library/gc.html#gc.disable",
    when="the garbage collector is off afterwards, and was not before",
)
CACHED: Final = Hint(
    "served-from-a-cache",
    "the loader keeps its models under a key that leaves something out (dtype, device, quantization), and returns or "
    "changes one that was loaded for another request",
    "https://github.com/PriorLabs/TabPFN/pull/1219",
    when=(
        "a load returned, or changed, the model of an earlier one, or its tensors have the dtype that was asked "
        "for before"
    ),
)
RANDOM: Final = Hint(
    "global-random-numbers",
    "the load or the generation seeds, or draws from, the process' random numbers: whatever samples or shuffles later "
    "in the process is no longer what its own seed says; use a generator of one's own, or put the state back",
    "https://docs.pytorch.org/docs/stable/notes/randomness.html",
    when=(
        "a load seeded torch and drew nothing itself, or random numbers of torch, Python or NumPy were drawn or seeded "
        "and the matrix says that they are kept"
    ),
)
HOOKS: Final = Hint(
    "hooks-left-on-the-model",
    "a generation registers hooks on the model and does not remove all of them: each answer takes longer than the one "
    "before, and they keep what they refer to",
    "https://github.com/huggingface/peft/pull/2761",
    when="modules have more hooks after a generation than before it",
)
METHOD: Final = Hint(
    "method-of-a-class-replaced",
    "a method of a class of the library was replaced: every model of that class in the process has it, also those that "
    "somebody else loads; set it on the modules of the model, or derive a class",
    "https://github.com/mosaicml/llm-foundry/pull/520",
    when="a class of the library has a method that is not the library's after a load, and not before it",
)
OFFLOADED_TOGETHER: Final = Hint(
    "offloaded-to-one-folder",
    "weights are offloaded to a folder, or kept in a table, that two models share: entries have the names of tensors, "
    "and the later model's replace those of the earlier one, or are not made because they are there",
    "https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/offload.py",
    when="offloaded weights of one checkpoint are those of another one that was loaded beside it",
)
KEPT_ALIVE: Final = Hint(
    "model-kept-alive",
    "something still refers to a model after the next one was loaded (a cache, a list, a closure, a registered hook): "
    "its memory is never given back",
    "https://github.com/facebookresearch/ParlAI/pull/2487",
    when="an object holds a model after the next one was loaded",
    inferred="raised",
)
OTHER_AGAIN: Final = Hint(
    "other-the-second-time",
    "what a load leaves behind, in the loader or the process, changes the next one: a setting kept from the first "
    "call, weights changed in place, an initialisation that is done only once",
    "https://github.com/PriorLabs/TabPFN/pull/1219",
    when="the same cell, or one that comes after it, is loaded wrong only where another load came before",
    inferred="cell",
)
MODEL: Final = Hint(
    "model-changed-by-generating",
    "generate casts, moves or switches the model that it was given, and leaves it so: whoever uses the model next has "
    "another one; do that once in load, or put it back in a finally block",
    "https://github.com/rasbt/reasoning-from-scratch/issues/118",
    when="tensors, dtypes, devices or modes of the model are others after the target has generated",
)
PRECISION: Final = Hint(
    "matrix-products-less-exact",
    "float32 matrices are multiplied with fewer digits from now on, in every model of the process (TF32 on cards, "
    "bfloat16 on some processors too): leave that to the program that loads the model, or set it back",
    "https://github.com/facebookresearch/fairchem/pull/2108",
    when="the precision of float32 matrix products changed",
)
GRADIENTS: Final = Hint(
    "gradient-mode-left",
    "whether gradients are computed belongs to the whole process: whatever is trained or run next has none, or keeps a "
    "graph of all that it computes; use `with torch.no_grad()` or a decorator around the forward pass",
    "https://docs.pytorch.org/docs/stable/notes/autograd.html#locally-disabling-gradient-computation",
    when="gradients, inference mode or anomaly detection are switched otherwise than before",
)
THREADS: Final = Hint(
    "threads-changed",
    "the number of threads belongs to the program that loads the model, as do the processors that it may use: set it "
    "back, or leave it to OMP_NUM_THREADS",
    "https://docs.pytorch.org/docs/stable/generated/torch.set_num_threads.html",
    when="torch has another number of threads, or the process may use other processors, than before",
)
GLOBAL: Final = Hint(
    "process-setting-changed",
    "this setting belongs to the whole process, and was not set back: handlers of signals, streams, the root logger "
    "and filters of warnings are those of the program that loads the model; change them in a `with` block, or for a "
    "logger of one's own",
    "https://docs.python.org/3/howto/logging.html#configuring-logging-for-a-library",
    when="a handler of a signal, a stream, a logger, a locale, a limit or another setting is another one than before",
)
HOOK: Final = Hint(
    "global-hook-left",
    "hooks for all modules see every model of the process: remove them by the handle that registering gave, or "
    "register them on the modules of one's own",
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.modules.module.register_module_forward_hook.html",
    when="torch's hooks for all modules are others than before",
)
GRAPH: Final = Hint(
    "graph-kept",
    "gradients are on while it generates, and what is kept (a cache, a buffer, an output) holds the graph of all that "
    "was computed: memory grows with each call; generate in `with torch.inference_mode():`, or detach what is kept",
    "https://docs.pytorch.org/docs/stable/notes/faq.html#my-model-reports-cuda-runtime-error-2-out-of-memory",
    when="a tensor that the model or the target holds after generating has an autograd graph, and none had before",
)
