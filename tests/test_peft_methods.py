"""Fine-tuning methods: what they start from, what they train and compute, and what the paper counts."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_uniultra.core.settings import ConfigError
from napari_uniultra.core.types import Prompt
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import AdapterConfig, ModelConfig
from napari_uniultra.model.loaded import Model
from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.segment.predictor import Predictor
from napari_uniultra.training.peft_methods import METHODS, apply_method
from napari_uniultra.training.peft_methods.branches import LowRank, QueryValue
from napari_uniultra.training.peft_methods.conv_lora import Gate, _unevenness
from napari_uniultra.training.peft_methods.dd_adapter import DDAdapter
from napari_uniultra.training.peft_methods.e2vpt import PrunedAttention
from napari_uniultra.training.peft_methods.hugging_face import _import_peft
from napari_uniultra.training.peft_methods.method import Method, trainable_parameters
from napari_uniultra.training.peft_methods.settings import MethodSettings
from napari_uniultra.training.peft_methods.table import PAPER, method_counts, method_table
from napari_uniultra.training.peft_methods.vpt import PromptedAttention

SIDE = 64
PLAIN = ModelConfig(
    "sam2.1-tiny",
    image_size=SIDE,
    embed_dim=8,
    stages=(1, 1, 2, 1),
    global_att_blocks=(2,),
    window_spec=(8, 4, 2, 2),
)
WITH_ADAPTERS = PLAIN.with_(architecture="uniultra-mini", adapter=AdapterConfig())
CONFIGS = {"SAM2": PLAIN, "UniUltra": WITH_ADAPTERS}
OPTIONS = {"peft:OFT": {"block": 4}}  # the widths here are small
NEEDS_PEFT = [name for name in METHODS if name.startswith("peft:")]
REWRITTEN = ("peft:DoRA", "peft:OFT")  # they compute the same numbers in another way


@pytest.fixture(scope="module")
def bases() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    networks = {kind: build_network(config) for kind, config in CONFIGS.items()}
    for network in networks.values():  # the object is always there: an absent one's logits are all alike
        nn.init.constant_(network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 1000)
    return networks


@pytest.fixture(params=list(CONFIGS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def applied(
    bases: dict[str, nn.Module], name: str, kind: str = "SAM2", memory: str = "frozen", **options: object
) -> tuple[nn.Module, Method]:
    if name in NEEDS_PEFT and find_spec("peft") is None:
        pytest.skip("the optional package peft is not installed")
    network = copy.deepcopy(bases[kind])
    torch.manual_seed(1)
    method = apply_method(network, CONFIGS[kind], MethodSettings(name, {**OPTIONS.get(name, {}), **options}, memory))
    return network, method


def trained(network: nn.Module) -> None:
    """Change everything that is trained a little, as training would."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def frame() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def logits(network: nn.Module) -> Tensor:
    """The answer to a box through sam2's own forward pass, as in training: (1, 1, 16, 16)."""
    encoded = network.forward_image(prepare_images(torch.from_numpy(frame())[None], SIDE))
    _, features, _, sizes = network._prepare_backbone_features(encoded)
    maps = [feature.permute(1, 2, 0).unflatten(2, size) for feature, size in zip(features, sizes, strict=True)]
    points = torch.tensor([[[8.0, 8.0], [40.0, 48.0]]])
    outputs = network._forward_sam_heads(
        backbone_features=maps[-1] + network.no_mem_embed.view(1, -1, 1, 1),
        point_inputs={"point_coords": points, "point_labels": torch.tensor([[2, 3]], dtype=torch.int32)},
        high_res_features=maps[:-1],
        multimask_output=False,
    )
    return outputs[3]


@torch.no_grad()
def answer(network: nn.Module) -> Tensor:
    return logits(network.eval())


# --- starting, training, merging


