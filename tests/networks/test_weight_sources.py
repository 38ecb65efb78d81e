"""Weights of each source, under its own names, give what an independent implementation makes of them.

Small models with random weights; features agree within 1e-4, at the size that they were made for and at another one,
in colour and for grey images whose normalisation is folded into the stem.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from fmseg.errors import BadData
from fmseg.networks.foreign_files import read_foreign
from fmseg.networks.sources.adapt import fit_channels
from fmseg.networks.sources.convert import convert
from fmseg.networks.weights import built
from fmseg.records.foundation import moments_for

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
WIDTH, DEPTH, HEADS = 128, 3, 2
HIDDEN = 4 * WIDTH


def block(index, hidden=HIDDEN, scale=None, qkv_bias=True):
    """The tensors of a DeiT-like block, name -> shape."""
    shapes = {
        "norm1.weight": (WIDTH,),
        "norm1.bias": (WIDTH,),
        "attn.qkv.weight": (3 * WIDTH, WIDTH),
        "attn.proj.weight": (WIDTH, WIDTH),
        "attn.proj.bias": (WIDTH,),
        "norm2.weight": (WIDTH,),
        "norm2.bias": (WIDTH,),
        "mlp.fc1.weight": (hidden, WIDTH),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (WIDTH, hidden),
        "mlp.fc2.bias": (WIDTH,),
    }
    if qkv_bias:
        shapes["attn.qkv.bias"] = (3 * WIDTH,)
    for number in (1, 2) if scale else ():
        shapes[scale.format(number)] = (WIDTH,)
    return {f"blocks.{index}.{name}": shape for name, shape in shapes.items()}


def filled(shapes, seed=0):
    """Random values of the given shapes, large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        is_gain = "norm" in name and name.endswith("weight")
        std = 0.3 if len(shape) < 2 or name.endswith(("token", "tokens", "embed")) else 2 * shape[-1] ** -0.5
        state[name] = values * (0.02 if len(shape) == 4 else std) + (1.0 if is_gain else 0.0)
    return state


def plain(patch=8, grid=4, channels=3, **options):
    """The tensors of a DeiT-like ViT, name -> shape."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + grid**2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, channels, patch, patch),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for index in range(DEPTH):
        shapes |= block(index, **options)
    return shapes


def timm_vit(patch=8, size=32, **options):
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0, "img_size": size}
    return VisionTransformer(patch_size=patch, norm_layer=partial(nn.LayerNorm, eps=1e-6), **sizes, **options).eval()


def write(path, state):
    """Save as the ending says; a nested dictionary is a training checkpoint."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def close(got, want):
    return float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())


@torch.no_grad()
def assert_same(found, reference, sizes):
    """Compare with a reference: it maps a normalised colour image to all tokens."""
    vit = built(found.architecture, found.state).eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (found.mean, found.std))
    (grey_mean, *_), (grey_std, *_) = moments_for(found.mean, found.std, 1)
    grey_state = fit_channels(found.state, found.mean, found.std, 1)
    grey_vit = built(found.architecture.evolve(channels=1), grey_state).eval()
    for size in sizes:
        image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        want = reference((image - mean) / std)
        assert want.shape == vit((image - mean) / std).shape
        assert close(vit((image - mean) / std), want), size
        grey = image[:, :1]
        want = reference((grey.expand(-1, 3, -1, -1) - mean) / std)
        assert close(grey_vit((grey - grey_mean) / grey_std), want), size


