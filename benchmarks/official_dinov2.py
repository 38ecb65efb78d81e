"""The official DINOv2 training step, run from its own source on any device, for ``pretrain_step.py``.

Its source needs xformers, a CUDA device and FSDP. Here equal operations of torch stand in: attention view size by view
size, no sharding, autocast for mixed precision. Nothing of the source is part of this repository.
"""

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.records.plans import Pretraining


class BlockDiagonalMask:
    """Which tokens of one long sequence belong together; only their lengths are kept."""

    def __init__(self, lengths: list[int], batch_sizes: list[int] | None = None) -> None:
        self.lengths = lengths
        self._batch_sizes = batch_sizes

    @classmethod
    def from_seqlens(cls, lengths: list[int]) -> "BlockDiagonalMask":
        """Return the mask of sequences of these lengths."""
        return cls(lengths)

    @classmethod
    def from_tensor_list(cls, tensors: Sequence[Tensor]) -> tuple["BlockDiagonalMask", Tensor]:
        """Return the mask, and the tensors (B, n, D) as one (1, T, D)."""
        lengths = [tensor.shape[1] for tensor in tensors for _ in range(len(tensor))]
        joined = torch.cat([tensor.reshape(1, -1, tensor.shape[-1]) for tensor in tensors], 1)
        return cls(lengths, [len(tensor) for tensor in tensors]), joined

    def split(self, joined: Tensor) -> list[Tensor]:
        """Return the tensors (B, n, D) of a joined one."""
        parts = joined.split([length * count for length, count in self.runs()], 1)
        shapes = [(count, length) for length, count in self.runs()]
        return [part.reshape(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]

    def runs(self) -> list[tuple[int, int]]:
        """Return (length, how many in a row)."""
        if self._batch_sizes is None:
            return [(length, len(list(group))) for length, group in groupby(self.lengths)]
        starts = [sum(self._batch_sizes[:index]) for index in range(len(self._batch_sizes))]
        return [(self.lengths[start], count) for start, count in zip(starts, self._batch_sizes, strict=True)]


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_bias: BlockDiagonalMask | None = None, op: object = None
) -> Tensor:
    """Return the attention (B, n, heads, d); with a mask (1, T, heads, d), each size of view in one call."""
    if attn_bias is None:
        return _attend(query, key, value)
    sizes = [length * count for length, count in attn_bias.runs()]
    outputs = []
    parts = zip(attn_bias.runs(), *(tensor.split(sizes, 1) for tensor in (query, key, value)), strict=True)
    for (length, count), *tensors in parts:
        heads = [tensor.reshape(count, length, *tensor.shape[2:]) for tensor in tensors]
        outputs.append(_attend(*heads).flatten(0, 1))
    return torch.cat(outputs)[None]


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    return F.scaled_dot_product_attention(*heads_first).transpose(1, 2)


def scaled_index_add(
    target: Tensor, index: Tensor, source: Tensor, scaling: Tensor | None = None, alpha: float = 1.0
) -> Tensor:
    """Return ``target`` plus alpha times the scaled ``source`` in the rows of ``index``."""
    scaled = source if scaling is None else source * scaling.to(source.dtype)
    return target.index_add(0, index, scaled.to(target.dtype), alpha=alpha)


def index_select_cat(sources: Sequence[Tensor], indices: Sequence[Tensor]) -> Tensor:
    """Return chosen rows of each source, flattened and joined."""
    return torch.cat([source[index].flatten() for source, index in zip(sources, indices, strict=True)])


def stand_ins(source: Path) -> None:
    """Put modules of these names in the place of xformers and of the source's use of FSDP."""
    fmha = SimpleNamespace(BlockDiagonalMask=BlockDiagonalMask, MemoryEfficientAttentionFlashAttentionOp=None)
    names = ("xformers", "xformers.ops", "dinov2.fsdp", "dinov2.train")
    xformers, operators, sharding, training = modules = [ModuleType(name) for name in names]
    # a package without its own start, which imports all that a cluster needs
    training.__path__ = [str(source / "dinov2" / "train")]
    operators.__dict__.update(
        fmha=fmha,
        memory_efficient_attention=attention,
        unbind=torch.unbind,
        scaled_index_add=scaled_index_add,
        index_select_cat=index_select_cat,
    )
    xformers.__dict__["ops"] = operators
    unused = ("get_fsdp_wrapper", "ShardedGradScaler", "get_fsdp_modules", "reshard_fsdp_model")
    sharding.__dict__.update(dict.fromkeys(unused, lambda *_: None))
    sys.modules.update(zip(names, modules, strict=True))
    if not torch.cuda.is_available():
        Tensor.cuda = lambda self, **_: self  # type: ignore[method-assign,assignment]


def build_official(source: Path, recipe: Pretraining) -> Any:
    """Return the official SSLMetaArch with this recipe; ``source`` is the folder that holds the package dinov2."""
    stand_ins(source)
    sys.path.insert(0, str(source))
    from dinov2.train.ssl_meta_arch import SSLMetaArch

    class Official(SSLMetaArch):  # type: ignore[misc,valid-type]
        def update_teacher(self, m: float) -> None:
            teacher, student = list(self.teacher.parameters()), list(self.student.parameters())
            torch._foreach_mul_(teacher, m)
            torch._foreach_add_(teacher, student, alpha=1 - m)

    model: nn.Module = Official(_config(recipe))
    model.need_to_synchronize_fsdp_streams = False
    model.update_teacher = torch.no_grad()(model.update_teacher)
    for name, module in model.student.items():
        model.teacher[name].load_state_dict(module.state_dict())
    model.train()
    return model


def _config(recipe: Pretraining) -> Any:
    head = SimpleNamespace(
        loss_weight=1.0,
        head_n_prototypes=recipe.num_prototypes,
        head_bottleneck_dim=recipe.head_bottleneck,
        head_hidden_dim=recipe.head_hidden,
        head_nlayers=3,
        koleo_loss_weight=recipe.koleo_weight,
        mask_sample_probability=recipe.mask_probability,
        mask_ratio_min_max=recipe.mask_ratio,
        separate_head=False,
    )
    student = SimpleNamespace(
        arch=recipe.architecture.name,
        patch_size=recipe.architecture.patch_size,
        in_chans=recipe.architecture.channels,
        drop_path_rate=recipe.drop_path,
        drop_path_uniform=True,
        layerscale=recipe.architecture.layer_scale,
        ffn_layer="mlp",
        block_chunks=0,
        qkv_bias=True,
        proj_bias=True,
        ffn_bias=True,
        num_register_tokens=0,
        interpolate_offset=0.1,
        interpolate_antialias=False,
        pretrained_weights="",
    )
    centering = "centering" if recipe.centering == "softmax" else "sinkhorn_knopp"
    return SimpleNamespace(
        student=student,
        dino=head,
        ibot=head,
        compute_precision=SimpleNamespace(grad_scaler=False),
        train=SimpleNamespace(centering=centering),
        crops=SimpleNamespace(
            global_crops_size=recipe.views.global_size[0], local_crops_number=recipe.views.num_locals
        ),
        optim=SimpleNamespace(layerwise_decay=recipe.layer_decay, patch_embed_lr_mult=recipe.patch_embed_factor),
    )
