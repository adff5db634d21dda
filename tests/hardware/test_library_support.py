"""Each rule of the capability table against the library that it speaks of: one no longer true fails."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version

from pytest_llmdevice.hardware import Device, Inventory
from pytest_llmdevice.hardware.host import installed_versions
from pytest_llmdevice.hardware.library_support import FLASH_ATTENTION, rules_for, unsupported
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import built_in, current, in_force

MakeDevice = Callable[..., Device]
MakeMachine = Callable[..., Inventory]

CPU = Cell("llama", "cpu", "bfloat16")
INSTALLED = Inventory(versions=installed_versions())

LoadModel = Callable[..., Any]


def rules_that_speak(cell: Cell, inventory: Inventory) -> set[str]:
    return {rule.name for rule in rules_for(cell) if rule.reason(cell, inventory)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a two-layer checkpoint of a family, once."""
    transformers = importlib.import_module("transformers")
    attention = {"num_attention_heads": 4, "num_key_value_heads": 4}
    latent = {"q_lora_rank": 64, "kv_lora_rank": 64, "v_head_dim": 16}
    heads = {"qk_rope_head_dim": 32, "qk_nope_head_dim": 16}
    experts = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
    families: dict[str, tuple[str, dict[str, Any]]] = {
        "llama": ("Llama", {"intermediate_size": 64, **attention}),
        "mamba": ("Mamba", {"state_size": 8, "time_step_rank": 4}),
        "deepseek-v3": (
            "DeepseekV3",
            {"intermediate_size": 64, "moe_intermediate_size": 64, **attention, **latent, **heads, **experts}
            | {"first_k_dense_replace": 1},
        ),
    }
    built: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in built:
            name, options = families[family]
            config = getattr(transformers, f"{name}Config")(
                vocab_size=64, hidden_size=64, num_hidden_layers=2, **options
            )
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(family)
            getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
            built[family] = folder
        return built[family]

    return build


@pytest.fixture
def load(tiny: Callable[[str], Path], tmp_path: Path) -> Iterator[LoadModel]:
    """Loads a tiny model of a family as a plain user would."""
    transformers = importlib.import_module("transformers")
    # Whatever a test does to the generator must not be seen by the next.
    with torch.random.fork_rng():

        def load_model(family: str, quantization: str = "none", offload: bool = False, **options: Any) -> Any:
            if quantization != "none":
                pytest.importorskip("bitsandbytes")
                four_bit = {"load_in_4bit": True, "bnb_4bit_quant_type": quantization}
                options["quantization_config"] = transformers.BitsAndBytesConfig(
                    **({"load_in_8bit": True} if quantization == "int8" else four_bit),
                    llm_int8_enable_fp32_cpu_offload=offload,
                )
            if "device_map" in options:
                options["offload_folder"] = tmp_path
            return transformers.AutoModelForCausalLM.from_pretrained(
                tiny(family), dtype=torch.bfloat16, local_files_only=True, **options
            ).eval()

        yield load_model


def generate_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(8)[None]).logits
    return logits


PARTS = (
    "model.embed_tokens",
    "model.layers.0",
    "model.layers.1",
    "model.norm",
    "model.rotary_emb",
    "lm_head",
)
HALF_ON_DISK = dict.fromkeys(PARTS, "cpu") | {"model.layers.1": "disk"}


def test_every_rule_has_a_name_of_its_own_and_a_source() -> None:
    registry = current()
    entries = [entry for table in ("strategy", "quantization", "family") for entry in registry.entries(table)]
    rules = {id(rule): rule for entry in entries for rule in entry.rules} | {id(FLASH_ATTENTION): FLASH_ATTENTION}
    assert len({rule.name for rule in rules.values()}) == len(rules) >= 12
    assert all(rule.source for rule in rules.values())


def test_a_plain_cell_breaks_no_rule() -> None:
    assert unsupported(CPU, INSTALLED) is None


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_split_needs_a_kind_with_several_devices(device: str) -> None:
    assert rules_that_speak(replace(CPU, device=device, kind=device, strategy="split"), INSTALLED) == {
        "split-needs-cards"
    }