def positions_at(state, grid, new, **how):
    """A state whose positions of CLS and of a square grid are those of another grid."""
    position = state["pos_embed"]
    patches = position[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, mode="bicubic", **how)
    assert patches.shape[-2:] == new
    return state | {"pos_embed": torch.cat([position[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)}


def plain_reference(state, how):
    """timm's ViT at 32 px, and at 40 x 56 with the positions as ``how`` says: "offset" or "size"."""

    def reference(image):
        grid = (image.shape[2] // 8, image.shape[3] // 8)
        own = state
        if grid != (4, 4):
            scale = {"scale_factor": tuple((side + 0.1) / 4 for side in grid)} if how == "offset" else {"size": grid}
            own = positions_at(state, 4, grid, **scale)
        model = timm_vit(size=tuple(image.shape[2:]))
        model.load_state_dict(own)
        return model.forward_features(image)

    return reference


# DINOv2


def dinov2_state(registers=0, swiglu=False, **options):
    hidden = 344 if swiglu else HIDDEN
    shapes = plain(patch=14, grid=4, hidden=hidden, scale="ls{}.gamma", **options) | {"mask_token": (1, WIDTH)}
    if registers:
        shapes["register_tokens"] = (1, registers, WIDTH)
    if swiglu:
        shapes = {name: (2 * hidden, *shape[1:]) if "fc1" in name else shape for name, shape in shapes.items()}
        shapes = {name.replace("fc1", "w12").replace("fc2", "w3"): shape for name, shape in shapes.items()}
    return filled(shapes)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_as_in_timm(tmp_path, registers, swiglu):
    from timm.layers import SwiGLUPacked
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = dinov2_state(registers, swiglu)
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 688 / WIDTH} if swiglu else {}
    theirs = timm_vit(
        14, 56, init_values=1.0, reg_tokens=registers, no_embed_class=bool(registers), dynamic_img_size=True, **gated
    )
    theirs.load_state_dict(checkpoint_filter_fn(dict(state), theirs))
    found = convert(read_foreign(write(tmp_path / "dinov2_vits14_pretrain.pth", state)), num_heads=HEADS)
    assert (found.name, found.dropped, found.notes) == ("dinov2", (), ())
    assert found.architecture.position_interpolation == ("size" if registers else "offset")
    assert found.architecture.position_antialias == bool(registers)
    # timm resamples as DINOv2 does with registers; without them the golden numbers tell
    assert_same(found, theirs.forward_features, [(56, 56), (42, 84)] if registers else [(56, 56)])


@pytest.mark.parametrize("kind", ["teacher", "model"])
def test_checkpoints_of_dinov2s_training_hold_a_teacher_in_chunks(tmp_path, kind):
    state = dinov2_state(registers=4)
    chunked = {name.replace("blocks.", "blocks.1."): tensor for name, tensor in state.items()}
    own = {f"backbone.{name}": tensor for name, tensor in chunked.items()} | {"dino_head.mlp.0.weight": torch.ones(3)}
    other = {f"student.backbone.{name}": tensor + 1 for name, tensor in chunked.items()}
    model = {f"teacher.{name}": tensor for name, tensor in own.items()} | other
    value = {"teacher": own} if kind == "teacher" else {"model": model, "iteration": 3}
    found = convert(read_foreign(write(tmp_path / "checkpoint.pth", value)), num_heads=HEADS)
    assert found.name == "dinov2_training"
    assert torch.equal(found.state["blocks.2.attn.qkv.weight"], state["blocks.2.attn.qkv.weight"])
    # its own training resamples otherwise than the released ones with registers
    assert (found.architecture.position_interpolation, found.architecture.position_antialias) == ("offset", False)
    left = dict(found.dropped)
    assert any("dino_head" in name for name in left)
    assert kind == "teacher" or any("student" in name for name in left)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference files are not here")
@pytest.mark.parametrize("name", ["tied_sinkhorn", "separate_centering"])
def test_features_of_dinov2s_own_code_at_two_sizes(tmp_path, name):
    data = np.load(GOLDEN / f"dinov2_step_{name}.npz")
    state = {key.removeprefix("weights/"): torch.tensor(data[key]) for key in data.files if key.startswith("weights/")}
    student = {key: tensor for key, tensor in state.items() if key.startswith("student.")}
    path = write(tmp_path / "model_final.rank_0.pth", {"model": student})
    found = convert(read_foreign(path), num_heads=int(data["config"][6]), moments=((0.0,), (1.0,)))
    vit = built(found.architecture, found.state).eval()
    crops, masks = torch.tensor(data["global_crops"]), torch.tensor(data["masks"])
    local = torch.tensor(data["local_crops"])
    with torch.no_grad():
        tokens, local_tokens = vit.forward_groups([crops, local], [masks, None])
    assert close(tokens[:, 0], torch.tensor(data["student_cls_global"]).reshape(tokens[:, 0].shape))
    assert close(local_tokens[:, 0], torch.tensor(data["student_cls_local"]).reshape(local_tokens[:, 0].shape))


def test_ultradino_is_told_by_its_channel_and_registers(tmp_path):
    shapes = plain(patch=16, grid=4, channels=1, scale="ls{}.gamma")
    state = filled(shapes | {"mask_token": (1, WIDTH), "register_tokens": (1, 4, WIDTH)})
    value = {"teacher": {f"backbone.{name}": tensor for name, tensor in state.items()}}
    found = convert(read_foreign(write(tmp_path / "teacher_checkpoint.pth", value)), num_heads=HEADS)
    assert (found.name, found.mean, found.std) == ("ultradino", (0.1842924807,), (0.2187705424,))
    assert (found.architecture.num_registers, found.architecture.channels) == (4, 1)
    vit = built(found.architecture, found.state).eval()
    for size in ((64, 64), (48, 96)):
        image = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert close(vit(image), ultradino_in_timm(state, size)(image)), size


def ultradino_in_timm(state, size):
    """timm's ViT with registers, with the positions of another size as DINOv2's training resamples them."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    grid = (size[0] // 16, size[1] // 16)
    if grid != (4, 4):
        state = positions_at(state, 4, grid, scale_factor=tuple((side + 0.1) / 4 for side in grid))
    model = timm_vit(16, size, in_chans=1, init_values=1.0, reg_tokens=4, no_embed_class=True)
    model.load_state_dict(checkpoint_filter_fn(dict(state), model))
    return model.forward_features


# DINO, iBOT, MAE


def test_dino_and_ibot_as_in_timm(tmp_path):
    state = filled(plain())
    nested = {"teacher": {f"backbone.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
    nested["student"] = {f"module.{name}": tensor + 1 for name, tensor in nested["teacher"].items()}
    heads = {"dino": ["head.last_layer.weight_v"], "ibot": ["head.last_layer.weight_v", "head.last_layer2.weight_v"]}
    reference = plain_reference(state, "offset")
    for name, extra in heads.items():
        own = nested | {"teacher": nested["teacher"] | {key: torch.ones(2) for key in extra}}
        found = convert(read_foreign(write(tmp_path / "checkpoint.pth", own)), num_heads=HEADS)
        assert found.name == name
        assert found.notes[-1].startswith("mask_token")
        assert_same(found, reference, [(32, 32), (40, 56)])
    flat = write(tmp_path / "dino_deitsmall8_pretrain.pth", state)
    assert convert(read_foreign(flat), num_heads=HEADS).name == "dino"
    teacher = write(tmp_path / "checkpoint_teacher.pth", {"state_dict": state})
    assert convert(read_foreign(teacher), num_heads=HEADS).name == "ibot"
    masked = filled({"masked_embed": (1, WIDTH)})
    found = convert(read_foreign(write(teacher, {"state_dict": state | masked})), num_heads=HEADS)
    assert torch.equal(found.state["mask_token"], masked["masked_embed"])
    # nothing but its name would tell a flat file of DINO from others built alike
    with pytest.raises(Exception, match="cannot be told"):
        convert(read_foreign(write(tmp_path / "model.pth", state)), num_heads=HEADS)


def test_mae_as_in_timm(tmp_path):
    from timm.layers import build_sincos2d_pos_embed

    state = filled(plain())
    fixed = build_sincos2d_pos_embed([4, 4], WIDTH, interleave_sin_cos=False)
    state["pos_embed"] = torch.cat([torch.zeros(1, WIDTH), fixed])[None]
    decoder = {"decoder_blocks.0.norm1.weight": torch.ones(5), "mask_token": torch.ones(1, 1, 64)}
    for extra in (decoder, {}):
        found = convert(read_foreign(write(tmp_path / "mae.pth", {"model": state | extra})), num_heads=HEADS)
        assert found.name == "mae"
        assert found.source.commercial is False
        assert {name for name, _ in found.dropped} == {f"model.{name}" for name in extra}
        assert not found.state["mask_token"].any()
    assert_same(found, plain_reference(state, "size"), [(32, 32), (40, 56)])


# DINOv3


@pytest.mark.parametrize("kind", ["mlp", "swiglu", "no bias"])
def test_dinov3_as_in_timm(tmp_path, kind):
    from timm.models.eva import Eva, checkpoint_filter_fn

    shapes = plain(patch=16, hidden=256, scale="ls{}.gamma", qkv_bias=kind != "no bias")
    del shapes["pos_embed"]
    state = filled(
        shapes | {"storage_tokens": (1, 4, WIDTH), "mask_token": (1, WIDTH), "local_cls_norm.weight": (WIDTH,)}
    )
    state["rope_embed.periods"] = 100 ** (2 * torch.arange(16) / 32)
    if kind == "swiglu":
        for name in [name for name in state if "mlp.fc1" in name]:
            state[name.replace("fc1", "w1")] = state.pop(name)
            state[name.replace("fc1", "w2")] = state[name.replace("fc1", "w1")].flip(0)
        state = {name.replace("mlp.fc2", "mlp.w3"): tensor for name, tensor in state.items()}
    for index in range(DEPTH) if kind != "no bias" else ():
        state[f"blocks.{index}.attn.qkv.bias_mask"] = torch.cat(
            [torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)]
        )
    theirs = Eva(
        img_size=64,
        patch_size=16,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0,
        mlp_ratio=2,
        swiglu_mlp=kind == "swiglu",
        swiglu_align_to=8,
        qkv_bias=kind != "no bias",
        init_values=1.0,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        num_reg_tokens=4,
        use_fc_norm=False,
        dynamic_img_size=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    ).eval()
    theirs.load_state_dict(checkpoint_filter_fn(dict(state), theirs))
    found = convert(read_foreign(write(tmp_path / "dinov3_vits16_pretrain_lvd1689m.pth", state)))
    assert (found.name, found.architecture.num_heads, found.architecture.layer_norm_eps) == ("dinov3", HEADS, 1e-5)
    assert [name for name, _ in found.dropped] == ["local_cls_norm.weight"]
    assert_same(found, theirs.forward_features, [(64, 64), (48, 96)])
    satellite = convert(read_foreign(write(tmp_path / "dinov3_vitl16_pretrain_sat493m.pth", state)))
    assert satellite.mean == (0.430, 0.411, 0.296)


# USFM, CLIP, Segment Anything


def test_usfm_as_in_timms_beit(tmp_path):
    from timm.models.beit import Beit

    shapes = plain(grid=4, scale="gamma_{}", qkv_bias=False)
    for name in ("pos_embed", "norm.weight", "norm.bias"):
        del shapes[name]
    shapes |= {f"blocks.{index}.attn.{part}_bias": (WIDTH,) for index in range(DEPTH) for part in "qv"}
    state = filled(
        shapes | {"rel_pos_bias.relative_position_bias_table": (7 * 7 + 3, HEADS), "mask_token": (1, 1, WIDTH)}
    )
    theirs = Beit(
        img_size=32,
        patch_size=8,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0,
        init_values=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    theirs.norm = nn.Identity()
    theirs.load_state_dict({name: tensor for name, tensor in state.items() if name != "mask_token"}, strict=False)
    index = {
        "rel_pos_bias.relative_position_index": torch.zeros(17, 17, dtype=torch.long),
        "fc_norm.bias": torch.ones(WIDTH),
    }
    found = convert(read_foreign(write(tmp_path / "USFM_latest.pth", state | index)))
    assert (found.name, found.architecture.relation, found.architecture.num_heads) == ("usfm", "table", HEADS)
    assert {name for name, _ in found.dropped} == set(index)
    assert not found.architecture.output_norm

    def reference(image):
        theirs.set_input_size(tuple(image.shape[2:]))
        return theirs.forward_features(image)

    assert_same(found, reference, [(32, 32), (40, 56)])


def open_clip_tower(size, quick):
    from open_clip.model import QuickGELU
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(
        image_size=size,
        patch_size=8,
        width=WIDTH,
        layers=DEPTH,
        heads=HEADS,
        mlp_ratio=4.0,
        output_dim=32,
        output_tokens=True,
        act_layer=QuickGELU if quick else nn.GELU,
    )
    for parameter in tower.parameters():
        nn.init.normal_(parameter, mean=float(parameter.mean() > 0.5), std=0.1)
    return tower.eval()


@pytest.mark.parametrize("quick", [False, True])
def test_clip_towers_as_in_open_clip(tmp_path, quick):
    from open_clip.model import resize_pos_embed

    tower = open_clip_tower(32, quick)
    state = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(3), "logit_scale": torch.ones(())}
    name = "open_clip_model.safetensors" if quick else "FetalCLIP_weights.pt"
    path = write(
        tmp_path / name,
        state | text if quick else {"state_dict": {f"module.{k}": v for k, v in (state | text).items()}},
    )
    if quick:
        vision = {"width": WIDTH, "head_width": WIDTH // HEADS, "image_size": 32}
        config = {"model_cfg": {"quick_gelu": True, "vision_cfg": vision}, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    found = convert(read_foreign(path), num_heads=None if quick else HEADS)
    assert found.name == ("open_clip" if quick else "fetalclip")
    assert found.architecture.activation == ("quick_gelu" if quick else "gelu")
    assert (found.source.commercial, found.architecture.input_norm) == (None if quick else False, True)
    assert found.mean == ((0.5, 0.4, 0.3) if quick else (0.48145466, 0.4578275, 0.40821073))

    def reference(image):
        other = open_clip_tower(tuple(image.shape[2:]), quick)
        own = dict(state)
        resize_pos_embed(own, nn.ModuleDict({"visual": other}))
        other.load_state_dict({key.removeprefix("visual."): tensor for key, tensor in own.items()})
        tokens = other._embeds(image)
        return other.ln_post(other.transformer(tokens))

    assert_same(found, reference, [(32, 32), (40, 56)])


def sam_model(size, eps):
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0, "img_size": size}
    more = {"window_size": 3, "global_attn_indexes": (1,), "use_rel_pos": True, "neck_chans": 16}
    more["norm_layer"] = partial(nn.LayerNorm, eps=eps)
    model = VisionTransformerSAM(patch_size=8, init_values=None, **sizes, **more).eval()
    model.neck = nn.Identity()
    return model


def sam_reference(state, antialias, eps=1e-6):
    def reference(image):
        model = sam_model(tuple(image.shape[2:]), eps)
        grid = tuple(side // 8 for side in image.shape[2:])
        for name, parameter in model.named_parameters():
            own = state[name]
            if name == "pos_embed" and grid != (4, 4):
                own = F.interpolate(own.permute(0, 3, 1, 2), grid, mode="bicubic", antialias=antialias).permute(
                    0, 2, 3, 1
                )
            parameter.data = own  # of another size too: they are resampled at each use
        return model.forward_features(image).flatten(2).transpose(1, 2)

    return reference


def sam_state():
    shapes = {name: tuple(parameter.shape) for name, parameter in sam_model(32, 1e-6).named_parameters()}
    return filled(shapes)


@pytest.mark.parametrize("name", ["sam", "ultrasam"])
def test_segment_anything_as_in_timm(tmp_path, name):
    import re

    state, theirs = sam_state(), {}
    for key, tensor in state.items():
        if name == "sam":
            theirs["image_encoder." + key.replace("mlp.fc", "mlp.lin")] = tensor
            continue
        key = key.replace("patch_embed.proj.", "patch_embed.projection.").replace("mlp.fc1", "ffn.layers.0.0")
        key = re.sub(r"norm(\d)", r"ln\1", key.replace("mlp.fc2", "ffn.layers.1").replace("blocks.", "layers."))
        theirs[f"backbone.{key}"] = tensor
    neck = {"sam": "image_encoder.neck.0.weight", "ultrasam": "backbone.channel_reduction.0.weight"}[name]
    rest = {"mask_decoder.iou_token.weight": torch.ones(2), neck: torch.ones(3)}
    value = theirs | rest if name == "sam" else {"state_dict": theirs | rest, "meta": {"epoch": 3}}
    found = convert(read_foreign(write(tmp_path / "UltraSam.pth", value)))
    assert (found.name, found.architecture.num_heads) == (name, HEADS)
    assert (found.architecture.window, found.architecture.global_blocks) == (3, (1,))
    assert len(found.dropped) == 2
    assert_same(found, sam_reference(state, antialias=False), [(32, 32), (40, 56)])


# libraries


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("swiglu", [False, True])
def test_hugging_face_dinov2_as_in_transformers(tmp_path, registers, swiglu):
    import transformers

    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "image_size": 56}
    config = getattr(transformers, f"{kind}Config")(patch_size=14, use_swiglu_ffn=swiglu, **sizes)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    model.load_state_dict(filled({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}))
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    found = convert(read_foreign(tmp_path))
    assert (found.name, found.mean, found.dropped) == ("huggingface", (0.5, 0.5, 0.5), ())
    assert_same(found, lambda image: model(image).last_hidden_state, [(56, 56), (42, 84)])


TIMM = {
    "vit_small_patch16_224.augreg_in21k": {},
    "vit_small_patch14_reg4_dinov2.lvd142m": {},
    "vit_base_patch16_clip_quickgelu_224.openai": {},
    "vit_base_patch16_siglip_gap_224.webli": {},
    "vit_small_patch16_dinov3.lvd1689m": {},
    "vit_small_plus_patch16_dinov3_qkvb.lvd1689m": {},
    "beit_base_patch16_224.in22k_ft_in22k": {},
    "samvit_base_patch16.sa1b": {"window_size": 3, "global_attn_indexes": [1], "neck_chans": 0},
}


def test_what_would_pass_for_another_model_without_a_tensor_is_refused(tmp_path):
    state = dinov2_state(registers=4)
    del state["register_tokens"]
    with pytest.raises(BadData, match="'register_tokens' is missing"):
        convert(read_foreign(write(tmp_path / "dinov2_vits14_reg4_pretrain.pth", state)), num_heads=HEADS)
    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": 8, "img_size": 32}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_small_patch16_224", "model_args": sizes}))
    for name in ("cls_token", "pos_embed", "norm.weight", "blocks.2.norm1.bias"):
        theirs = {key: tensor for key, tensor in filled(plain()).items() if key != name}
        with pytest.raises(BadData, match=f"'{name}' is missing"):
            convert(read_foreign(write(tmp_path / "model.safetensors", theirs)))


@pytest.mark.parametrize("name", TIMM)
def test_timms_vits_by_file(tmp_path, name):
    import timm

    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": 8, "img_size": 32} | TIMM[name]
    model = timm.create_model(name, pretrained=False, **sizes)
    state = filled({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    config = {
        "architecture": name.split(".")[0],
        "model_args": sizes,
        "pretrained_cfg": timm.get_pretrained_cfg(name).to_dict(),
    }
    write(tmp_path / "model.safetensors", state)
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = convert(read_foreign(tmp_path))
    assert (found.name, found.mean) == ("timm", tuple(timm.get_pretrained_cfg(name).mean))

    def reference(image):
        own = sizes | {"img_size": tuple(image.shape[2:])}
        if name.startswith("samvit"):
            return sam_reference(state, antialias=True, eps=found.architecture.layer_norm_eps)(image)
        other = timm.create_model(name, pretrained=False, num_classes=0, **sizes).eval()
        other.load_state_dict({key: tensor for key, tensor in state.items() if key in other.state_dict()})
        if own != sizes:
            other.set_input_size(own["img_size"])
        other.norm = other.norm if found.architecture.output_norm else nn.Identity()
        return other.forward_features(image)

    assert_same(found, reference, [(32, 32), (40, 56)])