@pytest.mark.parametrize("name", METHODS)
def test_an_untrained_method_changes_nothing(name: str, kind: str, bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, name, kind)
    before, after = answer(bases[kind]), answer(network)
    if not method.starts_equal:
        assert not torch.equal(before, after)
    elif name in REWRITTEN:
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_what_is_trained_and_nothing_else(name: str, kind: str, bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, name, kind)
    trained(network)
    network.train()
    loss = logits(network).square().mean()
    extra = method.extra_loss(network)
    assert (extra is not None) == (name == "conv_lora")
    (loss if extra is None else loss + extra).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for parameter_name, parameter in network.named_parameters():
        assert (gradients[parameter_name] is None) or parameter.requires_grad
    added = [parameter for parameter in method._added if parameter in gradients and "dense_kernels" not in parameter]
    # Of Conv-LoRA's experts, only the chosen ones work; updates of the last rows of a padded rotation may be unused.
    dead = [parameter for parameter in added if gradients[parameter] is None and ".experts." not in parameter]
    assert not dead
    if name not in ("full", "decoder_only", "ch_adapter"):
        assert added


@pytest.mark.parametrize("name", METHODS)
def test_the_viewer_computes_what_training_computes(name: str, kind: str, bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, name, kind)
    trained(network)
    predictor = Predictor(Model(network.eval(), method.config, torch.device("cpu"), "test", "", {}))
    embedding = predictor.embed(frame())
    prompt = Prompt(box=(8.0, 8.0, 40.0, 48.0))
    found = predictor.predict(embedding, predictor.unconditioned(embedding), prompt, (SIDE, SIDE)).logits
    expected = answer(network)
    assert not torch.allclose(expected, answer(bases[kind]), atol=1e-3), "training has changed something"
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_merging_leaves_a_plain_network(name: str, kind: str, bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, name, kind)
    trained(network)
    expected = answer(network)
    if not method.can_merge:
        with pytest.raises(ConfigError, match=r"cannot be merged.*Save it as an adapter"):
            method.merge(network)
        return
    method.merge(network)
    plain = build_network(method.config)
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(answer(plain), expected, atol=2e-4, rtol=1e-4)


def test_what_can_be_merged(bases: dict[str, nn.Module]) -> None:
    mergeable = {name for name in METHODS if applied(bases, name)[1].can_merge}
    assert mergeable == set(METHODS) - {"vpt", "e2vpt", "conv_lora", "dd_adapter"}
    assert not applied(bases, "adapter", "UniUltra")[1].can_merge


@pytest.mark.parametrize("name", ["decoder_only", "ch_adapter", "sam2lora", "full"])
def test_the_memory_is_trained_when_asked(name: str, bases: dict[str, nn.Module]) -> None:
    for memory in ("frozen", "trained"):
        network, _ = applied(bases, name, memory=memory)
        asked = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert ("memory_attention.layers.0.linear1.weight" in asked) == (memory == "trained")
        assert ("maskmem_tpos_enc" in asked) == (memory == "trained")
        assert ("sam_mask_decoder.iou_token.weight" in asked) == (name != "sam2lora")
        assert ("image_encoder.neck.convs.0.conv.weight" in asked) == (name == "full")


def test_added_parts_are_in_the_networks_mode(bases: dict[str, nn.Module]) -> None:
    """In training mode they would drop values and draw noise where a model is only used."""
    for name in ("sam2lora", "conv_lora", "e2vpt", "dd_adapter", "peft:LoRA"):
        network, _ = applied(bases, name)
        assert not any(module.training for module in network.modules())


# --- the paper's counts


@pytest.fixture(scope="module")
def counts() -> dict[str, object]:
    return method_counts(names=(*PAPER, "sam2lora"))


@pytest.mark.parametrize("name", ["decoder_only", "lora", "adapter", "adapter_lora", "ch_adapter"])
def test_table_v(name: str, counts: dict) -> None:
    number, share = counts[name].trained
    assert (round(number / 1e6, 2), round(100 * share, 2)) == PAPER[name]


def test_table_v_to_the_last_parameter(counts: dict) -> None:
    assert counts["decoder_only"].trained[0] == 11_726_850
    assert counts["ch_adapter"].trained == (20_798_782, 20_798_782 / 233_529_710)
    # Four matrices of rank 4 a block, each as long as the block's input is wide.
    inputs = 2 * 144 + (144 + 5 * 288) + (288 + 35 * 576) + (576 + 3 * 1152)
    assert counts["lora"].trained[0] == 11_726_850 + 16 * inputs
    assert counts["adapter"].trained[0] == 11_726_850 + 8_929_944