@pytest.mark.parametrize(("device", "speaks"), [("cpu", True), ("mps", True), ("cuda:0", False)])
def test_cpu_offload_needs_a_card(device: str, speaks: bool) -> None:
    cell = Cell("llama", device, "bfloat16", strategy="cpu-offload")
    assert rules_that_speak(cell, INSTALLED) == ({"cpu-offload-needs-a-card"} if speaks else set())


@pytest.mark.parametrize("offloaded", ["cpu", "disk"])
def test_accelerate_offloads_to_disk_but_not_to_the_cpu_when_the_main_device_is_the_cpu(
    offloaded: str, tmp_path: Path
) -> None:
    accelerate = importlib.import_module("accelerate")
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    accelerate.dispatch_model(
        model, {"0": "cpu", "1": offloaded}, main_device="cpu", offload_dir=tmp_path, force_hooks=True
    )
    assert model[1].weight.is_meta == (offloaded == "disk")


def test_disk_offload_on_the_cpu_is_supported_and_works(load: LoadModel) -> None:
    assert unsupported(replace(CPU, strategy="disk-offload"), INSTALLED) is None
    model = load("llama", device_map=HALF_ON_DISK)
    assert model.model.layers[1].mlp.gate_proj.weight.is_meta
    assert torch.isfinite(generate_logits(model)).all()


@pytest.mark.parametrize("quantization", ["int8", "nf4", "nf4-double", "fp4"])
def test_shared_memory_is_for_dense_weights(quantization: str, machine: MakeMachine) -> None:
    cell = replace(CPU, quantization=quantization, strategy="shared-memory")
    assert rules_that_speak(cell, machine()) == {"shared-memory-is-dense"}


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "xpu:0"])
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized_weights_are_not_offloaded(quantization: str, device: str, machine: MakeMachine) -> None:
    cell = Cell("llama", device, "bfloat16", quantization, "disk-offload")
    assert rules_that_speak(cell, machine()) == {"offloaded-weights-stay-dense"}


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_transformers_refuses_to_offload_a_quantized_model(quantization: str, load: LoadModel) -> None:
    with pytest.raises(ValueError, match="Some modules are dispatched on the CPU or the disk"):
        load("llama", quantization, device_map=HALF_ON_DISK)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_transformers_leaves_offloaded_modules_dense_when_told_to_offload(quantization: str, load: LoadModel) -> None:
    model = load("llama", quantization, offload=True, device_map=HALF_ON_DISK)
    projection = model.model.layers[1].mlp.gate_proj
    assert type(projection) is torch.nn.Linear
    assert projection.weight.dtype == torch.bfloat16


def test_the_flash_attention_package_is_needed(machine: MakeMachine, a100: Device) -> None:
    cell = Cell("llama", "cuda:0", "bfloat16", attention="flash_attention_2")
    assert unsupported(cell, machine(a100)) == (
        "flash_attention_2 needs the package flash_attn, which is not installed"
    )
    assert unsupported(cell, machine(a100, versions={"flash_attn": "2.8"})) is None


def test_flash_attention_needs_a_card_a_half_dtype_and_compute_capability_8(
    machine: MakeMachine, a100: Device, device: MakeDevice
) -> None:
    flash = Cell("llama", "cuda:0", "float16", attention="flash_attention_2")
    versions = {"flash_attn": "2.8"}
    old = device("cuda:0", capability="7.5")
    reasons = (
        unsupported(replace(flash, device="cpu", kind="cpu"), machine(versions=versions)),
        unsupported(replace(flash, simulated=True), machine(versions=versions)),
        unsupported(replace(flash, dtype="float32"), machine(a100, versions=versions)),
        unsupported(flash, machine(old, versions=versions)),
    )
    assert reasons == (
        "flash_attention_2 has kernels for cuda and rocm only, not for cpu",
        "flash_attention_2 has kernels for cuda and rocm only, not for a simulated device",
        "flash_attention_2 computes in bfloat16 and float16 only, not in float32",
        "flash_attention_2 needs compute capability 8.0, cuda:0 has 7.5",
    )


def test_flash_attention_runs_on_a_rocm_card(machine: MakeMachine, mi300: Device) -> None:
    cell = Cell("llama", "cuda:0", "float16", attention="flash_attention_2", kind="rocm")
    assert unsupported(cell, machine(mi300, versions={"flash_attn": "2.8"})) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="transformers looks for any card, not for the model's")
def test_transformers_refuses_flash_attention_on_the_cpu(load: LoadModel) -> None:
    assert unsupported(replace(CPU, attention="flash_attention_2"), INSTALLED)
    with pytest.raises(ImportError, match="FlashAttention"):
        load("llama", attn_implementation="flash_attention_2")


@pytest.mark.parametrize(
    ("family", "quantization"),
    [
        ("llama", "int8"),
        ("llama", "nf4"),
        ("mamba", "none"),
        ("mamba", "int8"),
        ("mamba", "nf4"),
        ("deepseek-v3", "none"),
        ("deepseek-v3", "int8"),
        ("deepseek-v3", "nf4"),
    ],
)
def test_a_family_that_a_quantization_breaks_on_the_cpu_is_declared_and_no_other(
    family: str, quantization: str, load: LoadModel
) -> None:
    model = load(family, quantization)
    try:
        works = bool(torch.isfinite(generate_logits(model)).all())
    except (RuntimeError, AssertionError):
        # An assertion: the kernel for AVX512-BF16 takes no layer whose outputs are no multiple of 32.
        works = False
    assert works == (unsupported(replace(CPU, model=family, quantization=quantization), INSTALLED) is None)


@pytest.mark.parametrize(("transformers", "speaks"), [("5.14.0", False), ("5.15.0", True)])
def test_quantized_mamba_is_declared_from_the_version_that_broke_it(
    transformers: str, speaks: bool, machine: MakeMachine
) -> None:
    here = machine(versions={"transformers": transformers, "bitsandbytes": "0.50.2"})
    assert bool(unsupported(replace(CPU, model="mamba", quantization="nf4"), here)) == speaks


def test_deepseek_int8_is_declared_on_every_device(machine: MakeMachine) -> None:
    card = Cell("deepseek-v3", "cuda:0", "float16", "int8")
    assert unsupported(card, machine()) is not None
    assert unsupported(replace(card, device="cpu"), machine()) is not None
    assert unsupported(replace(card, simulated=True), machine()) is not None
    old = machine(versions={"transformers": "5.14.0", "bitsandbytes": "0.50.2"})
    assert unsupported(replace(card, simulated=True), old) is None


@pytest.mark.parametrize(
    ("transformers", "bitsandbytes", "device", "speaks"),
    [
        ("5.23.0", "0.46.0", "cuda:0", {"transformers-5-needs-bitsandbytes-0.46.1"}),
        ("5.23.0", "0.46.1", "cuda:0", set()),
        ("5.0.0rc1", "0.46.0", "cuda:0", {"transformers-5-needs-bitsandbytes-0.46.1"}),
        ("4.57.6", "0.45.5", "cuda:0", set()),
        ("4.57.6", "0.45.5", "cpu", {"bitsandbytes-beyond-cuda"}),
        ("4.57.6", "0.46.0", "cpu", set()),
    ],
)
def test_old_bitsandbytes_is_declared_where_transformers_refuses_it(
    transformers: str, bitsandbytes: str, device: str, speaks: set[str]
) -> None:
    inventory = Inventory(versions={"transformers": transformers, "bitsandbytes": bitsandbytes})
    assert rules_that_speak(Cell("llama", device, "float16", "nf4"), inventory) == speaks


@pytest.mark.parametrize(
    ("version", "simulated", "speaks"),
    [("0.48.2", True, {"bitsandbytes-on-mps"}), ("0.48.2", False, set()), ("0.49.0", True, set())],
)
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantization_on_a_simulated_mps_is_declared_until_bitsandbytes_has_it(
    quantization: str, version: str, simulated: bool, speaks: set[str]
) -> None:
    inventory = Inventory(versions={"transformers": "5.23.0", "bitsandbytes": version})
    cell = Cell("llama", "mps", "float16", quantization, simulated=simulated)
    assert rules_that_speak(cell, inventory) == speaks
    assert not rules_that_speak(replace(cell, quantization="none"), inventory)


def test_the_installed_bitsandbytes_says_itself_what_it_has_on_mps() -> None:
    pytest.importorskip("bitsandbytes")
    readme = str(importlib.metadata.metadata("bitsandbytes"))
    int8, four_bit = readme.partition("<code>mps</code>")[2].split("<td>")[2:4]
    cell = Cell("llama", "mps", "float16", simulated=True)
    for planned, quantization in ((int8, "int8"), (four_bit, "nf4")):
        declared = unsupported(replace(cell, quantization=quantization), INSTALLED) is not None
        assert declared == ("\N{CONSTRUCTION SIGN}" in planned)