def test_sam2lora_trains_less_than_five_per_cent(counts: dict) -> None:
    assert counts["sam2lora"].memory_frozen[1] < 0.05
    for architecture in ("uniultra-mini", "sam2.1-tiny"):
        assert method_counts(architecture, ["sam2lora"])["sam2lora"].memory_frozen[1] < 0.05


def test_the_table_as_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_uniultra.training.peft_methods.table.METHODS", {"lora": "lora", "sam2lora": ""})
    lines = method_table().splitlines()
    assert lines[2].split()[:5] == ["lora", "12.15", "5.40%", "12.15", "5.40"]
    assert lines[3].split()[0] == "sam2lora"


def test_listing_needs_no_torch() -> None:
    code = "import sys, napari_uniultra.training.peft_methods as m; assert m.METHODS; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- what each method computes


def test_low_rank_updates_are_those_of_hugging_face() -> None:
    if find_spec("peft") is None:
        pytest.skip("the optional package peft is not installed")
    peft = _import_peft()
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 9))
    x = torch.randn(2, 3, 6)
    own = LowRank(6, 9, rank=2, alpha=5.0)
    nn.init.normal_(own.up)
    expected = base(x) + own(x)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, lora_alpha=5.0, target_modules=["0"]), base)
    with torch.no_grad():
        base[0].lora_A["default"].weight.copy_(own.down)
        base[0].lora_B["default"].weight.copy_(own.up)
    torch.testing.assert_close(base(x), expected)


def test_queries_and_values_change_and_keys_do_not() -> None:
    branch = QueryValue(LowRank(4, 6, 2, 2.0), LowRank(4, 6, 2, 2.0), between=6)
    nn.init.ones_(branch.q.up), nn.init.ones_(branch.v.up)
    x = torch.randn(5, 4)
    query, key, value = branch(x).chunk(3, dim=-1)
    assert not key.any()
    torch.testing.assert_close(query, (x @ branch.q.down.T).sum(-1, keepdim=True).expand(5, 6))
    torch.testing.assert_close(value, branch.v(x))
    torch.testing.assert_close(branch(x), (x.double() @ branch.delta().T).float())


def block_of(bases: dict[str, nn.Module], index: int) -> nn.Module:
    return copy.deepcopy(bases["SAM2"]).image_encoder.trunk.blocks[index]


def test_tokens_are_attended_to_as_if_they_stood_in_the_window(bases: dict[str, nn.Module]) -> None:
    attention = block_of(bases, 3).attn  # no pooling, so sam2's module takes a window of any shape
    prompted = PromptedAttention(copy.deepcopy(attention), tokens=5)
    nn.init.normal_(prompted.prompts)
    x = torch.randn(3, 2, 2, attention.dim)
    if attention.q_pool is not None:
        attention.q_pool = prompted.q_pool = None
    row = torch.cat([x.reshape(3, 1, 4, -1), prompted.prompts.expand(3, 1, -1, -1)], dim=2)
    expected = attention(row)[:, 0, :4].reshape(3, 2, 2, -1)
    torch.testing.assert_close(prompted(x), expected)


@pytest.mark.parametrize("index", range(5))
def test_without_tokens_attention_is_sam2s_own(index: int, bases: dict[str, nn.Module]) -> None:
    attention = block_of(bases, index).attn
    x = torch.randn(2, 4, 6, attention.dim)
    torch.testing.assert_close(PromptedAttention(attention, tokens=0)(x), attention(x))


def test_tokens_in_the_first_block_alone(bases: dict[str, nn.Module]) -> None:
    network, _ = applied(bases, "vpt", deep=False, tokens=3)
    prompts = [name for name in network.state_dict() if "prompts" in name]
    assert prompts == ["image_encoder.trunk.blocks.0.attn.prompts"]
    assert network.image_encoder.trunk.blocks[0].attn.prompts.shape == (3, 8)


def test_a_tokens_worth_is_the_derivative_by_its_factor(bases: dict[str, nn.Module]) -> None:
    network, _ = applied(bases, "e2vpt", segments=2)
    layer = network.image_encoder.trunk.blocks[0].attn
    nn.init.normal_(layer.prompts)
    x = torch.randn(2, 4, 4, 8)
    layer(x).square().sum().backward()
    layer.weigh()
    factors = torch.ones(5, 2, requires_grad=True)
    prompts = layer.prompts.detach().clone()
    reference = copy.deepcopy(layer)
    del reference.prompts
    reference.prompts = prompts * factors.repeat(1, 4)
    reference(x).square().sum().backward()
    torch.testing.assert_close(layer.part_worth, factors.grad.abs())
    torch.testing.assert_close(layer.token_worth, factors.grad.sum(dim=1).abs())


def test_the_least_worthy_are_pruned_once(bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, "e2vpt", prune_tokens=0.4, prune_segments=0.0, prune_at=0.5)
    layers = [module for module in network.modules() if isinstance(module, PrunedAttention)]
    for progress in (0.0, 0.4):
        logits(network).square().mean().backward()
        method.after_backward(network, progress)
        assert all(bool(layer.kept.all()) for layer in layers)
    worth = layers[0].token_worth.clone()
    method.after_backward(network, 0.5)
    gone = ~layers[0].kept.any(dim=1)
    assert gone.sum() == 2
    assert worth[gone].max() <= worth[~gone].min()
    before = answer(network)
    with torch.no_grad():
        layers[0].prompts[gone] += 100
    assert torch.equal(answer(network), before), "a pruned token has no say"
    kept = layers[0].kept.clone()
    logits(network).square().mean().backward()
    method.after_backward(network, 0.6)
    assert torch.equal(layers[0].kept, kept)


def test_gates_choose_the_best_experts() -> None:
    gate = Gate(width=2, experts=3, top=2).eval()
    with torch.no_grad():
        gate.score.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))
    maps = torch.tensor([[1.0, 0.0], [0.0, 5.0]])[:, :, None, None].expand(2, 2, 4, 4)
    gates, _ = gate(maps)
    strong = 1 / (1 + np.exp(-1.0))  # softmax of scores 2 and 1
    torch.testing.assert_close(gates[0], torch.tensor([1 - strong, strong, 0]).float())
    assert gates[1].argmax() == 2