def test_the_floor_of_bitsandbytes_is_the_one_that_transformers_asks_for() -> None:
    if Version(INSTALLED.versions["transformers"]) < Version("5.0.0.dev0"):
        pytest.skip("transformers 4 has no such floor")
    found = importlib.import_module("transformers.utils.import_utils").BITSANDBYTES_MIN_VERSION
    assert found == "0.46.1"


def test_the_installed_bitsandbytes_has_the_feature_that_transformers_4_asks_for() -> None:
    assert "multi_backend" in pytest.importorskip("bitsandbytes").features


@pytest.mark.parametrize("strategy", ["auto", "balanced", "sequential"])
def test_a_map_that_chooses_its_cards_is_not_asked_for_on_a_later_card(strategy: str, machine: MakeMachine) -> None:
    assert unsupported(replace(CPU, device="cuda:0", kind="cuda", strategy=strategy), machine()) is None
    reason = unsupported(replace(CPU, device="cuda:1", kind="cuda", strategy=strategy), machine())
    assert reason is not None
    assert "cuda:0" in reason


@pytest.mark.parametrize(("transformers", "speaks"), [("4.57.6", True), ("5.0.0", False)])
def test_int8_is_not_moved_before_transformers_5(transformers: str, speaks: bool, machine: MakeMachine) -> None:
    here = machine(versions={"transformers": transformers, "bitsandbytes": "0.50.2"})
    assert bool(unsupported(replace(CPU, quantization="int8", strategy="to"), here)) == speaks
    assert unsupported(replace(CPU, quantization="int8", strategy="device-map"), here) is None


def test_transformers_moves_an_int8_model_or_is_declared_not_to(load: LoadModel) -> None:
    model = load("llama", "int8", device_map={"": "cpu"})
    if unsupported(replace(CPU, quantization="int8", strategy="to"), INSTALLED) is None:
        assert model.to("cpu") is model
    else:
        with pytest.raises(ValueError, match="not supported for `8-bit`"):
            model.to("cpu")


@pytest.mark.parametrize(
    ("dtype", "device", "reason"),
    [
        ("bfloat16", "cuda:0", None),
        ("float32", "cuda:0", "own computes in bfloat16, float16, and not in float32"),
        ("bfloat16", "cpu", "own is for cuda, rocm, and not for cpu"),
    ],
)
def test_a_quantization_is_kept_to_its_dtypes_and_kinds(
    dtype: str, device: str, reason: str | None, machine: MakeMachine
) -> None:
    registry = built_in()
    own = replace(
        registry.of(Quantization)["nf4"], name="own", dtypes=("bfloat16", "float16"), kinds=("cuda", "rocm"), rules=()
    )
    registry.add(own)
    with in_force(registry):
        assert unsupported(Cell("llama", device, dtype, "own"), machine()) == reason


def test_what_a_simulated_card_lacks_is_unsupported_there_and_nowhere_else() -> None:
    machine = replace(
        INSTALLED,
        simulated_devices=(
            Device("cuda:0", "cuda", "Old", capability="7.5", lacks=("bfloat16", "float8")),
            Device("cuda:1", "cuda", "New", capability="9.0"),
            Device("mps", "mps", "Chip", lacks=("float64",)),
        ),
    )
    with in_force(built_in()) as registry:
        for need in ("float8", "float64"):
            registry.add(replace(registry.of(Quantization)["none"], name=f"of-{need}", needs=(need,)))
        cells = [
            Cell("llama", device, "float32", quantization, simulated=simulated)
            for device in ("cuda:0", "cuda:1", "mps")
            for quantization in ("of-float8", "of-float64", "none")
            for simulated in (True, False)
        ]
        found = {cell: reason for cell in cells if (reason := unsupported(cell, machine))}

    assert list(found.values()) == [
        "of-float8 needs float8, and of cuda:0 (Old, compute capability 7.5) is known: no products in float8",
        "of-float64 needs float64, and of mps (Chip) is known: no float64",
    ]
    assert all(cell.simulated for cell in found)