class _AsOnCuda(TorchFunctionMode):
    """Softmax under autocast gives float32, as a CPU's does not."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        is_softmax = getattr(function, "__name__", "") == "softmax" and torch.is_autocast_enabled("cpu")
        return result.float() if is_softmax else result


@pytest.mark.parametrize("is_training", [True, False])
def test_gates_are_the_same_in_mixed_precision(is_training: bool) -> None:
    gate, maps = Gate(width=2, experts=3, top=2).train(is_training), torch.rand(4, 2, 4, 4)
    torch.manual_seed(0)
    expected = gate(maps)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16), _AsOnCuda():
        found = gate(maps)
    for own, other in zip(found, expected, strict=True):
        assert torch.equal(own, other)


def test_the_balancing_loss_by_hand() -> None:
    assert _unevenness(torch.tensor([3.0, 3.0, 3.0])) == 0
    # All in one of four: the mean is n / 4 and the variance n^2 / 4, so that the ratio is 4.
    torch.testing.assert_close(_unevenness(torch.tensor([8.0, 0.0, 0.0, 0.0])), torch.tensor(4.0))
    assert _unevenness(torch.tensor([5.0])) == 0


def test_the_load_is_a_chance() -> None:
    """Noise drawn many times over chooses each expert as often as the gate says."""
    torch.manual_seed(0)
    gate = Gate(2, 3, 1)
    clean, spread = torch.tensor([[0.3, 0.0, -0.4]]), torch.full((1, 3), 0.5)
    noisy = clean + torch.tensor([[0.2, 0.1, -0.3]]) * spread
    chance = gate._load(clean, noisy, spread)[0]
    others = noisy[0].clone()
    for expert in range(3):
        rest = torch.cat([others[:expert], others[expert + 1 :]])
        drawn = clean[0, expert] + torch.randn(200_000) * spread[0, expert]
        assert abs(float((drawn > rest.max()).float().mean()) - float(chance[expert])) < 0.005


def test_the_balancing_loss_trains_the_gates(bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, "conv_lora", balance=0.5)
    assert method.extra_loss(network) is None
    answer(network)
    assert method.extra_loss(network) is None, "only in training"
    logits(network.train())
    loss = method.extra_loss(network)
    loss.backward()
    gate = network.image_encoder.trunk.blocks[1].attn.qkv.lora.q.gate
    assert gate.noise.grad.abs().max() > 0
    assert method.extra_loss(network) is None, "once a pass"


def test_dilations_reach_as_far_as_they_should() -> None:
    adapter = DDAdapter(2, 2, (1, 3))
    for parameter in adapter.parameters():
        nn.init.constant_(parameter, 0.5)
    x = torch.zeros(1, 9, 9, 2)
    touched = x.clone()
    touched[0, 4, 4] = 1
    changed = (adapter(touched) - adapter(x)).abs().sum(dim=-1)[0] > 1e-6
    offsets = {(int(row) - 4, int(column) - 4) for row, column in changed.nonzero()}
    near = {(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)}
    assert offsets == near | {(3 * row, 3 * column) for row, column in near}


def test_adapters_train_ten_times_faster(bases: dict[str, nn.Module]) -> None:
    _, method = applied(bases, "dd_adapter")
    (part,) = method.rates
    assert method.rates[part] == 10
    assert all(part in name.split(".") for name in method._added)


@pytest.mark.parametrize(
    "options",
    [{"operator": "laplace"}, {"operator": "canny"}, {"directions": ["vertical"]}, {"reduction": "sum"}],
    ids=str,
)
def test_the_kinds_of_edges(options: dict, bases: dict[str, nn.Module]) -> None:
    """Tables VI and VIII."""
    network, method = applied(bases, "ch_adapter", **options)
    expected = AdapterConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})
    assert method.config == PLAIN.with_(adapter=expected)
    assert torch.equal(answer(network), answer(bases["SAM2"]))
    assert set(network.state_dict()) == set(build_network(method.config).state_dict())


def test_own_adapters_are_trained(bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, "ch_adapter", "UniUltra")
    assert method.config == WITH_ADAPTERS
    asked = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert "image_encoder.trunk.blocks.0.adapter.down.weight" in asked
    assert "image_encoder.trunk.patch_mixer.conv.weight" in asked
    assert "image_encoder.trunk.blocks.0.mlp.layers.0.weight" not in asked
    assert 0 < trainable_parameters(network)[1] < 1
    with pytest.raises(ConfigError, match=r"operator is 'sobel'.*Set method.options"):
        applied(bases, "ch_adapter", "UniUltra", operator="canny")


@pytest.mark.parametrize("targets", [["proj"], ["mlp"], ["decoder"], ["qkv", "decoder"]], ids=str)
def test_hugging_face_updates_where_asked(targets: list[str], bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, "peft:LoRA", targets=targets)
    asked = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name for name in asked) == ("decoder" in targets)
    in_decoder = [name for name in method._added if name.startswith("sam_mask_decoder")]
    assert bool(in_decoder) == ("decoder" in targets)


# --- bad input


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"called 'ch_adaptor'.*'ch_adapter'"):
        apply_method(nn.Linear(1, 1), PLAIN, MethodSettings("ch_adaptor"))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lora", {"rnk": 3}, r"method\.options\.rnk.*'rank'"),
        ("lora", {"rank": 0}, r"method\.options\.rank is 0"),
        ("decoder_only", {"rank": 1}, r"method\.options\.rank"),
        ("conv_lora", {"experts": 2, "top": 3}, "there are 2 experts"),
        ("ch_adapter", {"operator": "prewitt"}, "prewitt.*sobel"),
    ],
)
def test_options_that_do_not_exist(name: str, options: dict, words: str, bases: dict[str, nn.Module]) -> None:
    with pytest.raises(ConfigError, match=words):
        applied(bases, name, **options)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("decoder_only", "full")])
def test_a_method_is_applied_once(name: str, bases: dict[str, nn.Module]) -> None:
    network, method = applied(bases, name)
    if name == "ch_adapter":
        return
    with pytest.raises(ConfigError, match="already"):
        apply_method(network, PLAIN, method.settings)


def test_without_the_peft_package(bases: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"need Hugging Face's package peft.*pip install peft"):
        apply_method(copy.deepcopy(bases["SAM2"]), PLAIN, MethodSettings("peft:LoRA"))
